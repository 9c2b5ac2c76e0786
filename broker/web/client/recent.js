/** The last events of a shared stream, for tabs that come later. Pure, and bounded. */
import { ordinal } from "./cursor.js";

const MAX_EVENTS = 1_000;
const MAX_SIZE = 2 * 1024 * 1024; // characters of JSON

/** @typedef {{event: any, size: number}} Kept */

export class Recent {
  /** The id before the first kept event; null: not known. @type {string | null} */
  #base;
  /** @type {Kept[]} */
  #kept = [];
  #size = 0;

  /** @param {string | null} base */
  constructor(base) {
    this.#base = base;
  }

  /** The id of the last event, or before the first. */
  get last() {
    return this.#kept.length === 0 ? this.#base : this.#kept[this.#kept.length - 1].event.id;
  }

  /** @param {any} event @param {number} size */
  push(event, size) {
    this.#kept.push({ event, size });
    this.#size += size;
    let gone = 0;
    while (this.#kept.length - gone > MAX_EVENTS || this.#size > MAX_SIZE) {
      this.#base = this.#kept[gone].event.id;
      this.#size -= this.#kept[gone].size;
      gone += 1;
    }
    // Many at a time, for each time moves all that stay.
    if (gone > 0) this.#kept.splice(0, gone);
  }

  /** Where the stream is, when it moved without an event. @param {string} id */
  place(id) {
    if (this.#kept.length === 0) this.#base = id;
  }

  /** What was kept is of another history, or does not join on to what comes. */
  clear() {
    this.#base = null;
    this.#kept = [];
    this.#size = 0;
  }

  /** Whether this very id is among them, so that all after it are known. @param {string} id */
  has(id) {
    return id === this.#base || this.#kept.some(({ event }) => event.id === id);
  }

  /** Whether the ordinal of an id lies among them. @param {string} id */
  spans(id) {
    const [seq, last] = [ordinal(id), this.last];
    if (this.#base === null || last === null) return false;
    return ordinal(this.#base) <= seq && seq <= ordinal(last);
  }

  /** @param {string} id one that is had or spanned */
  after(id) {
    const seq = ordinal(id);
    return this.#kept.filter(({ event }) => ordinal(event.id) > seq);
  }
}

