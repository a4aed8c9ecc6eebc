// MediaPipe's hands: its script, which is no module, and the landmarks that it finds in a picture.

import { Problem } from "./problem.js";
import { MISSING, VALUES } from "./preprocess.js";

const SOFTWARE = /swiftshader|llvmpipe|softpipe|software|basic render/i;

const vendor = (name) => new URL(`vendor/${name}`, import.meta.url).href;

/**
 * Opens MediaPipe. Throws a Problem where the browser has no WebGL, which it takes pictures in with, or it cannot start.
 */
export async function openDetector() {
  const renderer = nameRenderer();
  if (!renderer) {
    throw new Problem(
      "This browser has no WebGL, which finding hands needs: switch hardware acceleration on, or take another browser.",
    );
  }
  try {
    await loadScript(vendor("hands.js"));
    const hands = new globalThis.Hands({ locateFile: vendor });
    const sure = { minDetectionConfidence: 0.5, minTrackingConfidence: 0.5 };
    // Where WebGL is computed by the processor, the processor is faster without it.
    hands.setOptions({ maxNumHands: 2, modelComplexity: 1, useCpuInference: SOFTWARE.test(renderer), ...sure });
    await hands.initialize();
    return new Detector(hands);
  } catch (error) {
    throw new Problem(
      `MediaPipe, which finds the hands, does not start here: ${error?.message ?? "its files cannot be read"}.`,
    );
  }
}

/** What WebGL calls the device that it draws with, "" where there is no WebGL. */
function nameRenderer() {
  for (const kind of ["webgl2", "webgl"]) {
    const context = document.createElement("canvas").getContext(kind);
    if (!context) continue;
    const about = context.getExtension("WEBGL_debug_renderer_info");
    return String(context.getParameter(about?.UNMASKED_RENDERER_WEBGL ?? context.RENDERER));
  }
  return "";
}

class Detector {
  constructor(hands) {
    this.hands = hands;
    this.found = [];
    hands.onResults((results) => (this.found = results.multiHandLandmarks ?? []));
  }

  /** The hands in a picture (a video at its current frame): landmarks as in preprocess.js. */
  async find(picture) {
    await this.hands.send({ image: picture });
    const landmarks = new Float32Array(VALUES).fill(MISSING);
    this.found.slice(0, 2).forEach((hand, slot) => {
      hand.forEach(({ x, y, z }, joint) => landmarks.set([x, y, z], 63 * slot + 3 * joint));
    });
    return landmarks;
  }

  /** Forgets where hands were: the next picture begins another clip. */
  reset() {
    this.hands.reset();
  }
}

function loadScript(address) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = address;
    script.onload = resolve;
    script.onerror = () => reject(new Error("its script cannot be fetched"));
    document.head.append(script);
  });
}
