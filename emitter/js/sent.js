/** What a log has acknowledged lately, held in case a failover of Redis loses it. */

/** @import { Batch } from "./queue.js" */

/** Longer than a primary of Redis that is cut off takes writes (15 s in a Cluster), and a failover then takes. */
const HELD_MS = 60_000;
export const HELD_BYTES = 256 * 1024;

export class Sent {
  /** @type {{batch: Batch, at: number}[]} */
  #held = [];
  #size = 0;

  /** Hold a batch that has just arrived. @param {Batch} batch @param {number} now ms */
  add(batch, now = performance.now()) {
    this.#held.push({ batch, at: now });
    this.#size += batch.size;
    while (this.#size > HELD_BYTES || (this.#held.length > 0 && this.#held[0].at + HELD_MS < now)) {
      this.#size -= /** @type {{batch: Batch}} */ (this.#held.shift()).batch.size;
    }
  }

  /** The batches with events after this number, in order. They are no longer held. @param {number} reached */
  takeAfter(reached) {
    const isLost = (/** @type {{batch: Batch}} */ { batch }) => batch.first + batch.items.length - 1 > reached;
    const lost = this.#held.filter(isLost).map(({ batch }) => batch);
    this.#held = this.#held.filter((each) => !isLost(each));
    for (const { size } of lost) this.#size -= size;
    return lost;
  }
}
