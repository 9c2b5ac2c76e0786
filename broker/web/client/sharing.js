/**
 * One stream for all who look at the same thing: what the hooks and the store stand on. No framework in here.
 *
 * A source is open as long as somebody is subscribed to it. It closes a task later, not at once: React's StrictMode,
 * and a page that replaces one component by another, unsubscribe and subscribe again in one go and must not reconnect.
 *
 * @import { RuncastClient } from "./api.js"
 * @import * as wire from "./events.js"
 * @import { FeedSnapshot } from "./feed.js"
 * @import { Mode } from "./stream.js"
 * @import { Snapshot } from "./watch.js"
 */
import { ExecutionFeed } from "./feed.js";
import { IDLE } from "./stream.js";

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
export const KEPT_EVENTS = 200;

/**
 * A source that is open, and who is subscribed to it.
 *
 * @template S
 */
class OpenSource {
  #source;
  #gone;
  #unsubscribe;
  /** @type {Set<{listener: () => void, reader: Reader | undefined}>} */
  #subscribers = new Set();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #closing;

  /** @param {MakeSource<S>} make @param {() => void} gone called when it is closed, nobody being subscribed any more */
  constructor(make, gone) {
    this.#gone = gone;
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
    for (const { reader } of [...this.#subscribers]) tell(reader, event);
  }

  #close() {
    this.#gone();
    this.#unsubscribe();
    this.#source.close();
  }
}

/** What one reader raises is reported, and is not the others' affair. @param {Reader | undefined} reader
 * @param {wire.StreamEvent} event */
function tell(reader, event) {
  try {
    reader?.(event);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

/**
 * What is open, by client and key: streams are shared by all who have the same client, and go with it.
 *
 * @type {WeakMap<RuncastClient, Map<string, OpenSource<any>>>}
 */
const openSources = new WeakMap();

/**
 * A source that may be open or not: it opens when somebody subscribes, unless somebody else had it opened.
 *
 * @template S
 */
export class Shared {
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

  /** Undefined while nobody is subscribed. */
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

  /** Try again, after a failure that does not pass by itself. */
  restart() {
    this.#open.get(this.#key)?.restart();
  }
}

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
export function sharedWatch(client, executionId, { mode = "shared", identity, workerUrl, from, cursor } = {}) {
  const key = JSON.stringify(["watch", executionId, mode, identity, from, cursor]);
  const options = { mode, identity, workerUrl, from, cursor, keepEvents: KEPT_EVENTS };
  return new Shared(client, key, (onEvent) => client.watch(executionId, { ...options, onEvent }));
}

/** @param {RuncastClient} client @param {TransportOptions & {limit?: number}} [options]
 * @returns {Shared<FeedSnapshot>} */
export function sharedFeed(client, { mode = "shared", identity, workerUrl, limit } = {}) {
  const key = JSON.stringify(["feed", limit, mode, identity]);
  return new Shared(client, key, (onEvent) => new ExecutionFeed(client, { mode, identity, workerUrl, limit, onEvent }));
}

/** What there is to see before a stream is open, or without any. @type {Snapshot} */
export const UNOPENED = Object.freeze({ state: null, status: IDLE });

/** @type {FeedSnapshot} */
export const UNOPENED_FEED = Object.freeze({ executions: [], isLoaded: false, status: IDLE, error: null });
