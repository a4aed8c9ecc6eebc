// Which sign is shown now: the last seconds are read again and again, or each picture as it comes, as
// lib/predict/camera.py does, and a sign counts when the answers agree.

import { scale } from "./picture.js";
import { extent, MISSING } from "./preprocess.js";

export const SPAN = 2.0; // seconds that are read at once
export const EVERY = 0.2; // seconds from one answer to the next
/**
 * Probability from which on a sign counts. Of the model of WLASL300, 94 % of the right answers to clips of val and test
 * reach it, 67 % of the wrong ones, and 61 % of those to clips of other signs.
 */
export const SURE = 0.3;
const VOTES = 5; // answers that are counted
const HOLD = 3; // of these have to agree
const COOLDOWN = 1.5; // seconds for which a sign that was said is not said again
const [TINY, MOVES] = [32, 1]; // pixels on a side, and of 255: as in lib/predict/recordings.py, for pictures
const STILL = 0.25; // lengths of a hand; joints that stay within less do not move

/** The landmarks of the last SPAN seconds, and when it is time to read them. */
export class Recent {
  constructor() {
    this.frames = []; // [seconds, landmarks]
    this.due = -Infinity;
  }

  /** Takes a frame in. Returns the landmarks and seconds to read now, undefined while the last answer stands. */
  push(seconds, landmarks) {
    this.frames.push([seconds, landmarks]);
    while (this.frames[0][0] < seconds - SPAN) this.frames.shift();
    if (seconds < this.due) return undefined;
    this.due = seconds + EVERY;
    return { clip: this.frames.map(([, frame]) => frame), times: this.frames.map(([time]) => time) };
  }
}

/** Asks a model of hands about the last seconds, again and again. */
export class HandWatch {
  constructor(model) {
    Object.assign(this, { model, recent: new Recent() });
  }

  /** Takes the hands of a frame in. What the model says now, null for no sign, undefined while the last answer stands. */
  async push(seconds, landmarks) {
    const due = this.recent.push(seconds, landmarks);
    return due && (moves(due.clip) ? this.model.read(due.clip, due.times) : null);
  }
}

/**
 * Has a model read pictures as they come, at the rate of the clips that it was trained on. When its clip is full, it
 * begins another one.
 */
export class StreamWatch {
  constructor(model) {
    Object.assign(this, { model, taken: 0, last: -Infinity, tiny: null });
    model.reset();
  }

  /** As HandWatch's, of pictures; there is no sign where nothing moves. */
  async push(seconds, picture) {
    const { frames, size } = this.model;
    if (this.taken && seconds < this.last + SPAN / frames) return undefined;
    if (this.taken === frames) {
      this.model.reset();
      this.taken = 0;
    }
    this.taken += 1;
    this.last = seconds;
    const [before, now] = [this.tiny, scale(picture, size, TINY, 3)];
    this.tiny = now;
    const change = before ? now.reduce((sum, value, place) => sum + Math.abs(value - before[place]), 0) : 0;
    const read = await this.model.push(picture);
    return change >= MOVES * now.length ? read : null;
  }
}

/** Whether a hand moves in a clip of landmarks, or appears or vanishes. */
export function moves(clip) {
  const hands = clip.flatMap((frame) =>
    [frame.subarray(0, 63), frame.subarray(63)].filter((hand) => hand[0] !== MISSING),
  );
  if (hands.length < 2) return false;
  const counts = new Set(clip.map((frame) => Number(frame[0] !== MISSING) + Number(frame[63] !== MISSING)));
  if (counts.size > 1) return true;
  const both = counts.has(2); // then the slots may swap: what is compared is the mean of the two
  const points = both ? clip.map((frame) => mean(frame.subarray(0, 63), frame.subarray(63))) : hands;
  const size = hands.reduce((sum, hand) => sum + extent(hand), 0) / hands.length;
  let range = 0;
  for (let place = 0; place < 63; place++) {
    if (place % 3 === 2) continue;
    const values = points.map((hand) => hand[place]);
    range += (Math.max(...values) - Math.min(...values)) / 42;
  }
  return range >= STILL * size;
}

const mean = (a, b) => a.map((value, place) => (value + b[place]) / 2);

/** A vote over the last answers. A sign holds until another one, or none, has the votes. */
export class Vote {
  constructor() {
    this.answers = [];
    this.gloss = ""; // the sign that holds, "" for none
    this.said = { gloss: "", seconds: -Infinity };
  }

  /**
   * Takes an answer, "" for no sign. Returns whether it makes a sign hold that is to be said: one that did not hold
   * before, and was not said within the last COOLDOWN seconds.
   */
  push(seconds, gloss) {
    this.answers = [...this.answers, gloss].slice(-VOTES);
    if (gloss === this.gloss || this.answers.filter((other) => other === gloss).length < HOLD) return false;
    this.gloss = gloss;
    if (!gloss || (gloss === this.said.gloss && seconds < this.said.seconds + COOLDOWN)) return false;
    this.said = { gloss, seconds };
    return true;
  }
}
