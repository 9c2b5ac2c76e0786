/** The events of one attempt, as if it were an execution of its own. Pure. */

export class AttemptEvents {
  /** @param {number} attempt its number, from 1 */
  constructor(attempt) {
    this._attempt = attempt;
    this._current = 1;
    this._queued = null;
  }

  /** The event as the attempt has it; null if it is another attempt's. An attempt begins queued, and ends with an error
   * if it was lost. */
  of(event) {
    if (event.type === "execution:superseded") return this._ofChange(event);
    if (event.type === "execution:queued") this._queued = event;
    if (event.type === "execution:started") this._current = event.data.attempt; // the log may have been trimmed before
    return this._current === this._attempt ? event : null;
  }

  _ofChange(event) {
    const wasIts = this._current === this._attempt;
    this._current = event.data.attempt;
    if (wasIts) return { ...event, type: "execution:error", data: { error: "The attempt was lost.", code: "lost" } };
    const begins = this._current === this._attempt && this._queued !== null;
    return begins ? { ...this._queued, id: event.id, ts: event.ts } : null;
  }
}
