/**
 * A stream of an edge as its viewer sees it: every event exactly once and in order, whatever breaks in between.
 */

/**
 * @import { StreamControl, StreamEvent, StreamReset } from "./events.js"
 * @import { RuncastClient } from "./api.js"
 */

/**
 * @typedef {"fetch" | "eventsource" | "shared"} Mode
 * @typedef {"idle" | "connecting" | "replaying" | "live" | "waiting" | "offline" | "ended" | "failed" | "closed"} Phase
 */

/**
 * @typedef {object} Status
 * @property {Phase} phase
 * @property {string | null} lastEventId
 * @property {number} reconnects
 * @property {number} replayed events that had happened before they were asked for
 * @property {readonly StreamReset[]} resets the last few
 * @property {number | null} latencyMs of the last live event: when it came less its `ts`, by two clocks
 * @property {number | null} retryAt ms since the epoch, while waiting
 * @property {Error | null} error the last one, until the stream is live again
 * @property {number | null} connectedAt ms since the epoch
 * @property {Mode} mode how the stream is read; `shared` falls back to `fetch`
 * @property {string | null} fallback why it is not `shared`, where that was asked for
 */

/**
 * @typedef {object} StreamOptions
 * @property {RuncastClient} client
 * @property {string} [executionId] absent: the feed of everything of the user
 * @property {string} [path] of another stream of the edge, instead
 * @property {string | null} [cursor] the id after which to go on
 * @property {"start" | "now"} [from] where to begin without a cursor; the feed at `now`, an execution at its `start`
 * @property {readonly string[]} [types] only these: `tool:*`
 * @property {Mode} [mode]
 * @property {string} [identity] whose cookie it is: tabs of one identity share a connection (`shared` with a cookie)
 * @property {string | URL} [workerUrl] of `shared-worker.js`, where a bundler moved it
 * @property {(event: StreamEvent, size: number) => void} [onEvent] of another stream (`path`): {type, data}
 * @property {(control: StreamControl) => void} [onControl]
 * @property {(status: Status) => void} [onStatus]
 */

/**
 * @typedef {{path: string, executionId?: string, query: Record<string, string | null>, mode: Mode, identity?: string,
 *   workerUrl?: string | URL}} Target
 */

/**
 * @typedef {object} Sink what a connection tells
 * @property {(event: any, size: number) => void} event the next one, and the characters of its JSON
 * @property {(control: StreamControl) => void} control
 * @property {(change: Partial<Status>) => void} change
 * @property {(again: boolean) => void} opened
 * @property {() => void} batch all that came at once was told
 */
import { executionPath } from "./paths.js";
import { Connection } from "./connection.js";
import { Sequence } from "./cursor.js";
import { SharedConnection } from "./shared.js";

/** What an iterator may leave untaken before the stream is closed, to go on when it has caught up: events, and the
 * characters of their JSON. */
const MAX_LAG = 5_000;
const MAX_LAG_SIZE = 32 * 1024 * 1024;
const MAX_RESETS = 20;
const OVER = new Set(["ended", "failed", "closed"]);

/** @type {Status} */
export const IDLE = Object.freeze({
  phase: "idle",
  lastEventId: null,
  reconnects: 0,
  replayed: 0,
  resets: Object.freeze([]),
  latencyMs: null,
  retryAt: null,
  error: null,
  connectedAt: null,
  mode: "fetch",
  fallback: null,
});

export class AgentStream {
  #client;
  #target;
  #sequence;
  #options;
  /** @type {Status} */
  #status;
  /** @type {Partial<Status> | null} */
  #news = null;
  /** @type {Connection | SharedConnection | null} */
  #connection = null;
  /** @type {Set<Lag>} */
  #readers = new Set();
  #isPaused = false;
  /** What connections before the one in use tell does not count. */
  #generation = 0;

  /** @param {StreamOptions} options */
  constructor(options) {
    const { client, executionId, path, cursor = null, from, types, mode = "fetch" } = options;
    this.#client = client;
    this.#options = options;
    const isFeed = executionId === undefined && path === undefined;
    const query = { from: from ?? null, types: types?.length ? types.join(",") : null };
    const place = path ?? (isFeed ? "/api/agent/stream" : executionPath(/** @type {string} */ (executionId)) + "/stream");
    const { identity, workerUrl } = options;
    /** @type {Target} */
    this.#target = { path: place, executionId, query, mode, identity, workerUrl };
    const isFromNow = (from ?? (isFeed ? "now" : "start")) === "now";
    this.#sequence = new Sequence({ cursor, isFiltered: query.types !== null, isFromNow });
    this.#status = Object.freeze({ ...IDLE, mode, lastEventId: cursor });
  }

  /** A new object at each change. */
  get status() {
    return this.#status;
  }

  /** Begin, or go on after `close`, or try again after the stream failed. */
  start() {
    const { phase } = this.#status;
    if (phase === "idle" || OVER.has(phase)) this.#connect();
    return this;
  }

