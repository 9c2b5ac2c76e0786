/** How an event is made: in a form that the catalogue allows, in a size that the edges take, in parts that may merge. */
import { MEANT, isKnown, mended, misfit, shorter } from "./catalogue.js";
import { InvalidEvent, PayloadTooLarge } from "./errors.js";
import { cutText } from "./event-methods.js";
import { Halves } from "./halves.js";
import { MERGED_BYTES, chunkBytes } from "./queue.js";
import { asciiBytes, wellFormed } from "./storable.js";

/**
 * @import { Speaker } from "./event-methods.js"
 * @import { Item, Spoken } from "./queue.js"
 *
 * @typedef {object} EncoderOptions
 * @property {string} [agent] who speaks
 * @property {string} [parentId] the call in which the agent works
 * @property {string} [requestId]
 * @property {boolean} [strict] raise `InvalidEvent` and `PayloadTooLarge` for events that would be mended
 * @property {number} [maxEventBytes] of an encoded event; smaller where an edge says so
 *
 * @typedef {{type: string, data: Record<string, any>}} Made
 */

const MAX_EVENT_BYTES = 64 * 1024;
/** What an event has in a stream besides its data, and the keys that an edge adds. */
const AROUND_BYTES = 420;
const MAX_NAME = 128;
const MAX_TEXTS = 256;
/** Shares of the room to try in turn: redaction may make an event longer than it was measured. */
const SHARES = [1, 0.7, 0.4, 0.1];
const DELTAS = new Set(["message:delta", "thinking:delta"]);

export class Encoder {
  #options;
  #maxEventBytes;
  #halves = new Halves();
  /** The messages of which chunks were emitted. @type {Set<string>} */
  #texts = new Set();

  /** @param {EncoderOptions} options */
  constructor(options) {
    this.#options = options;
    this.#maxEventBytes = options.maxEventBytes ?? MAX_EVENT_BYTES;
  }

  /** What is to be queued for an event: nothing yet, or several parts. Raises `InvalidEvent` and `PayloadTooLarge` for
   * what is not mended. @param {string} type @param {any} data @param {Speaker} [speaker] @returns {Item[]} */
  items(type, data, speaker) {
    if (DELTAS.has(type)) return this.#chunks(type, data, speaker);
    if (type === "message:complete") return this.#message(data, speaker);
    return [this.item(type, data, speaker)];
  }

  /** One whole event. @param {string} type @param {any} data @param {Speaker} [speaker] @returns {Item} */
  item(type, data, speaker) {
    return this.#item(this.#made(type, data), speaker);
  }

