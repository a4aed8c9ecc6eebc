// From what MediaPipe finds in the frames of a clip to what a pose model reads: a port of lib/data/hands.py, lib/data/
// augment.py (resample) and lib/data/poses.py (trim, shorten, pad), which say why; tests/test_app_preprocess.py holds it
// to them.
//
// Landmarks of a frame: Float32Array (2 hands × 21 joints × x y z), x and y in [0, 1] of the image, -1 = missing.
// Pose of a frame: Float32Array (42 joints × x y present), left hand first; x = y = 0 where a joint is missing.

export const MISSING = -1;
export const JOINTS = 42;
export const VALUES = 3 * JOINTS;
const HAND = 63; // values of a hand
const [TWIN, JUMP, APPEAR, POSITION, CURL] = [0.1, 0.3, 0.2, 0.3, 0.1]; // as in lib/data/hands.py
const [WRIST, INDEX, MIDDLE, LITTLE] = [0, 5, 9, 17];
const KNUCKLES = [5, 9, 13, 17];
const TIPS = [8, 12, 16, 20];
const EPSILON = 1e-6;

/**
 * What a model reads of a clip: Float32Array (length × 42 × 3), empty frames at the end; null where no hand is seen.
 * @param {Float32Array[]} landmarks of every frame
 * @param {number} length frames that the model reads
 * @param {?number[]} seconds of the frames of a camera, which come as fast as the machine finds hands in them
 */
export function prepare(landmarks, length, seconds = null) {
  const ordered = orderHands(landmarks);
  const poses = trim(seconds ? atRate(ordered, seconds) : ordered);
  return poses[0]?.some((value) => value) ? pad(shorten(poses, length), length) : null;
}

/** Puts the two hands of every frame in the order left, right (the signer's own): poses. */
export function orderHands(landmarks) {
  const frames = landmarks.map((frame) => dropTwin(sortSlots(clean(frame))));
  const seen = frames.filter((slots) => slots.some(Boolean));
  const swaps = bestStates(seen);
  seen.forEach((slots, number) => swaps[number] && slots.reverse());
  return frames.map((slots) => {
    const pose = new Float32Array(VALUES);
    slots.forEach((hand, side) => {
      if (!hand) return;
      pose.set(hand, side * HAND);
      for (let joint = 0; joint < 21; joint++) pose[side * HAND + 3 * joint + 2] = 1;
    });
    return pose;
  });
}

/** Drops leading and trailing frames without any joint; a clip without joints becomes one empty frame. */
export function trim(poses) {
  const isSeen = (pose) => pose.some((value, place) => place % 3 === 2 && value > 0);
  const first = poses.findIndex(isSeen);
  return first < 0 ? poses.slice(0, 1) : poses.slice(first, poses.findLastIndex(isSeen) + 1);
}

/** Resamples a clip of poses evenly to `length` frames if it is longer. */
export function shorten(poses, length) {
  if (poses.length <= length) return poses;
  const last = poses.length - 1;
  return Array.from({ length }, (_, number) =>
    between(poses, number === length - 1 ? last : number * (last / (length - 1))),
  );
}

/**
 * Poses at the rate that the models were trained on, from frames at any times: movements are told by what changes from
 * one frame to the next. Of 763 clips of WLASL300 (val and test), the released model names 68 % rightly from all
 * frames, 60 % from every third, and 67 % from these with others put between.
 */
export function atRate(poses, seconds, rate = 25) {
  const count = Math.floor((seconds.at(-1) - seconds[0]) * rate + EPSILON) + 1;
  let low = 0;
  return Array.from({ length: poses.length < 2 ? 1 : count }, (_, number) => {
    const now = seconds[0] + number / rate;
    while (low < poses.length - 2 && seconds[low + 1] <= now) low += 1;
    const part = poses.length < 2 ? 0 : (now - seconds[low]) / (seconds[low + 1] - seconds[low]);
    return between(poses, low + Math.min(1, part));
  });
}

/** One array of `length` frames, empty ones at the end. */
export function pad(poses, length) {
  const clip = new Float32Array(length * VALUES);
  poses.forEach((pose, number) => clip.set(pose, number * VALUES));
  return clip;
}

/** The pose at a fractional frame number: linear where both frames have a joint, else that of the nearer frame. */
function between(poses, position) {
  const low = Math.floor(position);
  const [before, after] = [poses[low], poses[Math.min(low + 1, poses.length - 1)]];
  const weight = position - low;
  const nearest = weight < 0.5 || (weight === 0.5 && low % 2 === 0) ? before : after; // halves as numpy rounds them
  return nearest.map((value, place) => {
    const present = place - (place % 3) + 2;
    const both = before[present] * after[present] > 0;
    return both ? (1 - weight) * before[place] + weight * after[place] : value;
  });
}

