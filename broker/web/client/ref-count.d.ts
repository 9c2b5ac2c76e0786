/**
 * @typedef {object} TransportOptions
 * @property {Mode} [mode] `shared` by default: one connection for all tabs of the browser; where that is not possible
 *   each tab has its own, and `status.fallback` gives the reason
 * @property {string} [identity] the user, for `shared` with a cookie
 * @property {string | URL} [workerUrl] of `shared-worker.js`, if a bundler moved it
 *
 * @typedef {object} PartOptions
 * @property {"start" | "now"} [from]
 * @property {string | null} [cursor] start after this event
 * @property {boolean} [compact] whether neighbouring deltas of one text are one event while the log is replayed: it
 *   opens faster, to the same state
 *
 * @typedef {TransportOptions & PartOptions} SharedWatchOptions Subscribers share a stream if their options are equal.
 */
/** @param {RuncastClient} client @param {string} executionId @param {SharedWatchOptions} [options]
 * @returns {RefCounted<Snapshot>} */
export function sharedWatch(client: RuncastClient, executionId: string, { mode, identity, workerUrl, from, cursor, compact }?: SharedWatchOptions): RefCounted<Snapshot>;
/** @param {RuncastClient} client @param {TransportOptions & {limit?: number}} [options]
 * @returns {RefCounted<FeedSnapshot>} */
export function sharedFeed(client: RuncastClient, { mode, identity, workerUrl, limit }?: TransportOptions & {
    limit?: number;
}): RefCounted<FeedSnapshot>;
/** @param {RuncastClient} client @param {string} rootId @param {TransportOptions} [options]
 * @returns {RefCounted<TreeSnapshot>} */
export function sharedTree(client: RuncastClient, rootId: string, { mode, identity, workerUrl }?: TransportOptions): RefCounted<TreeSnapshot>;
/** @typedef {(event: wire.StreamEvent) => void} Reader called for each event that arrives while it is subscribed */
/**
 * @template S
 * @typedef {object} Source An `ExecutionWatch` or an `ExecutionFeed`.
 * @property {() => unknown} start
 * @property {() => void} close
 * @property {(listener: () => void) => () => void} subscribe
 * @property {() => S} getSnapshot the same object until it changes
 */
/** @template S @typedef {(onEvent: Reader) => Source<S>} MakeSource */
/** How many events of an execution a snapshot has. Its state is folded from all events. */
export const KEPT_EVENTS: 200;
/**
 * A reference-counted source: the first subscriber opens it, the last one closes it.
 *
 * @template S
 */
export class RefCounted<S> {
    /**
     * @param {RuncastClient} client
     * @param {string} key
     * @param {MakeSource<S>} make
     */
    constructor(client: RuncastClient, key: string, make: MakeSource<S>);
    /** Undefined without subscribers. */
    getSnapshot(): S | undefined;
    /**
     * @param {() => void} listener
     * @param {Reader} [reader]
     * @returns {() => void} ends the subscription
     */
    subscribe(listener: () => void, reader?: Reader): () => void;
    /** Start again after a failure. */
    restart(): void;
    #private;
}
export const UNOPENED_TREE: TreeSnapshot;
/** The snapshot without a stream. @type {Snapshot} */
export const UNOPENED: Snapshot;
/** @type {FeedSnapshot} */
export const UNOPENED_FEED: FeedSnapshot;
export type TransportOptions = {
    /**
     * `shared` by default: one connection for all tabs of the browser; where that is not possible
     * each tab has its own, and `status.fallback` gives the reason
     */
    mode?: Mode | undefined;
    /**
     * the user, for `shared` with a cookie
     */
    identity?: string | undefined;
    /**
     * of `shared-worker.js`, if a bundler moved it
     */
    workerUrl?: string | URL | undefined;
};
export type PartOptions = {
    from?: "start" | "now" | undefined;
    /**
     * start after this event
     */
    cursor?: string | null | undefined;
    /**
     * whether neighbouring deltas of one text are one event while the log is replayed: it
     * opens faster, to the same state
     */
    compact?: boolean | undefined;
};
/**
 * Subscribers share a stream if their options are equal.
 */
export type SharedWatchOptions = TransportOptions & PartOptions;
/**
 * called for each event that arrives while it is subscribed
 */
export type Reader = (event: wire.StreamEvent) => void;
/**
 * An `ExecutionWatch` or an `ExecutionFeed`.
 */
export type Source<S> = {
    start: () => unknown;
    close: () => void;
    subscribe: (listener: () => void) => () => void;
    /**
     * the same object until it changes
     */
    getSnapshot: () => S;
};
export type MakeSource<S> = (onEvent: Reader) => Source<S>;
import type { RuncastClient } from "./api.js";
import type { Snapshot } from "./watch.js";
import type { FeedSnapshot } from "./feed.js";
import type { TreeSnapshot } from "./tree.js";
import type { Mode } from "./stream.js";
import type * as wire from "./events.js";