  /** Leave. The execution goes on; `start` resumes after the last event. */
  close() {
    if (this.#status.phase === "closed") return;
    this.#isPaused = false;
    this.#disconnect();
    this.#change({ phase: "closed", retryAt: null });
  }

  /** The events, from now on; starts the stream, and closes it when the loop is left. Raises when the stream fails.
   * @returns {AsyncGenerator<StreamEvent, void>} */
  async *[Symbol.asyncIterator]() {
    const reader = new Lag();
    this.#readers.add(reader);
    this.start();
    try {
      for (;;) {
        while (reader.events.length > 0) yield* reader.taken();
        if (this.#status.phase === "failed") throw this.#status.error;
        if (OVER.has(this.#status.phase)) return;
        const more = reader.more();
        this.#resume();
        await more;
      }
    } finally {
      this.#readers.delete(reader);
      if (this.#readers.size === 0) this.close();
      else this.#resume();
    }
  }

  // --- connections ---

  #connect() {
    const { mode } = this.#target;
    if (mode === "shared") {
      const instead = (/** @type {string} */ reason) => this.#fallBack(reason);
      this.#connection = new SharedConnection(this.#client, this.#target, this.#sequence, this.#sink(), instead);
    } else {
      this.#connection = new Connection(this.#client, this.#target, this.#sequence, this.#sink());
    }
    this.#change({ phase: "connecting" });
    this.#connection?.start();
  }

  /** @param {string} reason */
  #fallBack(reason) {
    this.#disconnect();
    this.#target = { ...this.#target, mode: /** @type {const} */ ("fetch") };
    this.#change({ mode: "fetch", fallback: reason });
    this.#connect();
  }

  #disconnect() {
    this.#generation += 1;
    const connection = this.#connection;
    this.#connection = null;
    connection?.stop();
  }

  /** What a connection tells counts as long as it is the one in use. @returns {Sink} */
  #sink() {
    const mine = this.#generation;
    const isCurrent = () => mine === this.#generation;
    return {
      event: (event, size) => isCurrent() && this.#event(event, size),
      control: (control) => isCurrent() && this.#control(control),
      change: (change) => isCurrent() && this.#change(change),
      opened: (again) => isCurrent() && this.#opened(again),
      batch: () => isCurrent() && this.#settle(),
    };
  }

  // --- what comes in ---

  /** @param {any} event @param {number} size */
  #event(event, size) {
    if (event.id === undefined && this.#status.phase !== "live") this.#change({ phase: "live", error: null });
    if (this.#status.phase === "live") this.#news = { ...this.#news, latencyMs: latencyOf(event) };
    else this.#news = { ...this.#news, replayed: (this.#news?.replayed ?? this.#status.replayed) + 1 };
    tell(this.#options.onEvent, event, size);
    for (const reader of this.#readers) reader.push(event, size);
    if (this.#isLagging()) this.#pause();
  }

  /** @param {StreamControl} control */
  #control(control) {
    const { type, data } = control;
    if (type === "stream:live") this.#change({ phase: "live", error: null });
    if (type === "stream:reset") this.#change({ resets: [...this.#status.resets, data].slice(-MAX_RESETS) });
    tell(this.#options.onControl, control);
  }

  /** @param {boolean} again */
  #opened(again) {
    const reconnects = this.#status.reconnects + (again ? 1 : 0);
    this.#change({ phase: "replaying", reconnects, connectedAt: Date.now(), retryAt: null });
  }

  /** Many events at once are one change of the status. */
  #settle() {
    if (this.#news !== null || this.#sequence.cursor !== this.#status.lastEventId) this.#change({});
  }

  /** @param {Partial<Status>} change */
  #change(change) {
    const lastEventId = this.#sequence.cursor;
    const status = Object.freeze({ ...this.#status, ...this.#news, lastEventId, ...change });
    this.#news = null;
    if (isSame(status, this.#status)) return;
    this.#status = status;
    const isOver = OVER.has(status.phase);
    if (isOver) this.#disconnect(); // one that is shared holds its worker's memory until it is let go
    tell(this.#options.onStatus, status);
    if (isOver) for (const reader of this.#readers) reader.wake();
  }

  // --- iterators that lag ---

  #isLagging() {
    for (const reader of this.#readers) if (reader.isFull) return true;
    return false;
  }

  #pause() {
    this.#isPaused = true;
    this.#disconnect();
  }

  /** Go on, if none lags any more. */
  #resume() {
    if (!this.#isPaused || this.#isLagging()) return;
    this.#isPaused = false;
    this.#connect();
  }
}

/** Events that an iterator has not taken yet. */
class Lag {
  /** @type {StreamEvent[]} */
  events = [];
  /** Characters of their JSON. */
  size = 0;
  /** @type {(() => void) | null} */
  #wake = null;

  get isFull() {
    return this.events.length >= MAX_LAG || this.size >= MAX_LAG_SIZE;
  }

  /** @param {any} event @param {number} size */
  push(event, size) {
    this.events.push(event);
    this.size += size;
    this.wake();
  }

  *taken() {
    const events = this.events;
    this.events = [];
    this.size = 0;
    yield* events;
  }

  wake() {
    this.#wake?.();
    this.#wake = null;
  }

  more() {
    return new Promise((/** @type {(value: void) => void} */ resolve) => (this.#wake = resolve));
  }
}

/** @param {Record<string, any>} one @param {Record<string, any>} other */
function isSame(one, other) {
  return Object.keys(one).every((name) => one[name] === other[name]);
}

/** @param {{ts?: unknown}} event */
function latencyOf({ ts }) {
  return typeof ts === "number" ? Date.now() - ts : null;
}

/** What a listener raises is its own affair: it is reported, and the stream goes on. @template {unknown[]} A
 * @param {((...args: A) => void) | undefined} listener @param {A} args */
function tell(listener, ...args) {
  try {
    listener?.(...args);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
