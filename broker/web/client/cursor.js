/**
 * The cursor of a stream, and the order of its events over all of its connections. Pure.
 *
 * An id is `<ms>-<ordinal>`. Ordinals are dense: an id shows whether an event before it is missing.
 */
const ID = /^([0-9]{1,15})-([0-9]{1,15})$/;
export const START = "0-0";

/** Types of which neighbouring events may be one event, with the id of the last. */
export const DELTAS = new Set(["message:delta", "thinking:delta"]);

/** The ordinal of an id; NaN if it is not the id of an event. @param {string} id */
export function ordinal(id) {
  const match = ID.exec(id);
  return match ? Number(match[2]) : NaN;
}

/** Takes the ids of a stream in the order of arrival, and decides about each event. */
export class Sequence {
  #isFiltered;
  #isCompact;
  #seq = 0;
  #mayJump;

  /**
   * @param {object} options
   * @param {string | null} options.cursor the id after which the stream resumes; null: it starts at its beginning
   * @param {boolean} options.isFiltered whether the stream leaves events out, so that gaps are expected
   * @param {boolean} [options.isCompact] whether neighbouring deltas may arrive as one
   * @param {boolean} options.isFromNow whether a stream without a cursor starts at the end of its log
   */
  constructor({ cursor, isFiltered, isCompact = false, isFromNow }) {
    this.#isFiltered = isFiltered;
    this.#isCompact = isCompact;
    this.#mayJump = cursor === null ? isFromNow : Number.isNaN(ordinal(cursor));
    this.isFromNow = isFromNow;
    /** The id after which to resume; null before the first event. @type {string | null} */
    this.cursor = cursor;
    if (cursor !== null && !this.#mayJump) this.#seq = ordinal(cursor);
  }

  /** An event arrived. `known`: it was delivered before; `gap`: an event before it is missing. @param {string} id
   * @param {string} type @param {boolean} [isLive] whether it arrived after the replay: no deltas are joined then
   * @returns {"next" | "known" | "gap"} */
  take(id, type, isLive = false) {
    const seq = ordinal(id);
    if (seq <= this.#seq) return "known";
    const mayJump = this.#mayJump || this.#isFiltered || (this.#isCompact && !isLive && DELTAS.has(type));
    if (!mayJump && seq !== this.#seq + 1) return "gap";
    this.#move(id, seq);
    return "next";
  }

  /** The edge moved the cursor without an event. @param {string} id */
  moveTo(id) {
    const seq = ordinal(id);
    if (seq >= this.#seq && (this.#mayJump || this.#isFiltered)) this.#move(id, seq);
  }

  /** Part of the history is not available (`stream:reset`). @param {string} reason */
  reset(reason) {
    if (reason !== "trimmed") this.#seq = 0; // another history: its ordinals start at 1
    this.#mayJump = true;
  }

  /** @param {string} id @param {number} seq */
  #move(id, seq) {
    this.cursor = id;
    this.#seq = seq;
    this.#mayJump = Number.isNaN(seq);
  }
}
