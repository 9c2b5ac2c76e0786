/** The last events of a shared stream, for tabs that join later. Pure, and bounded. */
import { DELTAS, ordinal } from "../cursor.js";

const MAX_EVENTS = 1_000;
const MAX_SIZE = 2 * 1024 * 1024; // characters of JSON

/** @typedef {{event: any, size: number}} Kept `size`: characters of its JSON */

export class RecentEvents {
  /** The id before the first kept event; null: not known. @type {string | null} */
  #base;
  /** @type {Kept[]} */
  #kept = [];
  #size = 0;
  #isCompact;

  /** @param {string | null} base @param {boolean} [isCompact] whether neighbouring deltas may be one event */
  constructor(base, isCompact = false) {
    this.#base = base;
    this.#isCompact = isCompact;
  }

  /** The id of the last event, or the one before the first. */
  get last() {
    return this.#kept.length === 0 ? this.#base : this.#kept[this.#kept.length - 1].event.id;
  }

  /** @param {any} event @param {number} size */
  push(event, size) {
    this.#kept.push({ event, size });
    this.#size += size;
    let dropped = 0;
    while (this.#kept.length - dropped > MAX_EVENTS || this.#size > MAX_SIZE) {
      this.#base = this.#kept[dropped].event.id;
      this.#size -= this.#kept[dropped].size;
      dropped += 1;
    }
    // One splice for all, because each splice moves every event that stays.
    if (dropped > 0) this.#kept.splice(0, dropped);
  }

  /** The stream's cursor moved without an event. @param {string} id */
  moveTo(id) {
    if (this.#kept.length === 0) this.#base = id;
  }

  /** Forget everything: another history begins, or there is a gap before the next event. */
  clear() {
    this.#base = null;
    this.#kept = [];
    this.#size = 0;
  }

  /** Whether exactly this id is kept, so that every event after it is known. @param {string} id */
  has(id) {
    return id === this.#base || this.#kept.some(({ event }) => event.id === id);
  }

  /** Whether the ordinal of an id lies within the kept range, and not within an event. @param {string} id */
  spans(id) {
    const [seq, last] = [ordinal(id), this.last];
    if (this.#base === null || last === null) return false;
    return ordinal(this.#base) <= seq && seq <= ordinal(last) && !(this.#isCompact && this.#mayBeWithin(seq));
  }

  /** Whether the event after this ordinal may have begun before it. @param {number} seq */
  #mayBeWithin(seq) {
    const after = this.#kept.find(({ event }) => ordinal(event.id) > seq);
    return after !== undefined && DELTAS.has(after.event.type);
  }

  /** The events after an id. @param {string} id for which `has` or `spans` is true */
  after(id) {
    const seq = ordinal(id);
    return this.#kept.filter(({ event }) => ordinal(event.id) > seq);
  }
}
