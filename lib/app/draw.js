// What is drawn over the picture: the skeletons of the hands, or what a model of pictures does not see.

import { square } from "./picture.js";
import { MISSING } from "./preprocess.js";

const FINGERS = [0, 1, 2, 3, 4].map((finger) => [0, ...[1, 2, 3, 4].map((joint) => 4 * finger + joint)]);
const PALM = [0, 1, 5, 9, 13, 17];
const FINE = 960; // pixels that the longer side has at least
const COLOURS = ["#ffb454", "#ffd866", "#7ee787", "#63d4ff", "#c8a2ff"]; // thumb to little finger

/** Draws landmarks (see preprocess.js) on a canvas over a picture of this size. bold: how much thicker than usual. */
export function draw(canvas, landmarks, pictureWidth, pictureHeight, bold = 1) {
  const { context, width, height } = clean(canvas, pictureWidth, pictureHeight);
  const line = (bold * Math.min(width, height)) / 170;
  for (const start of [0, 63]) {
    if (landmarks[start] === MISSING) continue;
    const at = (joint) => [landmarks[start + 3 * joint] * width, landmarks[start + 3 * joint + 1] * height];
    const palm = new Path2D();
    PALM.forEach((joint) => palm.lineTo(...at(joint)));
    context.fillStyle = "#ffffff26";
    context.fill(palm);
    FINGERS.forEach((joints, finger) => {
      const path = new Path2D();
      joints.forEach((joint) => path.lineTo(...at(joint)));
      for (const [colour, thick] of [
        ["#0009", 2 * line],
        [COLOURS[finger], line],
      ]) {
        Object.assign(context, { strokeStyle: colour, lineWidth: thick, lineJoin: "round", lineCap: "round" });
        context.stroke(path);
      }
      for (const joint of joints) {
        context.beginPath();
        context.arc(...at(joint), line, 0, 2 * Math.PI);
        context.fillStyle = "#fff";
        context.fill();
      }
    });
  }
}

/** Darkens what lies outside the square that a model of pictures sees. */
export function drawSquare(canvas, pictureWidth, pictureHeight) {
  const { context, width, height } = clean(canvas, pictureWidth, pictureHeight);
  const [x, y, side] = square(pictureWidth, pictureHeight).map((length) => (length * width) / pictureWidth);
  context.fillStyle = "#0b0b1499";
  context.fillRect(0, 0, width, height);
  context.clearRect(x, y, side, side);
}

function clean(canvas, pictureWidth, pictureHeight) {
  const finer = Math.max(1, FINE / Math.max(pictureWidth, pictureHeight));
  const [width, height] = [Math.round(finer * pictureWidth), Math.round(finer * pictureHeight)];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}
