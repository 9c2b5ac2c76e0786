/**
 * What others do to the execution: its cancel, its end, and the answers to its questions. Read from its stream, on one
 * connection, while somebody needs it; it resumes after the last event, over any number of connections.
 */
import { backoffMs, pause } from "./backoff.js";
import { executionPath } from "./edge.js";
import { EdgeUnavailable, isTemporary } from "./errors.js";
import { FrameParser } from "./sse.js";

/**
 * @import { Edge } from "./edge.js"
 * @import { Frame } from "./sse.js"
 *
 * @typedef {{type: string, data: Record<string, any>}} Heard
 *
 * @typedef {object} Watch what tells an emitter of cancels and answers
 * @property {() => void} begin
 * @property {() => void} close
 * @property {(inputId?: string) => () => void} need
 * @property {() => Promise<unknown>} live
 *
 * @typedef {object} JobHold the attempt that a worker runs; the worker renews its lease, and hears of its cancel
 * @property {number} attempt
 * @property {number | string} fence
 * @property {AbortSignal} signal aborted by the worker
 * @property {(onEvent: (event: Heard) => void) => Watch} watch instead of the execution's stream
 */

const TYPES = ["execution:*", "input:received"];
const RETRY_FIRST_MS = 250;
const RETRY_MOST_MS = 10_000;
const OPENING_MS = 20_000;
const SILENT_HEARTBEATS = 2.5;
/** A connection that was good for this long starts the backoff again. */
const STABLE_MS = 10_000;

export class LogWatch {
  #edge;
  #path;
  #onEvent;
  #needs = 0;
  #hasBegun = false;
  /** @type {AbortController | null} */
  #stop = null;
  /** @type {string | null} */
  #cursor = null;
  #isOver = false;
  #isLive = false;
  /** @type {Array<{resolve: () => void, reject: (error: unknown) => void}>} */
  #live = [];
  /** Why the stream cannot be read. @type {Error | null} */
  error = null;

  /** @param {Edge} edge @param {string} executionId @param {(event: Heard) => void} onEvent */
  constructor(edge, executionId, onEvent) {
    this.#edge = edge;
    this.#path = `${executionPath(executionId)}/stream?types=${encodeURIComponent(TYPES.join(","))}`;
    this.#onEvent = onEvent;
  }

  /** The execution is known: before its first event there is no stream. */
  begin() {
    this.#hasBegun = true;
    this.#start();
  }

  /** Read the stream, once there is one, until the returned function is called. */
  need() {
    this.#needs += 1;
    this.error = null; // what failed for another call may go now
    this.#start();
    let isDone = false;
    return () => {
      if (isDone) return;
      isDone = true;
      this.#needs -= 1;
      if (this.#needs === 0) this.#end();
    };
  }

  /** Wait until everything that the log has was read. Raises if it cannot be read. @returns {Promise<void>} */
  live() {
    if (this.error !== null) return Promise.reject(this.error);
    if (this.#isLive || this.#isOver) return Promise.resolve();
    return new Promise((resolve, reject) => this.#live.push({ resolve, reject }));
  }

  #start() {
    if (!this.#hasBegun || this.#isOver || this.#needs === 0 || this.#stop !== null || this.error !== null) return;
    void this.#run((this.#stop = new AbortController()));
  }

  close() {
    this.#isOver = true;
    this.#end();
  }

  #end() {
    this.#isLive = false;
    this.#stop?.abort();
    this.#stop = null;
    this.#settle(null);
  }

  /** @param {Error | null} error */
  #settle(error) {
    const waiting = this.#live;
    this.#live = [];
    for (const { resolve, reject } of waiting) error === null ? resolve() : reject(error);
  }

  /** @param {AbortController} stop */
  async #run(stop) {
    let failures = 0;
    while (!stop.signal.aborted) {
      const began = performance.now();
      let retryMs = 0;
      try {
        retryMs = await this.#read(stop.signal);
        failures = 0;
      } catch (error) {
        if (stop.signal.aborted) return;
        if (!isTemporary(error)) return this.#failed(/** @type {Error} */ (error));
        if (performance.now() - began > STABLE_MS) failures = 0;
        retryMs = (error.retryAfterMs ?? 0) + backoffMs(failures, RETRY_FIRST_MS, RETRY_MOST_MS);
        failures += 1;
      }
      if (this.#isOver) return this.#end();
      await pause(retryMs, stop.signal);
    }
  }

  /** @param {Error} error */
  #failed(error) {
    this.error = error;
    this.#stop = null;
    this.#settle(error);
  }

  /** Read one connection to its end; how long to wait before the next. @param {AbortSignal} signal */
  async #read(signal) {
    const cut = new AbortController();
    const stop = () => cut.abort();
    signal.addEventListener("abort", stop, { once: true });
    let silentMs = OPENING_MS;
    let timer = setTimeout(stop, silentMs);
    try {
      /** @type {Record<string, string>} */
      const headers = { Accept: "text/event-stream" };
      if (this.#cursor !== null) headers["Last-Event-ID"] = this.#cursor;
      const response = await this.#edge.open(this.#path, headers, cut.signal);
      if (response === null) {
        this.#isOver = true;
        return 0;
      }
      const parser = new FrameParser();
      const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
      // An abort does not always settle a read that waits.
      cut.signal.addEventListener("abort", () => void reader.cancel().catch(() => {}), { once: true });
      for (;;) {
        const { done, value } = await reader.read();
        signal.throwIfAborted();
        if (done || cut.signal.aborted) return parser.retryMs ?? RETRY_FIRST_MS;
        for (const frame of parser.feed(value)) silentMs = this.#frame(frame) ?? silentMs;
        clearTimeout(timer);
        if (this.#isOver) return 0;
        timer = setTimeout(stop, silentMs);
      }
    } catch (error) {
      if (signal.aborted || isTemporary(error)) throw error;
      if (error instanceof Error && "status" in error) throw error;
      throw new EdgeUnavailable("the stream of the execution was cut", { cause: error });
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", stop);
      cut.abort();
      this.#isLive = false;
    }
  }

  /** @param {Frame} frame @returns {number | undefined} the silence after which the connection is dead, ms */
  #frame({ id, event, data }) {
    if (id !== undefined) this.#cursor = id;
    if (data === "") return undefined;
    const found = JSON.parse(data);
    if (event === "stream:open") return SILENT_HEARTBEATS * 1000 * found.heartbeatSeconds;
    if (event === "stream:live") {
      this.#isLive = true;
      this.#settle(null);
    } else if (event === "stream:end" && found.reason === "finished") this.#isOver = true;
    else if (!event.startsWith("stream:") && typeof found.type === "string") this.#onEvent(found);
    return undefined;
  }
}
