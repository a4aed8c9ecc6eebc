// The skeletons of signs that lib/app/skeletons.py writes, and the player that shows one.

import { draw } from "./draw.js";
import { MISSING, VALUES } from "./preprocess.js";
import { Problem } from "./problem.js";

const JOINTS = 42;
const SECONDS = 4; // bytes at the head of a record
const EDGE = 0.06; // of the picture, left free around the hands
const FINE = 720; // pixels on a side
const BOLD = 1.5;

/** The skeletons of a model's signs, fetched when the first one is wanted. */
export class Skeletons {
  /** about: address and frames of released.json. */
  constructor({ address, frames }, labels) {
    Object.assign(this, { address, frames, labels });
  }

  /** The skeleton of a sign: seconds, and landmarks (see preprocess.js) of each frame; null where there is none. */
  async of(label) {
    this.records ??= await this.#fetch();
    const size = SECONDS + 2 * JOINTS * this.frames;
    const record = new DataView(this.records, size * this.labels.indexOf(label), size);
    const seconds = record.getFloat32(0, true);
    if (!seconds) return null;
    const frames = Array.from({ length: this.frames }, (_, frame) => {
      const landmarks = new Float32Array(VALUES).fill(MISSING);
      for (let joint = 0; joint < JOINTS; joint++) {
        for (const axis of [0, 1]) {
          const value = record.getUint8(SECONDS + 2 * (JOINTS * frame + joint) + axis);
          if (value) landmarks[3 * joint + axis] = EDGE + (1 - 2 * EDGE) * ((value - 1) / 254);
        }
      }
      return landmarks;
    });
    return { seconds, frames };
  }

  async #fetch() {
    const response = await fetch(this.address).catch(() => null);
    if (!response?.ok) throw new Problem("The skeletons cannot be fetched: build the page again.");
    const records = await response.arrayBuffer();
    if (records.byteLength !== this.labels.length * (SECONDS + 2 * JOINTS * this.frames))
      throw new Problem("The file of the skeletons is broken: build the page again.");
    return records;
  }
}

const $ = (id) => document.getElementById(id);

/** Plays a skeleton, slower, mirrored and again and again at will. */
export class Player {
  constructor() {
    Object.assign(this, { skeleton: null, seconds: 0, playing: false });
    $("play").onclick = () => (this.playing ? this.pause() : this.play());
    $("position").oninput = () => {
      this.pause();
      this.#goTo(Number($("position").value) * this.skeleton.seconds);
    };
    $("flip").onchange = () => $("player").classList.toggle("mirrored", $("flip").checked);
  }

  /** Shows a skeleton from its beginning. It stands still for those who asked their system for less motion. */
  open(skeleton, label) {
    this.skeleton = skeleton;
    $("player-picture").setAttribute("aria-label", `The hands of somebody who signs “${label}”`);
    $("player").hidden = false;
    this.#goTo(0);
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) this.play();
  }

  close() {
    this.pause();
    $("player").hidden = true;
  }

  play() {
    if (this.seconds >= this.skeleton.seconds) this.#goTo(0);
    this.playing = true;
    $("play").textContent = "Pause";
    this.last = performance.now();
    this.next = requestAnimationFrame((now) => this.#tick(now));
  }

  pause() {
    this.playing = false;
    $("play").textContent = "Play";
    cancelAnimationFrame(this.next);
  }

  #tick(now) {
    const speed = Number(document.querySelector("[name=speed]:checked").value);
    const seconds = this.seconds + (speed * Math.max(0, now - this.last)) / 1000;
    this.last = now;
    const { seconds: whole } = this.skeleton;
    this.#goTo(seconds < whole ? seconds : $("again").checked ? 0 : whole);
    if (this.seconds >= whole) this.pause();
    else this.next = requestAnimationFrame((then) => this.#tick(then));
  }

  #goTo(seconds) {
    this.seconds = seconds;
    const { seconds: whole, frames } = this.skeleton;
    draw($("player-picture"), between(frames, (seconds / whole) * (frames.length - 1)), FINE, FINE, BOLD);
    $("position").value = seconds / whole;
    $("position").setAttribute("aria-valuetext", `${seconds.toFixed(1)} of ${whole.toFixed(1)} seconds`);
  }
}

/** The landmarks at a fractional frame number: linear where both frames have a hand, else those of the nearer one. */
export function between(frames, position) {
  const low = Math.min(Math.floor(position), frames.length - 1);
  const [before, after] = [frames[low], frames[Math.min(low + 1, frames.length - 1)]];
  const weight = position - low;
  const nearest = weight < 0.5 ? before : after;
  return nearest.map((value, place) =>
    before[place] === MISSING || after[place] === MISSING
      ? value
      : (1 - weight) * before[place] + weight * after[place],
  );
}
