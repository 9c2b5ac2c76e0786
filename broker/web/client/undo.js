/**
 * Values that can be undone to an earlier ordinal of their log, as `execution:superseded` requires. Same rules as
 * `broker/executions/undo.py`: both must keep and drop the same.
 */

/** Characters (code points) kept of one message, thought or artifact. */
export const MAX_TEXT = 262_144;
const MAX_VERSIONS = 8;
const HIGH_SURROGATE = /[\uD800-\uDBFF]/;

/** A value and its history, with the ordinals at which it was set: the first and the last few values. @template T */
class Versions {
  /** @type {[number, T][]} */
  #kept;

  /** @param {number} seq @param {T} value */
  constructor(seq, value) {
    this.#kept = [[seq, value]];
  }

  get value() {
    return this.#kept[this.#kept.length - 1][1];
  }

  /** @param {number} seq @param {T} value */
  set(seq, value) {
    this.#kept.push([seq, value]);
    if (this.#kept.length > MAX_VERSIONS) this.#kept.splice(1, 1);
  }

  /** Undo all that was set after this ordinal. Returns whether a value is left. @param {number} after */
  undo(after) {
    while (this.#kept.length > 0 && this.#kept[this.#kept.length - 1][0] > after) this.#kept.pop();
    return this.#kept.length > 0;
  }
}

/** Text that arrives in chunks, up to `MAX_TEXT` characters. */
export class Text {
  #text = "";
  #length = 0; // in code points, as Python counts
  /** @type {{seq: number, end: number, length: number}[]} */
  #chunks = [];

  get truncated() {
    return this.#length > MAX_TEXT;
  }

  /** @param {number} seq @param {string} chunk */
  add(seq, chunk) {
    if (chunk === "" || this.truncated) return;
    // One character over the limit is kept, as the mark of a truncated text.
    const [kept, length] = beginning(chunk, MAX_TEXT + 1 - this.#length);
    this.#text += kept;
    this.#length += length;
    this.#chunks.push({ seq, end: this.#text.length, length: this.#length });
  }

  /** @param {number} after */
  undo(after) {
    while (this.#chunks.length > 0 && this.#chunks[this.#chunks.length - 1].seq > after) this.#chunks.pop();
    const last = this.#chunks[this.#chunks.length - 1];
    this.#text = last === undefined ? "" : this.#text.slice(0, last.end);
    this.#length = last === undefined ? 0 : last.length;
  }

  toString() {
    return this.truncated ? beginning(this.#text, MAX_TEXT)[0] : this.#text;
  }
}

/** The first `most` code points of a text, and their number. @param {string} text @param {number} most
 * @returns {[string, number]} */
function beginning(text, most) {
  if (!HIGH_SURROGATE.test(text)) return [text.slice(0, most), Math.min(text.length, most)];
  let [end, count] = [0, 0];
  while (end < text.length && count < most) {
    end += /** @type {number} */ (text.codePointAt(end)) > 0xffff ? 2 : 1;
    count += 1;
  }
  return [text.slice(0, end), count];
}

/** Parts by id, in order of appearance; beyond `limit` the oldest are dropped. @template T */
export class Items {
  /** @type {Map<string, Versions<T>>} */
  #byId = new Map();
  #limit;
  /** @type {readonly T[] | null} */
  #values = null;

  /** @param {number} limit */
  constructor(limit) {
    this.#limit = limit;
  }

  /** @param {string} id @returns {T | null} */
  get(id) {
    return this.#byId.get(id)?.value ?? null;
  }

  /** @param {number} seq @param {string} id @param {T} value */
  set(seq, id, value) {
    this.#values = null;
    const item = this.#byId.get(id);
    if (item !== undefined) return item.set(seq, value);
    this.#byId.set(id, new Versions(seq, value));
    if (this.#byId.size > this.#limit) this.#byId.delete(/** @type {string} */ (this.#byId.keys().next().value));
  }

  /** @param {number} after */
  undo(after) {
    this.#values = null;
    for (const [id, item] of this.#byId) if (!item.undo(after)) this.#byId.delete(id);
  }

  /** The same array until a part changes. @returns {readonly T[]} */
  values() {
    this.#values ??= Object.freeze([...this.#byId.values()].map((item) => item.value));
    return this.#values;
  }
}
