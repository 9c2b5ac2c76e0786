/**
 * A stream of an edge: every event exactly once and in order, over any number of connections.
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
 * @property {number} replayed events received before the stream was live
 * @property {readonly StreamReset[]} resets the last few
 * @property {number | null} latencyMs of the last live event: time of arrival minus its `ts`, which is by another clock
 * @property {number | null} retryAt ms since the epoch, while waiting
 * @property {Error | null} error the last one, until the stream is live again
 * @property {number | null} connectedAt ms since the epoch
 * @property {Mode} mode the transport in use; `shared` may fall back to `fetch`
 * @property {string | null} fallback why the mode is not `shared`, although that was requested
 */

/**
 * @typedef {object} StreamOptions
 * @property {RuncastClient} client
 * @property {string} [executionId] absent: the feed of all executions of the user
 * @property {string} [path] of another stream of the edge instead
 * @property {string | null} [cursor] the id after which to resume
 * @property {"start" | "now"} [from] where to start without a cursor; default for the feed: `now`, for an execution:
 *   `start`
 * @property {readonly string[]} [types] only events of these types, `tool:*` for example
 * @property {boolean} [compact] whether neighbouring deltas of one text arrive as one event while the log is replayed:
 *   a long log opens faster, and its fold is the same; default: no
 * @property {Mode} [mode]
 * @property {string} [identity] the user, for `shared` with a cookie: only tabs of one identity share a connection
 * @property {string | URL} [workerUrl] of `shared-worker.js`, if a bundler moved it
 * @property {(event: StreamEvent, size: number) => void} [onEvent] `size`: characters of its JSON; with `path` an
 *   event is {type, data}
 * @property {(control: StreamControl) => void} [onControl]
 * @property {(status: Status) => void} [onStatus]
 */

/**
 * @typedef {{path: string, executionId?: string, query: Record<string, string | null>, mode: Mode, identity?: string,
 *   workerUrl?: string | URL}} Target
 */

/**
 * @typedef {object} Sink the callbacks of a connection
 * @property {(event: any, size: number) => void} event the next event, and the characters of its JSON
 * @property {(control: StreamControl) => void} control
 * @property {(change: Partial<Status>) => void} change
 * @property {(again: boolean) => void} opened
 * @property {() => void} batch all events of one read were delivered
 */
import { executionPath } from "./paths.js";
import { Connection } from "./connection.js";
import { Sequence } from "./cursor.js";
import { SharedConnection } from "./shared-worker/shared-connection.js";

/** Limits of an iterator's queue: events, and characters of their JSON. Beyond them the connection is closed until the
 * iterator has caught up. */
