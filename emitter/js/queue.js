/**
 * The queue between an agent and its log: bounded, in order, adjacent chunks of one text merged. Pure.
 *
 * The number of an event is given when its batch leaves, and does not change after that: a batch that is sent again is
 * the same text with the same numbers.
 */
import { textBytes } from "./storable.js";

/** The size of an event in the queue besides its text. */
const OVERHEAD_BYTES = 200;
/** Of the text of one event that is merged from several, as encoded. */
export const MERGED_BYTES = 16 * 1024;

/**
 * @typedef {object} Spoken what an event is made of, until its batch leaves
 * @property {string} type
 * @property {Record<string, any>} data
 * @property {number} ts
 * @property {string} [agent]
 * @property {string} [parentId]
 * @property {string} [requestId]
 */

/**
 * @typedef {object} Item
 * @property {Spoken} spoken
 * @property {string | null} line its JSON; null of a chunk, which may still grow
 * @property {number} size of its JSON, and of a chunk only that of its text
 * @property {boolean} [isAlone] it is a batch of its own, so that a refusal means this event
 * @property {(error: Error | null) => void} [settled] called once, when the log has it or has refused it
 */

/**
 * @typedef {object} Batch
 * @property {number} first number of its first event
 * @property {Item[]} items
 * @property {string} body NDJSON
 * @property {number} size as the queue counted it
 */

export class EventQueue {
  #maxEvents;
  #maxBytes;
  /** @type {Item[]} */
  #items = [];
  #taken = 0;
  /** The number of the last event that the log has. */
  settled = 0;
  size = 0;

  /** @param {number} maxEvents @param {number} maxBytes */
  constructor(maxEvents, maxBytes) {
    this.#maxEvents = maxEvents;
    this.#maxBytes = maxBytes;
  }

  /** Waiting events, and those of the batch on the way. */
  get length() {
    return this.#items.length + this.#taken;
  }

  /** Whether there are events besides those of the batch on the way. */
  get waits() {
    return this.#items.length > 0;
  }

  /** Whether more than chunks of text is waiting. */
  get isUrgent() {
    return this.#items.some(({ line }) => line !== null);
  }

  get isFull() {
    return this.length >= this.#maxEvents || this.size >= this.#maxBytes;
  }

  /** Less than half full. */
  get isRoomy() {
    return this.length * 2 < this.#maxEvents && this.size * 2 < this.#maxBytes;
  }

  /** The position of the last event: it is in the log once `settled` is as high. */
  get last() {
    return this.settled + this.length;
  }

  /** @param {Item} item */
  put(item) {
    this.#items.push(item);
    this.size += item.size + OVERHEAD_BYTES;
  }

  /** Queue a chunk of text, `size` bytes as encoded; adjacent chunks of a message merge. @param {Spoken} spoken
   * @param {number} size */
  putChunk(spoken, size) {
    this.size += size;
    const last = this.#items.at(-1);
    if (
      last !== undefined &&
      last.line === null &&
      isSameText(last.spoken, spoken) &&
      last.size + size <= MERGED_BYTES
    ) {
      last.spoken.data.delta += spoken.data.delta;
      last.size += size;
      return;
    }
    this.#items.push({ spoken: { ...spoken, data: { ...spoken.data } }, line: null, size });
    this.size += OVERHEAD_BYTES;
  }

  /** Drop the waiting chunks to make room; how many events that were. */
  dropChunks() {
    const dropped = this.#items.filter(({ line }) => line === null);
    this.#items = this.#items.filter(({ line }) => line !== null);
    for (const { size } of dropped) this.size -= size + OVERHEAD_BYTES;
    return dropped.length;
  }

  /** The next batch. Its events are counted until `done`. @param {number} maxEvents @param {number} maxBytes
   * @returns {Batch} */
  take(maxEvents, maxBytes) {
    /** @type {Item[]} */
    const items = [];
    /** @type {string[]} */
    const lines = [];
    let bytes = 0;
    let size = 0;
    for (const item of this.#items) {
      if (items.length > 0 && (item.isAlone || items.length >= maxEvents || bytes + item.size > maxBytes)) break;
      items.push(item);
      lines.push(item.line ?? JSON.stringify(item.spoken));
      bytes += item.size;
      size += item.size + OVERHEAD_BYTES;
      if (item.isAlone) break;
    }
    this.#items.splice(0, items.length);
    this.#taken = items.length;
    return { first: this.settled + 1, items, body: lines.join("\n"), size };
  }

  /** The log has the first `count` events of the batch on the way, or all. @param {Batch} batch @param {number} count */
  done(batch, count = batch.items.length) {
    this.settled += count;
    this.#taken = 0;
    this.size -= batch.size;
  }

  /** Remove everything, and give it back. */
  clear() {
    const items = this.#items;
    this.#items = [];
    this.size = 0;
    return items;
  }
}

/** The size of a text in JSON, without its quotes. @param {string} text */
export function chunkBytes(text) {
  return textBytes(JSON.stringify(text)) - 2;
}

/** @param {Spoken} one @param {Spoken} other */
function isSameText(one, other) {
  return (
    one.type === other.type &&
    one.data.messageId === other.data.messageId &&
    one.agent === other.agent &&
    one.parentId === other.parentId
  );
}
