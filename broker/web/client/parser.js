/**
 * The event stream format (WHATWG HTML, section 9.2.6), read as its bytes come in.
 */

/**
 * @typedef {object} Frame
 * @property {string | undefined} id the frame's own `id:`, undefined when it had none
 * @property {string} event `message` when the frame names none
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

/** Characters of one frame. An edge's events are far smaller; what is not an edge must not fill the memory. */
export const MAX_FRAME = 16 * 1024 * 1024;
const DIGITS = /^[0-9]+$/;

/** Give it the bytes of one response with `feed`; a frame that the end of the response cuts is dropped, as it must. */
export class EventStreamParser {
  #callbacks;
  #decoder = new TextDecoder("utf-8"); // drops one byte order mark at the beginning; keeps what a chunk cut in two
  #rest = "";
  #afterCr = false;
  /** @type {string[]} */
  #data = [];
  #size = 0;
  #event = "";
  /** @type {string | undefined} */
  #id;
  /** The last event id, as the format has it: of the last frame that carried one. */
  lastEventId = "";

  /** @param {ParserCallbacks} callbacks */
  constructor(callbacks) {
    this.#callbacks = callbacks;
  }

  /** Take the next bytes, cut anywhere. Throws for a frame over `MAX_FRAME`. @param {Uint8Array} bytes */
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
    if (this.#rest.length + this.#size > MAX_FRAME) throw clientError("frame-too-large", "a frame has no end");
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
