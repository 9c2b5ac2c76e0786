/** `AgentEmitter`: what an agent calls to publish its events, over HTTP. */
import { unref } from "./backoff.js";
import { TERMINAL_STATE_OF } from "./catalogue.js";
import { Edge } from "./edge.js";
import { Encoder } from "./encoder.js";
import {
  Cancelled,
  EdgeUnavailable,
  EmitterClosed,
  EventsLost,
  ExecutionEnded,
  Forbidden,
  InvalidEvent,
} from "./errors.js";
import { EventMethods } from "./event-methods.js";
import { newExecutionId } from "./ids.js";
import { takeMessages } from "./inbox.js";
import { Inputs } from "./inputs.js";
import { LogWatch } from "./log-watch.js";
import { Outbox } from "./outbox.js";
import { Questions } from "./questions.js";

/**
 * @import { EdgeOptions } from "./edge.js"
 * @import { EncoderOptions } from "./encoder.js"
 * @import { Speaker } from "./event-methods.js"
 * @import { UserMessage } from "./inbox.js"
 * @import { AskOptions, InputKind } from "./inputs.js"
 * @import { Heard, JobHold, Watch } from "./log-watch.js"
 * @import { OutboxOptions } from "./outbox.js"
 * @import { Item } from "./queue.js"
 *
 * @typedef {object} OwnOptions
 * @property {string} [executionId] 1 to 64 of A-Z a-z 0-9 _ -; a new one by default
 * @property {number} [renewSeconds] how often a silent run says that it is alive: at most a third of the edges'
 *   `RUNCAST_UNHELD_LEASE_SECONDS`. 0: never
 * @property {number} [flushTimeoutMs] bound of `flush` and of terminal events
 * @property {number} [closeTimeoutMs]
 * @property {(error: Error) => void} [onError] called once, when the log refuses more events
 * @property {JobHold} [job] of a worker's attempt
 *
 * @typedef {EdgeOptions & EncoderOptions & OutboxOptions & OwnOptions} EmitterOptions
 */

const EXECUTION_ID = /^[A-Za-z0-9_-]{1,64}$/;
const FLUSH_MS = 30_000;
const CLOSE_MS = 10_000;
const RENEW_SECONDS = 5;
const DONE = Promise.resolve();

/**
 * Publishes the events of one execution. Close it, end the execution, or use `run` or `await using`.
 *
 * `await emitter.thinking({ thought })` resolves as soon as the event is queued; the queue travels in batches, in order,
 * and each event is in the log exactly once. Terminal events and `flush` resolve when the log has everything. A refusal
 * of the log (`ExecutionEnded`, `Superseded`, `Unauthorized`, …) is raised by the next call.
 */
export class AgentEmitter extends EventMethods {
  #outbox;
  /** @type {Watch} */
  #watch;
  #edge;
  #options;
  #encoder;
  /** Headers of a worker's attempt. @type {Record<string, string>} */
  #attempt;
  #inputs = new Inputs();
  #abort = new AbortController();
  /** @type {(() => void) | null} */
  #signalNeed = null;
  /** Aborted when nothing more can come from others. */
  #over = new AbortController();
  /** The state that a terminal event of this emitter left. @type {string | null} */
  #end = null;
  #isClosed = false;
  /** @type {ReturnType<typeof setInterval> | null} */
  #renewal = null;
  #questions = new Questions();

  /** @param {EmitterOptions} options */
  constructor(options) {
    super();
    const { executionId = newExecutionId(), job } = options;
    if (!EXECUTION_ID.test(executionId))
      throw new InvalidEvent(`executionId: ${JSON.stringify(executionId)} is not 1 to 64 of A-Z a-z 0-9 _ -`);
    this.executionId = executionId;
    this.#options = options;
    this.#encoder = new Encoder(options);
    this.#edge = new Edge(options);
    this.#attempt = job === undefined ? {} : { Attempt: String(job.attempt), Fence: String(job.fence) };
    this.attempt = job?.attempt ?? 1;
    this.#outbox = new Outbox(this.#edge, executionId, this.#attempt, options);
    this.#outbox.onRefused = (error) => this.#refused(error);
    this.#outbox.onSent = () => this.#sent();
    this.#outbox.shorten = (spoken, limit, tries) => this.#encoder.shorten(spoken, limit, tries);
    const heard = (/** @type {Heard} */ event) => this.#heard(event);
    this.#watch = job?.watch(heard) ?? new LogWatch(this.#edge, executionId, heard);
    if (job !== undefined) {
      this.#watch.begin();
      this.#follow(job.signal);
    }
  }

