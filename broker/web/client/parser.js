/**
 * Parser of the event stream format (WHATWG HTML, section 9.2.6), for bytes as they arrive.
 */

/**
 * @typedef {object} Frame
 * @property {string | undefined} id the frame's own `id:`, undefined if it has none
 * @property {string} event `message` if the frame names none
 * @property {string} data
 */

/**
 * @typedef {object} ParserCallbacks
 * @property {(frame: Frame) => void} [onEvent] a frame with data
 * @property {(id: string) => void} [onId] a frame with an `id:` but no data, which only moves the last event id
 * @property {(milliseconds: number) => void} [onRetry]
 * @property {(comment: string) => void} [onComment]
 */
import { clientError } from "./errors.js";

/** Characters of one frame. Events are far smaller; a response that is not from an edge must not fill the memory. */
export const MAX_FRAME = 16 * 1024 * 1024;
const DIGITS = /^[0-9]+$/;

/** Parses one response, given by `feed`. An incomplete frame at its end is dropped, as the format requires. */
export class EventStreamParser {
  #callbacks;
  #decoder = new TextDecoder("utf-8"); // drops a byte order mark, and keeps a character that is split between chunks
  #rest = "";
  #afterCr = false;
  /** @type {string[]} */
  #data = [];
  #size = 0;
  #event = "";
  /** @type {string | undefined} */
  #id;
  /** The last event id of the format: from the last frame with an `id:`. */
  lastEventId = "";

  /** @param {ParserCallbacks} callbacks */
  constructor(callbacks) {
    this.#callbacks = callbacks;
  }

  /** Parse the next bytes, split at any place. Throws if a frame is longer than `MAX_FRAME`.
   * @param {Uint8Array} bytes */
  feed(bytes) {
    this.#take(this.#decoder.decode(bytes, { stream: true }));
  }

  /** @param {string} text */
  #take(text) {
    if (text === "") return;
    let start = this.#afterCr && text[0] === "\n" ? 1 : 0;
    this.#afterCr = false;
    let cr = text.indexOf("\r", start);
    let lf = text.indexOf("\n", start);
    while (cr !== -1 || lf !== -1) {
      const end = cr === -1 || (lf !== -1 && lf < cr) ? lf : cr;
      const line = this.#rest === "" ? text.slice(start, end) : this.#rest + text.slice(start, end);
      this.#rest = "";
      start = end + 1;
      if (end === cr && lf === start) start += 1;
      else if (end === cr && start === text.length) this.#afterCr = true; // its LF may be in the next bytes
      this.#line(line);
      if (cr !== -1 && cr < start) cr = text.indexOf("\r", start);
      if (lf !== -1 && lf < start) lf = text.indexOf("\n", start);
    }
    this.#rest += text.slice(start);
    if (this.#rest.length + this.#size > MAX_FRAME) throw clientError("frame-too-large", "a frame is too large");
  }

  /** @param {string} line */
  #line(line) {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    if (colon === 0) return this.#callbacks.onComment?.(line.slice(1));
    if (colon === -1) return this.#field(line, "");
    const value = colon + (line[colon + 1] === " " ? 2 : 1);
    this.#field(line.slice(0, colon), line.slice(value));
  }

  /** @param {string} name @param {string} value */
  #field(name, value) {
    if (name === "data") {
      this.#data.push(value);
      this.#size += value.length + 1;
    } else if (name === "event") {
      this.#event = value;
    } else if (name === "id") {
      if (!value.includes("\0")) this.#id = value;
    } else if (name === "retry" && DIGITS.test(value)) {
      this.#callbacks.onRetry?.(Number(value));
    }
  }

  #dispatch() {
    const [id, data, event] = [this.#id, this.#data, this.#event];
    this.#id = undefined;
    this.#event = "";
    if (id !== undefined) this.lastEventId = id;
    if (data.length === 0) {
      if (id !== undefined) this.#callbacks.onId?.(id);
      return;
    }
    this.#data = [];
    this.#size = 0;
    this.#callbacks.onEvent?.({ id, event: event || "message", data: data.join("\n") });
  }
}
