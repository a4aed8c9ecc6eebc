// Signs of one's own, named by the examples that they are like: lib/signs.py in the browser, with the same file.

import { Problem } from "./problem.js";

export const MOST = 5; // examples of a sign
const DIGITS = 1e6; // of the numbers in a file

/** Signs and the embeddings of their examples, kept in the browser for each model. */
export class Signs {
  constructor(model, storage = localStorage) {
    Object.assign(this, { model, storage, key: `signs-${model.checksum}`, vectors: new Map() });
    const kept = storage.getItem(this.key);
    if (kept) this.#take(JSON.parse(kept));
  }

  /** Adds an example. Throws a Problem when the sign has no name or enough examples. */
  add(gloss, embedding) {
    const name = gloss.trim();
    if (!name) throw new Problem("Give the sign a name first.");
    const examples = this.vectors.get(name) ?? [];
    if (examples.length >= MOST)
      throw new Problem(`“${name}” has ${MOST} examples already: forget it to record it anew.`);
    this.vectors.set(name, [...examples, Array.from(embedding, (value) => Math.round(value * DIGITS) / DIGITS)]);
    this.#keep();
  }

  /** Forgets a sign. */
  remove(gloss) {
    this.vectors.delete(gloss);
    this.#keep();
  }

  /** The signs that an embedding is most like, [gloss, cosine similarity] in order. */
  rank(embedding, top = 5) {
    const alike = [...this.vectors].map(([gloss, examples]) => [gloss, dot(prototype(examples), embedding)]);
    return alike.sort((a, b) => b[1] - a[1]).slice(0, top);
  }

  /** The text of a file that holds the signs. */
  text() {
    const { name, checksum } = this.model;
    return `${JSON.stringify({ model: name, checksum, signs: Object.fromEntries(this.vectors) })}\n`;
  }

  /** Adds the signs of a file; those of the same name are replaced. Throws a Problem when the file is wrong. */
  import(text, file) {
    let content;
    try {
      content = JSON.parse(text);
    } catch {
      throw new Problem(`${file} is no file of signs: it is not JSON.`);
    }
    if (!isSigns(content)) throw new Problem(`${file} is no file of signs, or it is damaged.`);
    if (content.checksum !== this.model.checksum) {
      throw new Problem(
        `The signs in ${file} were added with the model ${content.model}, whose vectors this one cannot compare.`,
      );
    }
    this.#take(content);
    this.#keep();
  }

  #take(content) {
    for (const [gloss, vectors] of Object.entries(content.signs)) this.vectors.set(gloss.trim(), vectors);
  }

  #keep() {
    this.storage.setItem(this.key, this.text());
  }
}

/** The mean of the embeddings of a sign's examples, scaled to length 1. */
export function prototype(examples) {
  const sum = examples[0].map((_, place) => examples.reduce((total, vector) => total + vector[place], 0));
  const length = Math.sqrt(dot(sum, sum));
  return sum.map((value) => value / length);
}

const dot = (a, b) => a.reduce((sum, value, place) => sum + value * b[place], 0);

/** Whether content read from a file has the form that lib/signs.py asks for. */
function isSigns(content) {
  const examples = Object.values(content?.signs ?? {}).flat();
  const width = examples[0]?.length;
  const isVector = (vector) =>
    Array.isArray(vector) && vector.length === width && vector.every(Number.isFinite) && vector.some(Boolean);
  const named = Object.entries(content?.signs ?? {}).every(([gloss, vectors]) => gloss.trim() && vectors?.length);
  return typeof content?.model === "string" && width > 0 && named && examples.every(isVector);
}
