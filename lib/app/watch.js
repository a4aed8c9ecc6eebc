// Which sign is shown now: the last seconds are read again and again, as lib/predict/camera.py does, and a sign counts
// when the answers agree.

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
const STILL = 0.25; // lengths of a hand; joints that stay within less do not move

/** The landmarks of the last SPAN seconds, and when it is time to read them. */
export class Recent {
  constructor() {
    this.frames = []; // [seconds, landmarks]
    this.due = -Infinity;
  }

  /** Takes a frame in. Returns the landmarks and seconds to read now, or null while the last answer stands. */
  push(seconds, landmarks) {
    this.frames.push([seconds, landmarks]);
    while (this.frames[0][0] < seconds - SPAN) this.frames.shift();
    if (seconds < this.due) return null;
    this.due = seconds + EVERY;
    return { clip: this.frames.map(([, frame]) => frame), times: this.frames.map(([time]) => time) };
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