/** The two slots of a frame, null for a hand that is missing or has a joint without a finite place. */
function clean(frame) {
  return [0, HAND].map((start) => {
    const hand = Float32Array.from(frame.subarray(start, start + HAND));
    for (let place = 0; place < HAND; place++) {
      if (Number.isFinite(hand[place])) continue;
      if (place % 3 < 2) return { hand: hand.fill(MISSING), present: false };
      hand[place] = 0;
    }
    return { hand, present: hand.every((value, place) => place % 3 === 2 || value !== MISSING) };
  });
}

/** Sorts the slots by content alone, by the first value that differs: their hands, null for one that is missing. */
function sortSlots(slots) {
  const [a, b] = slots.map((slot) => slot.hand);
  const differs = a.findIndex((value, place) => value !== b[place]);
  if (differs >= 0 && a[differs] > b[differs]) slots.reverse();
  return slots.map(({ hand, present }) => (present ? hand : null));
}

/** Drops the second slot where both contain the same hand. */
function dropTwin([a, b]) {
  if (!a || !b) return [a, b];
  let apart = 0;
  for (let joint = 0; joint < HAND; joint += 3) apart += Math.hypot(a[joint] - b[joint], a[joint + 1] - b[joint + 1]);
  return apart / 21 <= (TWIN * (extent(a) + extent(b))) / 2 ? [a, null] : [a, b];
}

/** The diagonal of the box around a hand. */
export function extent(hand) {
  const sides = [0, 1].map((axis) => {
    const values = hand.filter((_, place) => place % 3 === axis);
    return Math.max(...values) - Math.min(...values);
  });
  return Math.hypot(...sides);
}

/** The cheapest sequence of states (Viterbi) of the frames with hands: swap or not. */
function bestStates(frames) {
  if (!frames.length) return [];
  const rightness = (hand) => (hand ? POSITION * (0.5 - centre(hand)[0]) + CURL * rightHanded(hand) : 0);
  const here = frames.map(([a, b]) => rightness(a) - rightness(b)); // slot 0 is taken for left, slot 1 for right
  let cost = [here[0], -here[0]]; // of the best sequence that ends in each state
  const origin = [];
  for (let number = 1; number < frames.length; number++) {
    const [keep, change] = movingCosts(frames[number - 1], frames[number]);
    const ways = [
      [cost[0] + keep, cost[1] + change],
      [cost[0] + change, cost[1] + keep],
    ];
    origin.push(ways.map(([found, swapped]) => found > swapped));
    cost = [Math.min(...ways[0]) + here[number], Math.min(...ways[1]) - here[number]];
  }
  const states = [cost[0] > cost[1]];
  for (const back of origin.reverse()) states.push(back[Number(states.at(-1))]);
  return states.reverse();
}

/** Cost of keeping the state in the next frame, and of changing it. */
function movingCosts(before, now) {
  const cost = (a, b) => {
    if (!a && !b) return 0;
    if (!a || !b) return APPEAR;
    const [from, to] = [centre(a), centre(b)];
    return Math.min(Math.hypot(from[0] - to[0], from[1] - to[1]), JUMP);
  };
  return [cost(before[0], now[0]) + cost(before[1], now[1]), cost(before[0], now[1]) + cost(before[1], now[0])];
}

/** The mean x and y of the joints of a hand. */
function centre(hand) {
  let [x, y] = [0, 0];
  for (let joint = 0; joint < HAND; joint += 3) {
    x += hand[joint];
    y += hand[joint + 1];
  }
  return [x / 21, y / 21];
}

/** How far the fingers curl towards a right hand's palm, in [-1, 1]: lengths of the palm. */
function rightHanded(hand) {
  const joint = (number) => hand.subarray(3 * number, 3 * number + 3);
  const minus = (a, b) => [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
  const [a, b] = [INDEX, LITTLE].map((number) => minus(joint(number), joint(WRIST)));
  const normal = [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
  const length = Math.hypot(...normal) + EPSILON;
  let curl = 0;
  KNUCKLES.forEach((knuckle, finger) => {
    minus(joint(TIPS[finger]), joint(knuckle)).forEach((value, axis) => (curl += (value * normal[axis]) / length / 4));
  });
  const palm = Math.hypot(...minus(joint(MIDDLE), joint(WRIST))) + EPSILON;
  return Math.min(1, Math.max(-1, curl / palm));
}
