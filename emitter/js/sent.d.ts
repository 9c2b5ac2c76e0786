export const HELD_BYTES: number;
export class Sent {
    /** Hold a batch that has just arrived. @param {Batch} batch @param {number} now ms */
    add(batch: Batch, now?: number): void;
    /** The batches with events after this number, in order. They are no longer held. @param {number} reached */
    takeAfter(reached: number): Batch[];
    #private;
}
import type { Batch } from "./queue.js";
