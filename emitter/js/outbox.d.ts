/**
 * @import { Edge } from "./edge.js"
 * @import { Batch, Item, Spoken } from "./queue.js"
 *
 * @typedef {object} OutboxOptions
 * @property {number} [maxWaitMs] how long a chunk of text waits for others to be merged with
 * @property {number} [maxBatchEvents]
 * @property {number} [maxBatchBytes]
 * @property {number} [maxQueueEvents] as many more may wait for room in the queue
 * @property {number} [maxQueueBytes]
 * @property {"wait" | "dropDeltas"} [overflow] what a call does while the queue is full
 * @property {number} [overflowTimeoutMs] how long a call waits for room
 */
/** @type {Required<OutboxOptions>} */
export const DEFAULTS: Required<OutboxOptions>;
/** @typedef {{item: Item, resolve: () => void, reject: (error: Error) => void, until: number}} Waiting */
/** @typedef {{position: number, resolve: () => void, reject: (error: Error) => void}} Flush */
export class Outbox {
    /** @param {Edge} edge @param {string} executionId @param {Record<string, string>} headers of every request
     * @param {OutboxOptions} options */
    constructor(edge: Edge, executionId: string, headers: Record<string, string>, options: OutboxOptions);
    /** Why the log takes nothing more. @type {Error | null} */
    error: Error | null;
    /** When the log last took something, or the lease was renewed (`performance.now()`); 0: never. */
    heardAt: number;
    /** Events that were dropped since the last notice of it. */
    dropped: number;
    /** Called once, with the refusal of the log. @type {(error: Error) => void} */
    onRefused: (error: Error) => void;
    /** Called after each batch that the log took. */
    onSent: () => void;
    /** Makes an event shorter, or several of it, if it may be over the limit (bytes) of an edge; `tries` were made before.
     * Null: it must not be cut. @type {(spoken: Spoken, limit: number, tries: number) => Spoken[] | null} */
    shorten: (spoken: Spoken, limit: number, tries: number) => Spoken[] | null;
    get settled(): number;
    /** Whether there is room for a notice of what was dropped. */
    get isRoomy(): boolean;
    /** Queue an event; waits only while the queue is full. @param {Item} item @returns {Promise<void> | null} null: it is
     * queued */
    put(item: Item): Promise<void> | null;
    /** Queue an event behind all others, even if the queue is full. @param {Item} item */
    putLast(item: Item): void;
    /** Wait until the log has all that was queued so far. @param {number} timeoutMs @returns {Promise<void>} */
    flush(timeoutMs: number): Promise<void>;
    /** Flush, then send nothing more. Raises `EventsLost` with the number of events that were not confirmed in time.
     * @param {number} timeoutMs */
    close(timeoutMs: number): Promise<void>;
    /** Say that the agent is alive. Raises what the edge says. */
    renew(): Promise<void>;
    /** Drop what is queued and take no more: every call raises `error`. @param {Error} error */
    refuse(error: Error): void;
    #private;
}
export type OutboxOptions = {
    /**
     * how long a chunk of text waits for others to be merged with
     */
    maxWaitMs?: number | undefined;
    maxBatchEvents?: number | undefined;
    maxBatchBytes?: number | undefined;
    /**
     * as many more may wait for room in the queue
     */
    maxQueueEvents?: number | undefined;
    maxQueueBytes?: number | undefined;
    /**
     * what a call does while the queue is full
     */
    overflow?: "wait" | "dropDeltas" | undefined;
    /**
     * how long a call waits for room
     */
    overflowTimeoutMs?: number | undefined;
};
export type Waiting = {
    item: Item;
    resolve: () => void;
    reject: (error: Error) => void;
    until: number;
};
export type Flush = {
    position: number;
    resolve: () => void;
    reject: (error: Error) => void;
};
import type { Spoken } from "./queue.js";
import type { Item } from "./queue.js";
import type { Edge } from "./edge.js";
