/**
 * Reference-counted streams, on which the hooks and the store are built: subscribers of the same execution or feed
 * share one stream. This module uses no framework.
 *
 * A source is open while it has subscribers. It closes one task after the last one has left: React's StrictMode, and a
 * page that replaces a component, unsubscribe and subscribe again within one task, which must not reconnect.
 *
 * @import { RuncastClient } from "./api.js"
 * @import * as wire from "./events.js"
 * @import { FeedSnapshot } from "./feed.js"
 * @import { Mode } from "./stream.js"
 * @import { TreeSnapshot } from "./tree.js"
 * @import { Snapshot } from "./watch.js"
 */
import { ExecutionFeed } from "./feed.js";
import { IDLE } from "./stream.js";
import { ExecutionTree, noTree } from "./tree.js";

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
export const KEPT_EVENTS = 200;

/**
 * An open source and its subscribers.
 *
 * @template S
 */
class OpenSource {
  #source;
  #onClosed;
  #unsubscribe;
  /** @type {Set<{listener: () => void, reader: Reader | undefined}>} */
  #subscribers = new Set();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #closing;

  /** @param {MakeSource<S>} make
   * @param {() => void} onClosed called when it closes, after the last subscriber has left */
  constructor(make, onClosed) {
    this.#onClosed = onClosed;
    this.#source = make((event) => this.#read(event));
    this.#unsubscribe = this.#source.subscribe(() => this.#changed());
    this.#source.start();
  }

  getSnapshot() {
    return this.#source.getSnapshot();
  }

  /**
   * @param {() => void} listener
   * @param {Reader} [reader]
   */
  subscribe(listener, reader) {
    const subscriber = { listener, reader };
    clearTimeout(this.#closing);
    this.#subscribers.add(subscriber);
    return () => {
      if (!this.#subscribers.delete(subscriber) || this.#subscribers.size) return;
      this.#closing = setTimeout(() => this.#close());
    };
  }

  restart() {
    this.#source.start();
  }

  #changed() {
    for (const { listener } of [...this.#subscribers]) listener();
  }

  /** @param {wire.StreamEvent} event */
  #read(event) {
    for (const { reader } of [...this.#subscribers]) call(reader, event);
  }

  #close() {
    this.#onClosed();
    this.#unsubscribe();
    this.#source.close();
  }
}

/** Call a reader. An exception of it is reported, and does not reach the other readers.
 * @param {Reader | undefined} reader
 * @param {wire.StreamEvent} event */
function call(reader, event) {
  try {
    reader?.(event);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

/**
 * Open sources by client and key. Only users of the same client share a stream.
 *
 * @type {WeakMap<RuncastClient, Map<string, OpenSource<any>>>}
 */
const openSources = new WeakMap();

/**
 * A reference-counted source: the first subscriber opens it, the last one closes it.
 *
 * @template S
 */
export class RefCounted {
  #open;
  #key;
  #make;

  /**
   * @param {RuncastClient} client
   * @param {string} key
   * @param {MakeSource<S>} make
   */
  constructor(client, key, make) {
    /** @type {Map<string, OpenSource<S>>} */
    const open = openSources.get(client) ?? new Map();
    openSources.set(client, open);
    this.#open = open;
    this.#key = key;
    this.#make = make;
  }

  /** Undefined without subscribers. */
  getSnapshot() {
    return this.#open.get(this.#key)?.getSnapshot();
  }

  /**
   * @param {() => void} listener
   * @param {Reader} [reader]
   * @returns {() => void} ends the subscription
   */
  subscribe(listener, reader) {
    let source = this.#open.get(this.#key);
    if (!source) {
      source = new OpenSource(this.#make, () => this.#open.delete(this.#key));
      this.#open.set(this.#key, source);
    }
    return source.subscribe(listener, reader);
  }

  /** Start again after a failure. */
  restart() {
    this.#open.get(this.#key)?.restart();
  }
}

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
export function sharedWatch(client, executionId, { mode = "shared", identity, workerUrl, from, cursor, compact } = {}) {
  const key = JSON.stringify(["watch", executionId, mode, identity, from, cursor, compact]);
  const options = { mode, identity, workerUrl, from, cursor, compact, keepEvents: KEPT_EVENTS };
  return new RefCounted(client, key, (onEvent) => client.watch(executionId, { ...options, onEvent }));
}

/** @param {RuncastClient} client @param {TransportOptions & {limit?: number}} [options]
 * @returns {RefCounted<FeedSnapshot>} */
export function sharedFeed(client, { mode = "shared", identity, workerUrl, limit } = {}) {
  const key = JSON.stringify(["feed", limit, mode, identity]);
  return new RefCounted(
    client,
    key,
    (onEvent) => new ExecutionFeed(client, { mode, identity, workerUrl, limit, onEvent }),
  );
}

/** @param {RuncastClient} client @param {string} rootId @param {TransportOptions} [options]
 * @returns {RefCounted<TreeSnapshot>} */
export function sharedTree(client, rootId, { mode = "shared", identity, workerUrl } = {}) {
  const key = JSON.stringify(["tree", rootId, mode, identity]);
  const options = { mode, identity, workerUrl };
  return new RefCounted(client, key, (onEvent) => new ExecutionTree(client, rootId, { ...options, onEvent }));
}

export const UNOPENED_TREE = noTree(IDLE);

/** The snapshot without a stream. @type {Snapshot} */
export const UNOPENED = Object.freeze({ state: null, status: IDLE });

/** @type {FeedSnapshot} */
export const UNOPENED_FEED = Object.freeze({ executions: [], isLoaded: false, status: IDLE, error: null });
