// The frames of a camera and of a video file, each shown in a <video> when it is its turn.

import { Problem } from "./problem.js";

const PROBE = 1 / 120; // seconds; steps in which the first frames of a file are looked for
const PATIENCE = 3000; // milliseconds until a browser that does not say so is taken to show what was asked for
const STUCK = 6000; // milliseconds after which a browser is taken not to get to a frame of a file at all

/** The cameras of this machine; their names are empty until one was used. */
export async function cameras() {
  const devices = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  return devices.filter((device) => device.kind === "videoinput");
}

/**
 * Shows a camera in a <video>, unless the signal ends that before the camera answers. Throws a Problem when there is
 * none, or it may not be used.
 */
export async function openCamera(video, id, signal) {
  if (!navigator.mediaDevices) throw new Problem("This page may use a camera only over https, or from localhost.");
  const about = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 } };
  const chosen = id ? { deviceId: { exact: id } } : { facingMode: "user" };
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { ...about, ...chosen } });
    if (signal.aborted) return stream.getTracks().forEach((track) => track.stop());
    video.srcObject = stream;
    await video.play();
  } catch (error) {
    throw new Problem(CAMERA[error.name] ?? `The camera cannot be used: ${error.message}`);
  }
}

const CAMERA = {
  NotFoundError: "There is no camera on this machine: connect one, or open a video file.",
  NotAllowedError: "The camera may not be used: allow it in the browser's settings of this page, or open a video file.",
  NotReadableError: "The camera is used by another program: close that, or open a video file.",
};

/** Shows a video file in a <video>. Throws a Problem when the browser cannot play it. */
export async function openFile(video, file) {
  video.src = URL.createObjectURL(file);
  const loaded = await new Promise((resolve) => {
    video.onloadeddata = () => resolve(true);
    video.onerror = () => resolve(false);
  });
  if (!loaded || !video.videoWidth || !Number.isFinite(video.duration)) {
    throw new Problem(`This browser cannot play ${file.name}: try an MP4 or WebM file.`);
  }
}

/** Takes a camera or a file out of a <video>. */
export function close(video) {
  video.pause();
  for (const track of video.srcObject?.getTracks() ?? []) track.stop();
  video.srcObject = null;
  if (video.src) URL.revokeObjectURL(video.src);
  video.removeAttribute("src");
}

/** Seconds of each new picture of a camera, when the last one was dealt with. */
export async function* live(video, signal) {
  while (!signal.aborted) {
    const shown = await presented(video);
    if (shown && !signal.aborted) yield performance.now() / 1000;
    if (video.srcObject && !video.srcObject.active) throw new Problem("The camera has stopped: is it still connected?");
  }
}

/**
 * Seconds of every frame of a file, in order, each shown when it is its turn. Browsers do not say at which rate a file
 * has frames: the first ones are looked for in short steps, and then the middle of each following one is gone to.
 * It ends early where the file is damaged, after a call of `stalled` with the seconds until there.
 */
export async function* everyFrame(video, signal, stalled = () => {}) {
  let [last, step, target] = [-1, Infinity, 0];
  while (target < video.duration && !signal.aborted) {
    const seconds = await seek(video, target);
    if (seconds === null) return stalled(target);
    if (seconds > last) {
      if (last >= 0) step = Math.min(step, seconds - last);
      last = seconds;
      yield seconds;
    }
    const known = Number.isFinite(step) ? last + 1.5 * step : 0;
    target = Math.max(target + PROBE, known);
  }
}

/** Goes to a time in a file. Returns when the frame that is shown then begins, null if the browser gets stuck there. */
async function seek(video, target) {
  const shown = presented(video, PATIENCE);
  const sought = new Promise((resolve) => (video.onseeked = resolve));
  video.currentTime = target;
  if (!(await Promise.race([sought, later(STUCK)]))) return null;
  return (await Promise.race([shown, later(300)]))?.mediaTime ?? -1;
}

const later = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds, null));

/** What the browser says of the next picture that it shows, null if it shows none for so many milliseconds. */
function presented(video, patience = 1000) {
  return Promise.race([
    new Promise((resolve) => video.requestVideoFrameCallback((_, about) => resolve(about))),
    later(patience),
  ]);
}