  // --- state ---

  /** Why the log takes no more events; null as long as it does. */
  get error() {
    return this.#outbox.error;
  }

  /** Whether this emitter has ended the execution. */
  get ended() {
    return this.#end !== null;
  }

  /** Aborted when the execution is cancelled, ended or taken over elsewhere: give it to `fetch`, and to model SDKs. From
   * its first use on, the execution's stream is read (scope `executions:read`); without that, a cancel is noticed at the
   * next event or renewal. */
  get signal() {
    if (this.#options.job === undefined && !this.#isOver) this.#signalNeed ??= this.#watch.need();
    return this.#abort.signal;
  }

  /** Whether the execution must stop. */
  get cancelled() {
    return this.#abort.signal.aborted;
  }

  get #isOver() {
    return this.#end !== null || this.#isClosed || this.error !== null;
  }

  // --- events ---

  /** Queue an event of the catalogue, or `custom:<name>`. What the catalogue does not allow is mended, what is too long
   * is cut, with a mark. Waits only while the queue is full.
   * @override @param {string} type @param {object} data @param {Speaker} [speaker] @returns {Promise<void>} */
  emit(type, data, speaker) {
    if (type in TERMINAL_STATE_OF) return this._terminal(type, data);
    return handled(() => {
      this.#check();
      if (type === "input:required") return this.#require(data, speaker);
      return this.#putAll(this.#encoder.items(type, data, speaker));
    });
  }

  /** Wait until everything emitted so far is in the log. Raises `EdgeUnavailable` after `timeoutMs`; what is queued is
   * still sent. @param {number} [timeoutMs] */
  flush(timeoutMs = this.#options.flushTimeoutMs ?? FLUSH_MS) {
    return handled(async () => {
      this.#putHalves();
      await this.#outbox.flush(timeoutMs);
    });
  }

