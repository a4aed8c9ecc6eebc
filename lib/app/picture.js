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
  const shares = sharesOf(side, size);
  const width = size * COLOURS;
  const lines = new Float32Array(side * width); // scaled along x
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < size; x++) {
      let [red, green, blue] = [0, 0, 0];
      for (const { from, share } of shares[x]) {
        const at = (y * side + from) * stride;
        red += share * pixels[at];
        green += share * pixels[at + 1];
        blue += share * pixels[at + 2];
      }
      const to = y * width + x * COLOURS;
      lines[to] = red;
      lines[to + 1] = green;
      lines[to + 2] = blue;
    }
  }
  const scaled = new Float32Array(size * width);
  shares.forEach((parts, y) => {
    for (const { from, share } of parts)
      for (let place = 0; place < width; place++) scaled[y * width + place] += share * lines[from * width + place];
  });
  return scaled;
}

/** The pixels of a line of `side` that each of `size` new ones is made of, and their shares in it. */
function sharesOf(side, size) {
  const step = side / size;
  return Array.from({ length: size }, (_, place) => {
    const start = place * step;
    const first = Math.floor(start);
    if (step < 1) {
      const share = Math.max(0, place + 1 - (first + 1) / step);
      return [
        { from: first, share: 1 - share },
        { from: Math.min(first + 1, side - 1), share },
      ];
    }
    const end = Math.min(start + step, side);
    const parts = [];
    for (let from = first; from < end; from++) {
      const covered = Math.min(end, from + 1) - Math.max(start, from);
      if (covered > LEAST) parts.push({ from, share: covered / (end - start) });
    }
    return parts;
  });
}

function halfToEven(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}
