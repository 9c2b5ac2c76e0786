/** The size of a text in JSON, without its quotes. @param {string} text */
export function chunkBytes(text: string): number;
/** Of the text of one event that is merged from several, as encoded. */
export const MERGED_BYTES: number;
/**
 * @typedef {object} Spoken what an event is made of, until its batch leaves
 * @property {string} type
 * @property {Record<string, any>} data
 * @property {number} ts
 * @property {string} [agent]
 * @property {string} [parentId]
 * @property {string} [requestId]
 */
/**
 * @typedef {object} Item
 * @property {Spoken} spoken
 * @property {string | null} line its JSON; null of a chunk, which may still grow
 * @property {number} size of its JSON, and of a chunk only that of its text
 * @property {boolean} [isAlone] it is a batch of its own, so that a refusal means this event
 * @property {(error: Error | null) => void} [settled] called once, when the log has it or has refused it
 */
/**
 * @typedef {object} Batch
 * @property {number} first number of its first event
 * @property {Item[]} items
 * @property {string} body NDJSON
 * @property {number} size as the queue counted it
 */
export class EventQueue {
    /** @param {number} maxEvents @param {number} maxBytes */
    constructor(maxEvents: number, maxBytes: number);
    /** The number of the last event that the log has. */
    settled: number;
    size: number;
    /** Waiting events, and those of the batch on the way. */
    get length(): number;
    /** Whether there are events besides those of the batch on the way. */
    get waits(): boolean;
    /** Whether more than chunks of text is waiting. */
    get isUrgent(): boolean;
    get isFull(): boolean;
    /** Less than half full. */
    get isRoomy(): boolean;
    /** The position of the last event: it is in the log once `settled` is as high. */
    get last(): number;
    /** @param {Item} item */
    put(item: Item): void;
    /** Queue a chunk of text, `size` bytes as encoded; adjacent chunks of a message merge. @param {Spoken} spoken
     * @param {number} size */
    putChunk(spoken: Spoken, size: number): void;
    /** Drop the waiting chunks to make room; how many events that were. */
    dropChunks(): number;
    /** The next batch. Its events are counted until `done`. @param {number} maxEvents @param {number} maxBytes
     * @returns {Batch} */
    take(maxEvents: number, maxBytes: number): Batch;
    /** The log has the first `count` events of the batch on the way, or all. @param {Batch} batch @param {number} count */
    done(batch: Batch, count?: number): void;
    /** Remove everything, and give it back. */
    clear(): Item[];
    #private;
}
/**
 * what an event is made of, until its batch leaves
 */
export type Spoken = {
    type: string;
    data: Record<string, any>;
    ts: number;
    agent?: string | undefined;
    parentId?: string | undefined;
    requestId?: string | undefined;
};
export type Item = {
    spoken: Spoken;
    /**
     * its JSON; null of a chunk, which may still grow
     */
    line: string | null;
    /**
     * of its JSON, and of a chunk only that of its text
     */
    size: number;
    /**
     * it is a batch of its own, so that a refusal means this event
     */
    isAlone?: boolean | undefined;
    /**
     * called once, when the log has it or has refused it
     */
    settled?: ((error: Error | null) => void) | undefined;
};
export type Batch = {
    /**
     * number of its first event
     */
    first: number;
    items: Item[];
    /**
     * NDJSON
     */
    body: string;
    /**
     * as the queue counted it
     */
    size: number;
};