const MAX_QUEUED = 5_000;
const MAX_QUEUED_SIZE = 32 * 1024 * 1024;
const MAX_RESETS = 20;
const FINAL_PHASES = new Set(["ended", "failed", "closed"]);

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
  #unreported = null;
  /** @type {Connection | SharedConnection | null} */
  #connection = null;
  /** @type {Set<IteratorQueue>} */
  #readers = new Set();
  #isPaused = false;
  /** Callbacks of earlier connections are ignored. */
  #generation = 0;

  /** @param {StreamOptions} options */
  constructor(options) {
    const { client, executionId, path, cursor = null, from, types, compact = false, mode = "fetch" } = options;
    this.#client = client;
    this.#options = options;
    const isFeed = executionId === undefined && path === undefined;
    const query = {
      from: from ?? null,
      types: types?.length ? types.join(",") : null,
      compact: compact ? "true" : null,
    };
    const target =
      path ?? (isFeed ? "/api/agent/stream" : executionPath(/** @type {string} */ (executionId)) + "/stream");
    const { identity, workerUrl } = options;
    /** @type {Target} */
    this.#target = { path: target, executionId, query, mode, identity, workerUrl };
    const isFromNow = (from ?? (isFeed ? "now" : "start")) === "now";
    this.#sequence = new Sequence({ cursor, isFiltered: query.types !== null, isCompact: compact, isFromNow });
    this.#status = Object.freeze({ ...IDLE, mode, lastEventId: cursor });
  }

  /** A new object at each change. */
  get status() {
    return this.#status;
  }

  /** Start, resume after `close`, or try again after a failure. */
  start() {
    const { phase } = this.#status;
    if (phase === "idle" || FINAL_PHASES.has(phase)) this.#connect();
    return this;
  }

  /** Close the stream. The execution continues; `start` resumes after the last event. */
  close() {
    if (this.#status.phase === "closed") return;
    this.#isPaused = false;
    this.#disconnect();
    this.#change({ phase: "closed", retryAt: null });
  }

  /** Iterates over the events: starts the stream, and closes it when the loop ends. Raises if the stream fails.
   * @returns {AsyncGenerator<StreamEvent, void>} */
  async *[Symbol.asyncIterator]() {
    const reader = new IteratorQueue();
    this.#readers.add(reader);
    this.start();
    try {
      for (;;) {
        while (reader.events.length > 0) yield* reader.taken();
        if (this.#status.phase === "failed") throw this.#status.error;
        if (FINAL_PHASES.has(this.#status.phase)) return;
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
      const onUnavailable = (/** @type {string} */ reason) => this.#fallBack(reason);
      this.#connection = new SharedConnection(this.#client, this.#target, this.#sequence, this.#sink(), onUnavailable);
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

  /** Callbacks that are ignored once another connection is in use. @returns {Sink} */
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

  // --- callbacks of a connection ---

  /** @param {any} event @param {number} size */
  #event(event, size) {
    if (event.id === undefined && this.#status.phase !== "live") this.#change({ phase: "live", error: null });
    if (this.#status.phase === "live") this.#unreported = { ...this.#unreported, latencyMs: latencyOf(event) };
    else
      this.#unreported = { ...this.#unreported, replayed: (this.#unreported?.replayed ?? this.#status.replayed) + 1 };
    call(this.#options.onEvent, event, size);
    for (const reader of this.#readers) reader.push(event, size);
    if (this.#isLagging()) this.#pause();
  }

  /** @param {StreamControl} control */
  #control(control) {
    const { type, data } = control;
    if (type === "stream:live") this.#change({ phase: "live", error: null });
    if (type === "stream:reset") this.#change({ resets: [...this.#status.resets, data].slice(-MAX_RESETS) });
    call(this.#options.onControl, control);
  }

  /** @param {boolean} again */
  #opened(again) {
    const reconnects = this.#status.reconnects + (again ? 1 : 0);
    this.#change({ phase: "replaying", reconnects, connectedAt: Date.now(), retryAt: null });
  }

  /** Report one change of the status for all events of a batch. */
  #settle() {
    if (this.#unreported !== null || this.#sequence.cursor !== this.#status.lastEventId) this.#change({});
  }

  /** @param {Partial<Status>} change */
  #change(change) {
    const lastEventId = this.#sequence.cursor;
    const status = Object.freeze({ ...this.#status, ...this.#unreported, lastEventId, ...change });
    this.#unreported = null;
    if (isSame(status, this.#status)) return;
    this.#status = status;
    const isOver = FINAL_PHASES.has(status.phase);
    if (isOver) this.#disconnect(); // an open port keeps memory of the shared worker in use
    call(this.#options.onStatus, status);
    if (isOver) for (const reader of this.#readers) reader.wake();
  }

  // --- slow iterators ---

  #isLagging() {
    for (const reader of this.#readers) if (reader.isFull) return true;
    return false;
  }

  #pause() {
    this.#isPaused = true;
    this.#disconnect();
  }

  /** Connect again if no iterator lags any more. */
  #resume() {
    if (!this.#isPaused || this.#isLagging()) return;
    this.#isPaused = false;
    this.#connect();
  }
}

/** Events that an iterator has not consumed yet. */
class IteratorQueue {
  /** @type {StreamEvent[]} */
  events = [];
  /** Characters of their JSON. */
  size = 0;
  /** @type {(() => void) | null} */
  #wake = null;

  get isFull() {
    return this.events.length >= MAX_QUEUED || this.size >= MAX_QUEUED_SIZE;
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

/** Call a listener. An exception of it is reported, and the stream continues. @template {unknown[]} A
 * @param {((...args: A) => void) | undefined} listener @param {A} args */
function call(listener, ...args) {
  try {
    listener?.(...args);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
