/**
 * @typedef {object} TransportOptions
 * @property {Mode} [mode] `shared`, unless another is asked for: one connection for all of a browser's tabs; where that
 *   cannot work each tab has its own, and `status.fallback` says why
 * @property {string} [identity] whose cookie it is, for `shared` with a cookie
 * @property {string | URL} [workerUrl] of `shared-worker.js`, where a bundler moved it
 *
 * @typedef {object} PartOptions
 * @property {"start" | "now"} [from]
 * @property {string | null} [cursor] begin after this event
 *
 * @typedef {TransportOptions & PartOptions} SharedWatchOptions What makes one stream another: those who ask for the
 *   same share it.
 */
/** @param {RuncastClient} client @param {string} executionId @param {SharedWatchOptions} [options]
 * @returns {Shared<Snapshot>} */
export function sharedWatch(client: RuncastClient, executionId: string, { mode, identity, workerUrl, from, cursor }?: SharedWatchOptions): Shared<Snapshot>;
/** @param {RuncastClient} client @param {TransportOptions & {limit?: number}} [options]
 * @returns {Shared<FeedSnapshot>} */
export function sharedFeed(client: RuncastClient, { mode, identity, workerUrl, limit }?: TransportOptions & {
    limit?: number;
}): Shared<FeedSnapshot>;
/** @typedef {(event: wire.StreamEvent) => void} Reader is told each event that arrives while it is subscribed */
/**
 * @template S
 * @typedef {object} Source What can be shared: `ExecutionWatch` and `ExecutionFeed` are such.
 * @property {() => unknown} start
 * @property {() => void} close
 * @property {(listener: () => void) => () => void} subscribe
 * @property {() => S} getSnapshot the same object until something changed
 */
/** @template S @typedef {(onEvent: Reader) => Source<S>} MakeSource */
/** How many events of one execution are kept at hand. Its state counts all of them. */
export const KEPT_EVENTS: 200;
/**
 * A source that may be open or not: it opens when somebody subscribes, unless somebody else had it opened.
 *
 * @template S
 */
export class Shared<S> {
    /**
     * @param {RuncastClient} client
     * @param {string} key
     * @param {MakeSource<S>} make
     */
    constructor(client: RuncastClient, key: string, make: MakeSource<S>);
    /** Undefined while nobody is subscribed. */
    getSnapshot(): S | undefined;
    /**
     * @param {() => void} listener
     * @param {Reader} [reader]
     * @returns {() => void} ends the subscription
     */
    subscribe(listener: () => void, reader?: Reader): () => void;
    /** Try again, after a failure that does not pass by itself. */
    restart(): void;
    #private;
}
/** What there is to see before a stream is open, or without any. @type {Snapshot} */
export const UNOPENED: Snapshot;
/** @type {FeedSnapshot} */
export const UNOPENED_FEED: FeedSnapshot;
export type TransportOptions = {
    /**
     * `shared`, unless another is asked for: one connection for all of a browser's tabs; where that
     * cannot work each tab has its own, and `status.fallback` says why
     */
    mode?: Mode | undefined;
    /**
     * whose cookie it is, for `shared` with a cookie
     */
    identity?: string | undefined;
    /**
     * of `shared-worker.js`, where a bundler moved it
     */
    workerUrl?: string | URL | undefined;
};
export type PartOptions = {
    from?: "start" | "now" | undefined;
    /**
     * begin after this event
     */
    cursor?: string | null | undefined;
};
/**
 * What makes one stream another: those who ask for the
 * same share it.
 */
export type SharedWatchOptions = TransportOptions & PartOptions;
/**
 * is told each event that arrives while it is subscribed
 */
export type Reader = (event: wire.StreamEvent) => void;
/**
 * What can be shared: `ExecutionWatch` and `ExecutionFeed` are such.
 */
export type Source<S> = {
    start: () => unknown;
    close: () => void;
    subscribe: (listener: () => void) => () => void;
    /**
     * the same object until something changed
     */
    getSnapshot: () => S;
};
export type MakeSource<S> = (onEvent: Reader) => Source<S>;
import type { RuncastClient } from "./api.js";
import type { Snapshot } from "./watch.js";
import type { FeedSnapshot } from "./feed.js";
import type { Mode } from "./stream.js";
import type * as wire from "./events.js";