  /** Halves of characters that wait, of one message or of all. @param {string} [messageId] @returns {Item[]} */
  halves(messageId) {
    return this.#halves.release(messageId).map(({ type, data, speaker }) => {
      return { spoken: this.#spoken({ type, data }, speaker), line: null, size: 8 };
    });
  }

  /** Shorter forms of an event that may be too large for an edge; null: it must not be cut. @param {Spoken} spoken
   * @param {number} limit of the edge, bytes @param {number} tries @returns {Spoken[] | null} */
  shorten(spoken, limit, tries) {
    if (MEANT.has(spoken.type) || this.#options.strict) return null;
    this.#maxEventBytes = Math.min(this.#maxEventBytes, limit);
    const room = Math.floor(this.#room(spoken) * SHARES[Math.min(tries, SHARES.length - 1)]);
    if (room <= 0) return null;
    if (asciiBytes(spoken.data) <= room) return [spoken];
    if (!DELTAS.has(spoken.type)) return [{ ...spoken, data: shorter(spoken.type, spoken.data, room) }];
    const { messageId, delta } = spoken.data;
    return [...this.#cut(delta)].map((part) => ({ ...spoken, data: { messageId, delta: part } }));
  }

  /** @param {string} type @param {any} data @returns {Made} */
  #made(type, data) {
    if (!isKnown(type)) throw new InvalidEvent(`${JSON.stringify(type)} is not an event that can be published`);
    const wrong = MEANT.has(type) || this.#options.strict ? misfit(type, data) : null;
    if (wrong !== null) throw new InvalidEvent(wrong, { detail: wrong });
    return mended(type, data);
  }

  /** @param {Made} made @param {Speaker} [speaker] @returns {Item} */
  #item(made, speaker) {
    const spoken = this.#spoken(made, speaker);
    const room = this.#room(spoken);
    if (asciiBytes(spoken.data) > room) {
      if (MEANT.has(spoken.type) || this.#options.strict) throw tooLarge(spoken, this.#maxEventBytes);
      spoken.data = shorter(spoken.type, spoken.data, room);
    }
    const line = JSON.stringify(spoken);
    return { spoken, line, size: line.length };
  }

  /** @param {Made} made @param {Speaker} [speaker] @returns {Spoken} */
  #spoken({ type, data }, speaker) {
    return {
      type,
      ts: Date.now(),
      agent: nameOf(speaker?.agent ?? this.#options.agent),
      parentId: nameOf(speaker?.parentId ?? this.#options.parentId),
      requestId: nameOf(this.#options.requestId),
      data,
    };
  }

  /** Bytes of data that an event may have. @param {Spoken} spoken */
  #room({ type, agent = "", parentId = "", requestId = "" }) {
    const names = chunkBytes(agent) + chunkBytes(parentId) + chunkBytes(requestId);
    return this.#maxEventBytes - AROUND_BYTES - 2 * type.length - names;
  }

  /** A chunk of text. @param {string} type @param {any} data @param {Speaker} [speaker] @returns {Item[]} */
  #chunks(type, data, speaker) {
    const made = this.#made(type, data).data; // its half of a character is already lost
    const raw = typeof data?.delta === "string" ? data.delta : made.delta;
    const whole = wellFormed(this.#halves.join(type, made.messageId, raw, speaker));
    if (whole === "") return [];
    if (type === "message:delta") this.#remember(made.messageId);
    return [...this.#cut(whole)].map((delta) => {
      const spoken = this.#spoken({ type, data: { messageId: made.messageId, delta } }, speaker);
      return { spoken, line: null, size: chunkBytes(delta) };
    });
  }

  /** A text in parts that fit an event. @param {string} text @returns {Iterable<string>} */
  #cut(text) {
    const room = Math.max(64, Math.min(MERGED_BYTES, this.#maxEventBytes - 2 * AROUND_BYTES));
    return chunkBytes(text) <= room ? [text] : cutText(text, Math.max(8, Math.floor(room / 6)));
  }

  /** @param {string} messageId */
  #remember(messageId) {
    if (this.#texts.has(messageId)) return;
    const [oldest] = this.#texts;
    if (this.#texts.size >= MAX_TEXTS) this.#texts.delete(oldest);
    this.#texts.add(messageId);
  }

  /** The end of a message. A text too long for one event is split into chunks, unless its chunks were emitted.
   * @param {any} data @param {Speaker} [speaker] @returns {Item[]} */
  #message(data, speaker) {
    const made = this.#made("message:complete", data);
    const { messageId, text } = made.data;
    const before = this.halves(messageId);
    const isLong = text !== undefined && asciiBytes(made.data) > this.#room(this.#spoken(made, speaker));
    if (isLong && !this.#options.strict) {
      if (!this.#texts.has(messageId))
        before.push(...this.#chunks("message:delta", { messageId, delta: text }, speaker));
      delete made.data.text;
    }
    this.#texts.delete(messageId);
    return [...before, this.#item(made, speaker)];
  }
}

/** @param {unknown} value */
function nameOf(value) {
  return value == null || value === "" ? undefined : wellFormed(String(value)).slice(0, MAX_NAME);
}

/** @param {Spoken} spoken @param {number} limit */
function tooLarge(spoken, limit) {
  const size = asciiBytes(spoken.data);
  const detail = `${spoken.type}: ${size} bytes of data are over the limit of an event, ${limit} bytes`;
  return new PayloadTooLarge(detail, { detail, body: { limit } });
}