  /** Flush and close. An execution that was not ended goes on, until its lease is over. Raises `EventsLost` with the
   * number of events that were not confirmed in time. Repeating this has no effect. @param {number} [timeoutMs] */
  async close(timeoutMs = this.#options.closeTimeoutMs ?? CLOSE_MS) {
    if (this.#isClosed) return;
    if (this.error === null) this.#putHalves();
    this.#isClosed = true;
    try {
      await this.#outbox.close(timeoutMs);
    } finally {
      this.#release();
    }
  }

  /** `await using emitter = new AgentEmitter(…)` closes it at the end of the block. */
  async [Symbol.asyncDispose]() {
    await this.close();
  }

  /**
   * An execution from its start to its end: `execution:started`, then what the function returns as the result, or its
   * error, or `execution:cancelled` where `signal` was aborted. Closes the emitter, and raises what the function raises.
   *
   * @template T
   * @param {string} task
   * @param {(emitter: this) => T | PromiseLike<T>} fn
   * @returns {Promise<Awaited<T>>}
   */
  async run(task, fn) {
    try {
      await this.executionStarted({ task });
      const result = await fn(this);
      if (this.#end === null) await this.executionComplete({ result });
      return result;
    } catch (error) {
      await this.#endAfter(error);
      throw error;
    } finally {
      await this.close().catch(() => {}); // the loss was raised by the terminal event
    }
  }

  /** @param {unknown} error */
  async #endAfter(error) {
    if (this.#isOver) return;
    const cancel = this.#abort.signal.reason;
    const ended = this.cancelled
      ? this.executionCancelled(cancel instanceof Cancelled && cancel.reason ? { reason: cancel.reason } : {})
      : this.executionError({ error });
    await ended.catch(() => {}); // the function's own error is raised
  }

  // --- people ---

  /**
   * Ask a person, and wait for the answer: true or false of an `approval`, one of the `options` of a `choice`, a text
   * (any JSON if `schema` is `{}`), or an object that fits the `schema` of a `form`. The first answer counts. A later
   * attempt that asks the same gets the earlier answer. Needs the scope `executions:read`.
   *
   * Raises `InputExpired` if nobody answers within `expiresIn` seconds, `Declined` if the person does not want to (an
   * approval is false then), `TooManyInputs` if too many are open, and the reason of `signal` or of `emitter.signal`
   * once that is aborted.
   *
   * @template {InputKind} [K="approval"]
   * @param {string} prompt
   * @param {AskOptions & {kind?: K}} [options]
   * @returns {Promise<K extends "approval" ? boolean : K extends "choice" ? string : K extends "form" ? Record<string, any> : any>}
   */
  async ask(prompt, { kind, ...options } = {}) {
    this.#check();
    const request = await this.#inputs.make(prompt, /** @type {InputKind} */ (kind ?? "approval"), options);
    const done = this.#watch.need(request.inputId);
    const wait = this.#questions.wait(request.inputId, request.expiresAt, options.signal);
    if (this.cancelled) this.#questions.fail(this.#abort.signal.reason);
    try {
      await Promise.race([this.#flushed(), wait.over]); // before its first event the execution is unknown
      await Promise.race([this.#watch.live(), wait.over]); // the answers that an earlier attempt got
      if (!this.#questions.has(request.inputId)) {
        await Promise.race([this.#require(request), wait.over]);
        await wait.over;
      }
      return this.#questions.value(request.inputId, request.kind);
    } finally {
      wait.end();
      done();
    }
  }

  /**
   * What people say to the running agent, in order, each message once per attempt: `for await (const { text } of
   * emitter.messages())`. From the first call on the execution takes messages. Ends with the execution.
   *
   * @returns {AsyncGenerator<UserMessage, void>}
   */
  async *messages() {
    this.#check();
    await this.#flushed(); // before its first event the execution is unknown
    for (;;) {
      const taken = await takeMessages(this.#edge, this.executionId, this.#attempt, this.#over.signal);
      if (taken === null) return;
      yield* taken;
    }
  }

  /** Wait, for as long as edges are away, until the log has what was emitted so far. */
  async #flushed() {
    while (!this.#isOver) {
      try {
        return await this.flush();
      } catch (error) {
        if (!(error instanceof EdgeUnavailable)) throw error;
      }
    }
  }

  /** Ask without waiting for an answer: resolves when the log has the question. @param {any} data
   * @param {Speaker} [speaker] @returns {Promise<void>} */
  #require(data, speaker) {
    const item = this.#encoder.item("input:required", data, speaker);
    return new Promise((resolve, reject) => {
      item.isAlone = true;
      item.settled = (error) => (error === null ? resolve() : reject(error));
      this.#put(item)?.catch(reject);
    });
  }

  /** @param {Item} item @returns {Promise<void> | null} */
  #put(item) {
    const { dropped } = this.#outbox;
    if (dropped > 0 && this.#outbox.isRoomy) {
      this.#outbox.dropped = 0;
      const message = `${dropped} events were dropped: the queue was full`;
      this.#outbox.put(this.#encoder.item("status", { status: "dropped", message }));
    }
    return this.#outbox.put(item);
  }

  /** The parts of one event; it waits for room for the last. @param {Item[]} items @returns {Promise<void> | null} */
  #putAll(items) {
    let last = null;
    for (const item of items) {
      last?.catch(() => {});
      last = this.#put(item);
    }
    return last;
  }

  #putHalves() {
    this.#putAll(this.#encoder.halves())?.catch(() => {});
  }

  // --- the end ---

  /** @override @param {string} type @param {object} data @returns {Promise<void>} */
  _terminal(type, data) {
    return handled(async () => {
      if (type === "execution:cancelled" && this.#wasCancelled()) return;
      this.#check();
      const item = this.#encoder.item(type, data);
      this.#putHalves();
      void this.endText(); // where the queue is full it waits, and goes before the last event all the same
      this.#end = TERMINAL_STATE_OF[type];
      try {
        await this.#last(item);
      } catch (error) {
        if (type !== "execution:cancelled" || !this.#wasCancelled()) throw error;
      }
      this.#release();
    });
  }

  /** @param {Item} item */
  async #last(item) {
    const isCancel = item.spoken.type === "execution:cancelled";
    /** @type {Error | null} */
    let refusal = null;
    if (isCancel) {
      item.isAlone = true;
      item.settled = (error) => (refusal = error);
    }
    this.#outbox.putLast(item);
    await this.#outbox.flush(this.#options.flushTimeoutMs ?? FLUSH_MS);
    if (refusal === null) return;
    // To cancel needs the scope `executions:write`; the last word must be said all the same.
    if (!(/** @type {Error} */ (refusal) instanceof Forbidden)) throw refusal;
    const { reason = "cancelled" } = item.spoken.data;
    this.#end = "failed";
    this.#outbox.putLast(this.#encoder.item("execution:error", { error: reason, code: "cancelled" }));
    await this.#outbox.flush(this.#options.flushTimeoutMs ?? FLUSH_MS);
  }

  #wasCancelled() {
    return this.error instanceof ExecutionEnded && this.error.state === "cancelled";
  }

  #check() {
    if (this.#end !== null)
      throw new ExecutionEnded(`execution ${this.executionId}: already ${this.#end}`, { body: { state: this.#end } });
    if (this.error !== null && !(this.error instanceof EventsLost)) throw this.error;
    if (this.#isClosed) throw new EmitterClosed(`the emitter of execution ${this.executionId} is closed`);
  }

  /** Nothing is read, renewed or waited for any more. */
  #release() {
    if (this.#renewal !== null) clearInterval(this.#renewal);
    this.#renewal = null;
    this.#over.abort();
    this.#watch.close();
    const over = this.error ?? new EmitterClosed(`the emitter of execution ${this.executionId} is closed`);
    this.#questions.fail(over);
  }

  // --- what others say ---

  /** The log took events. */
  #sent() {
    if (this.#outbox.settled > 0) this.#watch.begin();
    if (this.#renewal !== null || this.#isOver || this.#options.job !== undefined) return;
    const seconds = this.#options.renewSeconds ?? RENEW_SECONDS;
    if (seconds === 0) return;
    const renew = () => {
      if (!this.#isOver && performance.now() - this.#outbox.heardAt >= seconds * 900) void this.#outbox.renew();
    };
    this.#renewal = setInterval(renew, seconds * 1000);
    unref(this.#renewal);
  }

  /** @param {Heard} event of the log */
  #heard({ type, data }) {
    if (type === "input:received") this.#questions.heard(data);
    else if (type === "execution:superseded" && data.attempt > this.attempt && this.#options.job !== undefined)
      this.#stop(new Cancelled(`attempt ${data.attempt} has taken over`));
    else if (type in TERMINAL_STATE_OF && this.#end === null) this.#endedElsewhere(TERMINAL_STATE_OF[type], data);
  }

  /** @param {string} state @param {Record<string, any>} data of the terminal event */
  #endedElsewhere(state, data) {
    this.#stop(
      state === "cancelled"
        ? new Cancelled(data.reason ?? null, data.by ?? null)
        : new Cancelled(`the execution is already ${state}`),
    );
    this.#outbox.refuse(
      new ExecutionEnded(`execution ${this.executionId}: already ${state}; its log is closed`, {
        status: 409,
        body: { state },
      }),
    );
  }

  /** @param {Error} error */
  #refused(error) {
    this.#stop(error instanceof ExecutionEnded && error.state === "cancelled" ? new Cancelled() : error);
    this.#release();
    try {
      this.#options.onError?.(error);
    } catch (failure) {
      queueMicrotask(() => {
        throw failure;
      });
    }
  }

  /** @param {Error} reason */
  #stop(reason) {
    if (!this.#abort.signal.aborted) this.#abort.abort(reason);
    this.#questions.fail(reason);
  }

  /** @param {AbortSignal} signal of the worker */
  #follow(signal) {
    const stop = () => this.#stop(signal.reason instanceof Error ? signal.reason : new Cancelled());
    if (signal.aborted) stop();
    else signal.addEventListener("abort", stop, { once: true });
  }
}

/** The name that some know. */
export { AgentEmitter as AgentSSEEmitter };

/** Call a function. Its failure is the promise's; a promise that nobody awaits raises nothing.
 * @param {() => Promise<void> | null} fn @returns {Promise<void>} */
function handled(fn) {
  try {
    const promise = fn() ?? DONE;
    if (promise !== DONE) promise.catch(() => {});
    return promise;
  } catch (error) {
    const failed = Promise.reject(error);
    failed.catch(() => {});
    return failed;
  }
}
