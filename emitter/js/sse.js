/** Parser of event streams (WHATWG HTML, section 9.2.6) as edges write them. Pure. */

/** Characters of one frame. Events are far smaller; a response that is not from an edge must not fill the memory. */
const MAX_FRAME = 16 * 1024 * 1024;

/** @typedef {{id: string | undefined, event: string, data: string}} Frame without data: its id only moves the cursor */

export class FrameParser {
  #decoder = new TextDecoder();
  #rest = "";
  #size = 0;
  /** @type {string[]} */
  #data = [];
  #event = "";
  /** @type {string | undefined} */
  #id;
  /** From the edge's `retry:`. @type {number | null} */
  retryMs = null;

  /** The frames that these bytes complete. @param {Uint8Array} bytes @returns {Frame[]} */
  feed(bytes) {
    const lines = (this.#rest + this.#decoder.decode(bytes, { stream: true })).split(/\r?\n/);
    this.#rest = /** @type {string} */ (lines.pop());
    if (this.#rest.length + this.#size > MAX_FRAME) throw new RangeError("a frame is too long");
    /** @type {Frame[]} */
    const frames = [];
    for (const line of lines) this.#line(line, frames);
    return frames;
  }

  /** @param {string} line @param {Frame[]} frames */
  #line(line, frames) {
    if (line === "") {
      const data = this.#data.join("\n");
      if (this.#data.length > 0 || this.#id !== undefined)
        frames.push({ id: this.#id, event: this.#event || "message", data });
      this.#data = [];
      this.#size = 0;
      this.#event = "";
      this.#id = undefined;
      return;
    }
    const colon = line.indexOf(":");
    const name = colon === -1 ? line : line.slice(0, colon);
    const value = colon === -1 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
    if (name === "data") {
      this.#data.push(value);
      this.#size += value.length;
    } else if (name === "event") this.#event = value;
    else if (name === "id") this.#id = value;
    else if (name === "retry" && /^\d+$/.test(value)) this.retryMs = Number(value);
  }
}
