// An exported ONNX file (lib/export) in the browser: what it says of itself, and what it says of clips.

import * as ort from "./vendor/ort.wasm.min.mjs";
import { Problem } from "./problem.js";
import { JOINTS, prepare, VALUES } from "./preprocess.js";

ort.env.wasm.wasmPaths = new URL("vendor/", import.meta.url).href;
ort.env.wasm.numThreads = 1; // more need headers that hosts of plain files do not send
const TOP = 5;
const [METADATA, KEY, VALUE] = [14, 1, 2]; // numbers of fields in onnx.proto: ModelProto, StringStringEntryProto

/**
 * Opens the model at an address: a HandModel or a StreamModel. Throws a Problem that says what is wrong with it.
 */
export async function openModel(address) {
  let response;
  try {
    response = await fetch(address);
  } catch {
    throw new Problem(`The model ${address} cannot be fetched: there is no answer, or it is at another address.`);
  }
  if (!response.ok) throw new Problem(`The model ${address} cannot be fetched: the server answers ${response.status}.`);
  const bytes = new Uint8Array(await response.arrayBuffer());
  const { description, labels } = readMetadata(bytes, address);
  const { clip, image } = description.input ?? {};
  if (!image && clip?.joints?.length !== JOINTS) {
    throw new Problem(
      `The model ${description.name} reads neither two hands nor single frames, so this page cannot use it.`,
    );
  }
  try {
    const session = await ort.InferenceSession.create(bytes, { freeDimensionOverrides: { clips: 1 } });
    const model = new (image ? StreamModel : HandModel)(description, labels, session);
    await model.warmUp(); // the first run takes several times as long
    return model;
  } catch (error) {
    throw new Problem(`The model file ${address} is broken: ${String(error.message ?? error).slice(0, 200)}`);
  }
}

/**
 * A model. `embeds`: whether it gives embeddings, which signs of one's own need. `size`: pixels on a side of the pictures
 * that it reads, 0 for a model of hands. What `read` gives: its likeliest signs, [gloss, share] in order, the largest
 * logit, the embedding or null, and the milliseconds that both stages took.
 */
class Model {
  constructor(description, labels, session) {
    Object.assign(this, { description, labels, session });
    this.name = description.name;
    this.frames = description.frames;
    this.checksum = description.checksum ?? "";
    this.embeds = session.outputNames.includes("embedding") && Boolean(this.checksum);
    this.knownFrom = null; // the least score of a sign that it knows, where released.json tells it
  }

  said({ logits, embedding }, took) {
    const score = Math.max(...logits.data);
    return { top: likeliest(logits.data, this.labels, TOP), score, embedding: embedding?.data ?? null, took };
  }
}

/** A model of the hands in a clip. */
class HandModel extends Model {
  size = 0;

  /** What it says of a clip, whose landmarks and seconds are as `prepare` takes them; null where no hand is seen. */
  async read(landmarks, seconds = null) {
    const start = performance.now();
    const clip = prepare(landmarks, this.frames, seconds);
    if (!clip) return null;
    const prepared = performance.now();
    const outputs = await this.run(clip);
    return this.said(outputs, { prepare: prepared - start, model: performance.now() - prepared });
  }

  run(clip) {
    return this.session.run({ clip: new ort.Tensor("float32", clip, [1, this.frames, JOINTS, 3]) });
  }

  warmUp() {
    return this.run(new Float32Array(this.frames * VALUES));
  }
}

/** A MoViNet that reads one picture after another, and knows what it saw in the last ones from its buffers. */
class StreamModel extends Model {
  constructor(description, labels, session) {
    super(description, labels, session);
    this.size = description.input.image.shape.at(-2);
    this.reset();
  }

  /** Begins another clip. */
  reset() {
    this.buffers = {};
    for (const { name, shape } of this.session.inputMetadata) {
      if (name === "image") continue;
      const whole = shape.map((length) => (Number.isInteger(length) ? length : 1)); // one clip
      this.buffers[name] = new ort.Tensor("float32", new Float32Array(whole.reduce((a, b) => a * b, 1)), whole);
    }
  }

  /** What it says of the clip with one more picture, which is as `takePicture` gives it. */
  async push(picture) {
    const start = performance.now();
    const values = Float32Array.from(picture, (value) => Math.fround(1 / 255) * value);
    const prepared = performance.now();
    const image = new ort.Tensor("float32", values, [1, 1, this.size, this.size, 3]);
    const before = this.buffers;
    const outputs = await this.session.run({ image, ...before });
    const after = Object.keys(before).map((name) => [name, outputs[`next_${name}`]]);
    if (this.buffers === before) this.buffers = Object.fromEntries(after); // else another clip began meanwhile
    return this.said(outputs, { prepare: prepared - start, model: performance.now() - prepared });
  }

  /** What it says of a whole clip: of the middle ones of even spans of its pictures, as many as it was trained on. */
  async read(pictures) {
    this.reset();
    let read;
    for (let span = 0; span < this.frames; span++)
      read = await this.push(pictures[Math.floor(((span + 0.5) * pictures.length) / this.frames)]);
    return read;
  }

  async warmUp() {
    await this.push(new Uint8Array(this.size ** 2 * 3));
    this.reset();
  }
}

/** The likeliest labels of logits with their probabilities. */
export function likeliest(logits, labels, top) {
  const largest = Math.max(...logits);
  const powers = Array.from(logits, (value) => Math.exp(value - largest));
  const sum = powers.reduce((a, b) => a + b, 0);
  const order = powers.map((_, number) => number).sort((a, b) => powers[b] - powers[a]);
  return order.slice(0, top).map((number) => [labels[number], powers[number] / sum]);
}

/** The description and the labels in an ONNX file, which onnxruntime does not give to pages. */
export function readMetadata(bytes, address) {
  try {
    const text = new TextDecoder();
    const found = {};
    for (const [number, entry] of fields(bytes)) {
      if (number !== METADATA) continue;
      const pair = Object.fromEntries(fields(entry));
      found[text.decode(pair[KEY])] = text.decode(pair[VALUE]);
    }
    return { description: JSON.parse(found.description), labels: found.labels.split("\n").slice(0, -1) };
  } catch {
    throw new Problem(`The file ${address} is broken, or no model of this study.`);
  }
}

/** The fields of a protobuf message: number and, of those with a length, the bytes. */
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    for (let value = 0, unit = 1; ; unit *= 128) {
      if (at >= bytes.length || unit > 2 ** 63) throw new RangeError("cut off");
      const byte = bytes[at++];
      value += (byte & 127) * unit;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    const [number, kind] = [Math.floor(tag / 8), tag % 8];
    if (kind === 0) varint();
    else if (kind === 1) at += 8;
    else if (kind === 5) at += 4;
    else if (kind === 2) {
      const length = varint();
      if (at + length > bytes.length) throw new RangeError("cut off");
      yield [number, bytes.subarray(at, (at += length))];
    } else throw new RangeError(`no wire type ${kind}`);
  }
}
