/**
 * What one producer has for one log: its queue, the batch on the way, and the calls that wait.
 *
 * One batch is on the way at a time. It is sent again, the same text with the same numbers, until an edge has answered:
 * what the log already has of it is skipped there. So nothing is appended twice, over any edge. If a failover of Redis has
 * lost what an edge had confirmed, the edge answers with the number that it expects, and the batches since are sent again.
 */
import { backoffMs, pause } from "./backoff.js";
import { executionPath } from "./edge.js";
import {
  Conflict,
  EdgeUnavailable,
  EventsLost,
  ExecutionEnded,
  PayloadTooLarge,
  QueueFull,
  Superseded,
  isTemporary,
} from "./errors.js";
import { randomHex } from "./ids.js";
import { EventQueue } from "./queue.js";
import { Sent } from "./sent.js";

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
export const DEFAULTS = {
  maxWaitMs: 10,
  maxBatchEvents: 200,
  maxBatchBytes: 256 * 1024,
  maxQueueEvents: 10_000,
  maxQueueBytes: 16 * 1024 * 1024,
  overflow: "wait",
  overflowTimeoutMs: 60_000,
};
const RETRY_FIRST_MS = 100;
const RETRY_MOST_MS = 5_000;
/** An edge or a proxy may ask for more; then the next try is made all the same. */
const RETRY_AFTER_MOST_MS = 120_000;
const MAX_CUTS = 4;
const NDJSON = "application/x-ndjson";

/** @typedef {{item: Item, resolve: () => void, reject: (error: Error) => void, until: number}} Waiting */
/** @typedef {{position: number, resolve: () => void, reject: (error: Error) => void}} Flush */

export class Outbox {
  #edge;
  #path;
  #headers;
  #options;
  #queue;
  #producer = "js-" + randomHex(12);
  /** How many of its events no longer count in its numbers: lost and no longer held, or forgotten by the record. */
  #before = 0;
  #sent = new Sent();
  /** @type {ReturnType<typeof setTimeout> | null} */
  #timer = null;
  #isSending = false;
  #sentAt = -Infinity;
  #stop = new AbortController();
  /** @type {Waiting[]} */
  #waiting = [];
  #waitingBytes = 0;
  /** @type {ReturnType<typeof setTimeout> | null} */
  #overflow = null;
  /** @type {Flush[]} */
  #flushes = [];
  /** Why the log takes nothing more. @type {Error | null} */
  error = null;
  /** When the log last took something, or the lease was renewed (`performance.now()`); 0: never. */
  heardAt = 0;
  /** Events that were dropped since the last notice of it. */
  dropped = 0;
  /** Called once, with the refusal of the log. @type {(error: Error) => void} */
  onRefused = () => {};
  /** Called after each batch that the log took. */
  onSent = () => {};
  /** Makes an event shorter, or several of it, if it may be over the limit (bytes) of an edge; `tries` were made before.
   * Null: it must not be cut. @type {(spoken: Spoken, limit: number, tries: number) => Spoken[] | null} */
  shorten = () => null;

  /** @param {Edge} edge @param {string} executionId @param {Record<string, string>} headers of every request
   * @param {OutboxOptions} options */
  constructor(edge, executionId, headers, options) {
    this.#edge = edge;
    this.#path = executionPath(executionId) + "/events";
    this.#headers = headers;
    this.#options = { ...DEFAULTS, ...definedOf(options) };
    this.#queue = new EventQueue(this.#options.maxQueueEvents, this.#options.maxQueueBytes);
  }

  get settled() {
    return this.#queue.settled;
  }

  /** Whether there is room for a notice of what was dropped. */
  get isRoomy() {
    return this.#queue.isRoomy && this.#waiting.length === 0;
  }

