// What a model of videos reads of a frame: its centred square, scaled as `_picture` of lib/predict/camera.py does, which
// tests hold it to.

const COLOURS = 3;
const LEAST = 1e-3; // share of a pixel that counts; as in OpenCV

let canvas = null;

/** The centred square of what a <video> or an image shows: red, green and blue, Uint8Array (size × size × 3). */
export function takePicture(source, size) {
  const [width, height] = [source.videoWidth ?? source.width, source.videoHeight ?? source.height];
  const [x, y, side] = square(width, height);
  canvas ??= document.createElement("canvas");
  if (canvas.width !== side || canvas.height !== side) Object.assign(canvas, { width: side, height: side });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(source, x, y, side, side, 0, 0, side, side);
  const scaled = scale(context.getImageData(0, 0, side, side).data, side, size, 4);
  return Uint8Array.from(scaled, side === 2 * size ? Math.round : halfToEven); // OpenCV does so, too
}

/** x, y and side of the centred square of a picture. */
export function square(width, height) {
  const side = Math.min(width, height);
  return [halfToEven((width - side) / 2), halfToEven((height - side) / 2), side];
}

/**
 * Scales a square of pixels: each new one is the mean of the area that it covers, or lies between two where there are
 * more new ones than old ones; OpenCV's INTER_AREA. stride: values of a pixel, of which the first three are colours.
 */
export function scale(pixels, side, size, stride) {
  const { first, count, share, most } = sharesOf(side, size);
  const width = size * COLOURS;
  const lines = new Float32Array(side * width); // scaled along x
  for (let y = 0, to = 0; y < side; y++) {
    for (let x = 0; x < size; x++, to += COLOURS) {
      let [red, green, blue] = [0, 0, 0];
      let at = (y * side + first[x]) * stride;
      for (let part = x * most; part < x * most + count[x]; part++, at += stride) {
        red += share[part] * pixels[at];
        green += share[part] * pixels[at + 1];
        blue += share[part] * pixels[at + 2];
      }
      lines[to] = red;
      lines[to + 1] = green;
      lines[to + 2] = blue;
    }
  }
  const scaled = new Float32Array(size * width);
  for (let y = 0; y < size; y++) {
    const line = scaled.subarray(y * width, (y + 1) * width);
    for (let part = 0; part < count[y]; part++) {
      const [weight, from] = [share[y * most + part], (first[y] + part) * width];
      for (let place = 0; place < width; place++) line[place] += weight * lines[from + place];
    }
  }
  return scaled;
}

/**
 * The pixels of a line of `side` that each of `size` new ones is made of: the first one, how many, and their shares, for
 * which there are `most` places for each new one.
 */
function sharesOf(side, size) {
  const step = side / size;
  const most = Math.ceil(step) + 2;
  const [first, count, share] = [new Int32Array(size), new Int32Array(size), new Float32Array(size * most)];
  for (let place = 0; place < size; place++) {
    const start = place * step;
    const end = Math.min(start + step, side);
    first[place] = Math.floor(start);
    if (step < 1) {
      const second = first[place] + 1 < side ? Math.max(0, place + 1 - (first[place] + 1) / step) : 0;
      share.set([1 - second, second], place * most);
      count[place] = second ? 2 : 1;
      continue;
    }
    if (first[place] + 1 - start <= LEAST) first[place] += 1;
    for (let from = first[place]; end - from > LEAST; from++, count[place]++) {
      const covered = Math.min(end, from + 1) - Math.max(start, from);
      share[place * most + count[place]] = covered / (end - start);
    }
  }
  return { first, count, share, most };
}

function halfToEven(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}
