/** A job that a worker has: what others do to it, as renewals tell. */
import { backoffMs, pause } from "./backoff.js";
import { Cancelled, RuncastError, isTemporary } from "./errors.js";

/**
 * @import { Heard, JobHold } from "./log-watch.js"
 *
 * @typedef {object} Renewing
 * @property {() => void} changed there is one more question to renew with, or one less
 * @property {(job: HeldJob) => Promise<boolean>} renew at once
 */

const RETRY_FIRST_MS = 200;
const RETRY_MOST_MS = 5_000;

/** Why a job is interrupted, and not by a person: by its limit, the end of its worker, or another worker. */
export class Cut extends RuncastError {
  /** @param {"limit" | "stopping" | "lost"} kind @param {string} message */
  constructor(kind, message) {
    super(message);
    this.name = "AbortError";
    this.kind = kind;
  }
}

/** @typedef {{kind: "cancel" | "limit" | "stopping" | "lost", message: string, reason: string | null}} Cause */

export class HeldJob {
  #renewing;
  #abort = new AbortController();
  /** How many calls wait for the answer to each question. @type {Map<string, number>} */
  #waitingFor = new Map();
  /** @type {(event: Heard) => void} */
  #onEvent = () => {};
  /** @type {Cause | null} */
  cause = null;

  /** @param {any} claimed as the edge described it @param {Renewing} renewing */
  constructor(claimed, renewing) {
    this.#renewing = renewing;
    this.ref = { executionId: claimed.executionId, attempt: claimed.attempt, fence: claimed.fence };
    /** @type {string} */
    this.executionId = claimed.executionId;
    /** @type {number} */
    this.attempt = claimed.attempt;
    /** @type {string} */
    this.agent = claimed.agent;
    /** @type {string} */
    this.task = claimed.task;
    /** @type {Record<string, any>} */
    this.params = claimed.params ?? {};
    /** @type {Record<string, any>} */
    this.metadata = claimed.metadata ?? {};
    /** @type {string | null} */
    this.conversationId = claimed.conversationId ?? null;
    /** @type {string | undefined} */
    this.requestId = claimed.requestId ?? undefined;
    /** @type {{user: string, org: string}} */
    this.owner = claimed.owner;
    /** @type {number} */
    this.leaseSeconds = claimed.leaseSeconds;
    /** @type {number | null} */
    this.timeLimit = claimed.limits?.timeLimit ?? null;
    /** @type {number} */
    this.failed = claimed.failed ?? 0;
  }

  /** What its emitter gets. @returns {JobHold} */
  get hold() {
    return {
      attempt: this.attempt,
      fence: this.ref.fence,
      signal: this.#abort.signal,
      watch: (onEvent) => {
        this.#onEvent = onEvent;
        return this;
      },
    };
  }

  get heldRef() {
    return { ...this.ref, waitingFor: [...this.#waitingFor.keys()].slice(0, 100) };
  }

  /** Whether it waits for a person. */
  get isWaiting() {
    return this.#waitingFor.size > 0;
  }

  /** Interrupt the agent. @param {Cut} cut */
  cut(cut) {
    this.#interrupt({ kind: cut.kind, message: cut.message, reason: null }, cut);
  }

  /** What the edge says of it; whether that is news. @param {any} found */
  renewed({ state, cancel, why, answers = [] }) {
    for (const { inputId, by, value, declined } of answers)
      this.#onEvent({ type: "input:received", data: { inputId, by, value, declined } });
    if (state === "lost") this.cut(new Cut("lost", `the job is no longer this worker's: ${why ?? "lost"}`));
    if (state === "cancel") {
      const cancelled = new Cancelled(cancel?.reason ?? null, cancel?.by ?? null);
      this.#interrupt({ kind: "cancel", message: cancelled.message, reason: cancelled.reason }, cancelled);
    }
    return state !== "held" || answers.length > 0;
  }

  /** @param {Cause} cause @param {Error} reason */
  #interrupt(cause, reason) {
    if (this.cause === null || cause.kind === "lost") this.cause = cause;
    if (!this.#abort.signal.aborted) this.#abort.abort(reason);
  }

  // --- instead of reading the execution's stream ---

  begin() {}

  close() {
    this.#waitingFor.clear();
  }

  /** @param {string} [inputId] whose answer somebody waits for */
  need(inputId = "") {
    this.#waitingFor.set(inputId, (this.#waitingFor.get(inputId) ?? 0) + 1);
    this.#renewing.changed();
    let isDone = false;
    return () => {
      if (isDone) return;
      isDone = true;
      const left = (this.#waitingFor.get(inputId) ?? 1) - 1;
      if (left > 0) this.#waitingFor.set(inputId, left);
      else this.#waitingFor.delete(inputId);
      this.#renewing.changed();
    };
  }

  /** Wait until an earlier answer would be known, for as long as edges are away. */
  async live() {
    for (let failures = 0; !this.#abort.signal.aborted; failures += 1) {
      try {
        return void (await this.#renewing.renew(this));
      } catch (error) {
        if (!isTemporary(error)) throw error;
        await pause(backoffMs(failures, RETRY_FIRST_MS, RETRY_MOST_MS), this.#abort.signal);
      }
    }
  }
}