  /** Queue an event; waits only while the queue is full. @param {Item} item @returns {Promise<void> | null} null: it is
   * queued */
  put(item) {
    if (this.error !== null) return Promise.reject(this.error);
    if (this.#waiting.length === 0 && !this.#queue.isFull) {
      this.#enqueue(item);
      return null;
    }
    if (this.#options.overflow === "dropDeltas") {
      this.dropped += this.#queue.dropChunks();
      this.#boundFlushes();
      if (this.#queue.isFull && item.line === null) {
        this.dropped += 1;
        return null;
      }
      if (this.#waiting.length === 0 && !this.#queue.isFull) {
        this.#enqueue(item);
        return null;
      }
    }
    return this.#wait(item);
  }

  /** Queue an event behind all others, even if the queue is full. @param {Item} item */
  putLast(item) {
    for (const { item: each, resolve } of this.#takeWaiting(Infinity)) {
      this.#enqueue(each);
      resolve();
    }
    this.#enqueue(item);
  }

  /** Wait until the log has all that was queued so far. @param {number} timeoutMs @returns {Promise<void>} */
  flush(timeoutMs) {
    if (this.error !== null) return Promise.reject(this.error);
    const position = this.#queue.last + this.#waiting.length;
    if (position <= this.#queue.settled) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#flushes = this.#flushes.filter((each) => each !== flush);
        reject(
          new EdgeUnavailable(`the log did not confirm the events within ${timeoutMs / 1000} s; they are still sent`),
        );
      }, timeoutMs);
      const flush = {
        position,
        resolve: () => (clearTimeout(timer), resolve()),
        reject: (/** @type {Error} */ error) => (clearTimeout(timer), reject(error)),
      };
      this.#flushes.push(flush);
      this.#schedule(true);
    });
  }

  /** Flush, then send nothing more. Raises `EventsLost` with the number of events that were not confirmed in time.
   * @param {number} timeoutMs */
  async close(timeoutMs) {
    const { error } = this;
    const waiting = this.#queue.length + this.#waiting.length;
    try {
      if (waiting > 0 && error === null) await this.flush(timeoutMs);
    } catch (failure) {
      const lost = this.#queue.length + this.#waiting.length;
      throw failure instanceof EdgeUnavailable ? new EventsLost(lost, failure) : failure;
    } finally {
      this.#stop.abort();
      this.#fail(new EventsLost(0), false);
    }
  }

  /** Say that the agent is alive. Raises what the edge says. */
  async renew() {
    const headers = { ...this.#headers, "Content-Type": NDJSON };
    try {
      await this.#edge.request("POST", this.#path, { body: "", headers, signal: this.#stop.signal });
      this.heardAt = performance.now();
    } catch (error) {
      if (!isTemporary(error) && !this.#stop.signal.aborted) this.refuse(/** @type {Error} */ (error));
    }
  }

  /** Drop what is queued and take no more: every call raises `error`. @param {Error} error */
  refuse(error) {
    if (this.error !== null) return;
    this.#stop.abort();
    this.#fail(error, true);
  }

  // --- room ---

  /** @param {Item} item */
  #enqueue(item) {
    if (item.line === null) this.#queue.putChunk(item.spoken, item.size);
    else this.#queue.put(item);
    this.#schedule(item.line !== null);
  }

  /** @param {Item} item @returns {Promise<void>} */
  #wait(item) {
    const { maxQueueEvents, maxQueueBytes, overflowTimeoutMs } = this.#options;
    if (this.#waiting.length >= maxQueueEvents || this.#waitingBytes >= maxQueueBytes) {
      this.dropped += 1;
      return Promise.reject(new QueueFull("the queue is full, and too many calls wait for room: await each call"));
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ item, resolve, reject, until: performance.now() + overflowTimeoutMs });
      this.#waitingBytes += item.size;
      this.#watchOverflow();
    });
  }

  #watchOverflow() {
    if (this.#overflow !== null || this.#waiting.length === 0) return;
    const left = Math.max(0, this.#waiting[0].until - performance.now());
    this.#overflow = setTimeout(() => {
      this.#overflow = null;
      while (this.#waiting.length > 0 && this.#waiting[0].until <= performance.now()) {
        const [{ reject }] = this.#takeWaiting(1);
        this.dropped += 1;
        reject(new QueueFull(`the queue stayed full for ${this.#options.overflowTimeoutMs / 1000} s`));
      }
      this.#boundFlushes();
      this.#watchOverflow();
    }, left);
  }

  /** @param {number} count */
  #takeWaiting(count) {
    const taken = this.#waiting.splice(0, Math.min(count, this.#waiting.length));
    for (const { item } of taken) this.#waitingBytes -= item.size;
    return taken;
  }

  #admit() {
    while (this.#waiting.length > 0 && !this.#queue.isFull) {
      const [{ item, resolve }] = this.#takeWaiting(1);
      this.#enqueue(item);
      resolve();
    }
    if (this.#waiting.length === 0 && this.#overflow !== null) {
      clearTimeout(this.#overflow);
      this.#overflow = null;
    }
    this.#boundFlushes();
  }

  /** Chunks that merged or were dropped leave fewer events than a flush counted. */
  #boundFlushes() {
    const last = this.#queue.last + this.#waiting.length;
    for (const flush of this.#flushes) flush.position = Math.min(flush.position, last);
    const reached = this.#flushes.filter(({ position }) => position <= this.#queue.settled);
    this.#flushes = this.#flushes.filter(({ position }) => position > this.#queue.settled);
    for (const { resolve } of reached) resolve();
  }

  // --- batches ---

  /** @param {boolean} isUrgent whether it is more than a chunk of text, which may wait for others */
  #schedule(isUrgent) {
    if (this.#isSending || this.error !== null || !this.#queue.waits) return;
    const wait = isUrgent ? 0 : Math.max(0, this.#sentAt + this.#options.maxWaitMs - performance.now());
    if (this.#timer !== null) {
      if (wait > 0) return;
      clearTimeout(this.#timer);
    }
    this.#timer = setTimeout(() => {
      this.#timer = null;
      void this.#send();
    }, wait);
  }

  async #send() {
    this.#isSending = true;
    const batch = this.#queue.take(this.#options.maxBatchEvents, this.#options.maxBatchBytes);
    this.#sentAt = performance.now();
    try {
      await this.#deliver(batch);
      this.#settle(batch, null);
    } catch (error) {
      this.#refused(batch, /** @type {Error} */ (error));
    }
    this.#isSending = false;
    if (this.error === null)
      this.#schedule(this.#flushes.length > 0 || this.#waiting.length > 0 || this.#queue.isUrgent);
  }

  /** Have a batch in the log, after what the log has lost of those before. Raises a refusal. @param {Batch} batch */
  async #deliver(batch) {
    const due = [batch];
    while (due.length > 0) {
      const isAgain = due[0] !== batch;
      try {
        await this.#post(due[0], !isAgain);
        this.#sent.add(due[0]);
        due.shift();
      } catch (error) {
        if (isGap(error)) due.unshift(...this.#lost(due[0], error.body));
        else if (isAgain && due[0].items[0].isAlone && isOfOneEvent(/** @type {Error} */ (error))) due.shift();
        else throw error;
      }
    }
  }

  /** The batches that the log lacks before this one. If some are no longer held, the numbers go on without theirs; not
   * under another name, to which all usage so far would count anew.
   * @param {Batch} batch @param {{expected: number, forgotten?: boolean}} gap as the edge described it */
  #lost(batch, { expected, forgotten }) {
    const lost = forgotten ? [] : this.#sent.takeAfter(this.#before + expected - 1);
    const { first } = lost[0] ?? batch;
    if (first > this.#before + expected) this.#before = first - expected;
    return lost;
  }

  /** Send a batch until an edge has answered. Raises a refusal. @param {Batch} batch @param {boolean} mayCut */
  async #post(batch, mayCut) {
    let tries = 0;
    for (let failures = 0; !this.#stop.signal.aborted;) {
      const numbers = { "Producer-Id": this.#producer, "Producer-Seq": String(batch.first - this.#before) };
      const headers = { ...this.#headers, ...numbers, "Content-Type": NDJSON };
      try {
        return await this.#edge.request("POST", this.#path, { body: batch.body, headers, signal: this.#stop.signal });
      } catch (error) {
        if (error instanceof PayloadTooLarge && mayCut && this.#cut(batch, error, tries)) tries += 1;
        else if (!isTemporary(error)) throw error;
        else {
          const asked = Math.min(error.retryAfterMs ?? 0, RETRY_AFTER_MOST_MS);
          await pause(asked + backoffMs(failures, RETRY_FIRST_MS, RETRY_MOST_MS), this.#stop.signal);
          failures += 1;
        }
      }
    }
    throw new EventsLost(batch.items.length);
  }

  /** Make shorter what is too large for this edge. Nothing of the batch was stored, so it may change.
   * @param {Batch} batch @param {PayloadTooLarge} error @param {number} tries */
  #cut(batch, error, tries) {
    if (!(error.limit > 0) || tries >= MAX_CUTS) return false;
    /** @type {Item[]} */
    const items = [];
    for (const item of batch.items) {
      const shorter = this.shorten(item.spoken, error.limit, tries);
      if (shorter === null) return false;
      const last = shorter.length - 1;
      shorter.forEach((spoken, at) => items.push({ ...item, spoken, settled: at === last ? item.settled : undefined }));
    }
    for (const flush of this.#flushes) flush.position += items.length - batch.items.length;
    batch.items = items;
    batch.body = items.map(({ spoken }) => JSON.stringify(spoken)).join("\n");
    return true;
  }

  /** @param {Batch} batch @param {Error | null} error of this batch's only event */
  #settle(batch, error) {
    this.#queue.done(batch, error === null ? undefined : 0);
    if (error === null) this.heardAt = performance.now();
    for (const { settled } of batch.items) settled?.(error);
    if (error !== null) for (const flush of this.#flushes) flush.position -= 1;
    this.#admit();
    this.onSent();
  }

  /** @param {Batch} batch @param {Error} error */
  #refused(batch, error) {
    const [only] = batch.items;
    if (only.isAlone && only.settled !== undefined && isOfOneEvent(error)) return this.#settle(batch, error);
    this.#queue.done(batch, 0);
    if (this.error === null && !this.#stop.signal.aborted) {
      this.#stop.abort();
      this.#fail(error, true);
    }
    for (const { settled } of batch.items) settled?.(this.error ?? error);
  }

  /** @param {Error} error @param {boolean} isRefusal */
  #fail(error, isRefusal) {
    this.error ??= error;
    if (this.#timer !== null) clearTimeout(this.#timer);
    if (this.#overflow !== null) clearTimeout(this.#overflow);
    this.#timer = this.#overflow = null;
    const flushes = this.#flushes;
    this.#flushes = [];
    for (const { reject } of flushes) reject(error);
    for (const { reject } of this.#takeWaiting(Infinity)) reject(error);
    for (const { settled } of this.#queue.clear()) settled?.(error);
    if (isRefusal) this.onRefused(error);
  }
}

/** Whether the log lacks events before the batch.
 * @param {unknown} error @returns {error is Conflict & {body: {expected: number, forgotten?: boolean}}} */
function isGap(error) {
  return error instanceof Conflict && error.type.endsWith(":producer-gap") && error.body.expected > 0;
}

/** Whether a refusal concerns the event, and not the whole log. @param {Error} error */
function isOfOneEvent(error) {
  const status = /** @type {{status?: number}} */ (error).status ?? 0;
  const isOfLog = error instanceof ExecutionEnded || [401, 404].includes(status);
  return !isOfLog && !(error instanceof Superseded) && status !== 0;
}

/** @template {object} T @param {T} options @returns {Partial<T>} */
function definedOf(options) {
  return /** @type {Partial<T>} */ (
    Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined))
  );
}
