/**
 * Which event comes next: the order of one stream over all of its connections. Pure.
 *
 * An id is `<ms>-<ordinal>`, and ordinals are dense, so that an id tells whether something is missing before it.
 */
const ID = /^([0-9]{1,15})-([0-9]{1,15})$/;
export const START = "0-0";

/** The ordinal of an id; NaN for what is no id of a log. @param {string} id */
export function ordinal(id) {
  const match = ID.exec(id);
  return match ? Number(match[2]) : NaN;
}

/** Takes the ids of a stream as they come and says what to do with each. */
export class Sequence {
  #isFiltered;
  #seq = 0;
  #mayJump;

  /**
   * @param {object} options
   * @param {string | null} options.cursor the id after which the stream goes on; null: from its beginning
   * @param {boolean} options.isFiltered whether events are left out on purpose, so that gaps mean nothing
   * @param {boolean} options.isFromNow whether a stream without a cursor begins wherever its log ends
   */
  constructor({ cursor, isFiltered, isFromNow }) {
    this.#isFiltered = isFiltered;
    this.#mayJump = cursor === null ? isFromNow : Number.isNaN(ordinal(cursor));
    this.isFromNow = isFromNow;
    /** After which id to resume; null before the first. @type {string | null} */
    this.cursor = cursor;
    if (cursor !== null && !this.#mayJump) this.#seq = ordinal(cursor);
  }

  /** An event came. `known`: it was delivered before; `gap`: something before it is missing. @param {string} id
   * @returns {"next" | "known" | "gap"} */
  take(id) {
    const seq = ordinal(id);
    if (seq <= this.#seq) return "known";
    if (!this.#mayJump && !this.#isFiltered && seq !== this.#seq + 1) return "gap";
    this.#move(id, seq);
    return "next";
  }

  /** The edge moved the cursor without an event. @param {string} id */
  place(id) {
    const seq = ordinal(id);
    if (seq >= this.#seq && (this.#mayJump || this.#isFiltered)) this.#move(id, seq);
  }

  /** The edge said that some history cannot be had. @param {string} reason */
  reset(reason) {
    if (reason !== "trimmed") this.#seq = 0; // another history, whose ordinals begin anew
    this.#mayJump = true;
  }

  /** @param {string} id @param {number} seq */
  #move(id, seq) {
    this.cursor = id;
    this.#seq = seq;
    this.#mayJump = Number.isNaN(seq);
  }
}
