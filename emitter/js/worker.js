/**
 * A worker: runs the agents that others start (the console, a chat, A2A, a schedule), with jobs over HTTP.
 *
 * It needs a token with the scope `jobs:run`, and publishes for whoever started the execution. The edges decide, as for
 * workers in Python: leases, attempts, cancels and limits are in the execution's record.
 */
import { AgentEmitter } from "./agent-emitter.js";
import { backoffMs, pause, unref } from "./backoff.js";
import { Edge } from "./edge.js";
import { RuncastError, describe, isTemporary } from "./errors.js";
import { Cut, HeldJob } from "./held-job.js";
import { randomHex } from "./ids.js";

/**
 * @import { EdgeOptions } from "./edge.js"
 *
 * @typedef {object} Context what an agent gets
 * @property {AgentEmitter} emitter which the worker has started, and ends with what the agent returns or raises
 * @property {string} task
 * @property {Record<string, any>} params
 * @property {Record<string, any>} metadata
 * @property {AbortSignal} signal aborted by a cancel, a limit, the end of the worker, or when another worker has the job
 * @property {AgentEmitter["ask"]} ask asks a person; it holds no place of the worker while it waits
 * @property {string} executionId
 * @property {string | null} conversationId
 * @property {number} attempt from 1
 * @property {number} failed how many attempts before this one have failed
 * @property {{user: string, org: string}} owner whose execution it is
 *
 * @typedef {(context: Context) => unknown} AgentFunction what it returns is the execution's result
 *
 * @typedef {object} AgentOptions
 * @property {AgentFunction} run
 * @property {string} [description]
 * @property {readonly string[]} [tags]
 * @property {Record<string, unknown>} [inputSchema] a JSON Schema of `params`
 * @property {readonly string[]} [inputModes] media types
 * @property {readonly string[]} [outputModes]
 * @property {number} [maxAttempts] 3 by default: lost workers, and failures that are tried again
 * @property {number} [timeLimit] of an attempt, seconds
 * @property {number} [idleLimit] without an event, seconds; waits for people excluded
 * @property {boolean} [acceptsMessages] whether people may talk to it while it runs: it reads `emitter.messages()`
 * @property {(error: unknown) => boolean} [retryOn] which errors are tried again; by default those of connections,
 *   timeouts and busy servers
 *
 * @typedef {object} OwnOptions
 * @property {Record<string, AgentFunction | AgentOptions>} agents by name: 1 to 64 of a-z 0-9 _ . -
 * @property {number} [concurrency] how many jobs it runs at a time; those that wait for a person do not count
 * @property {string} [name] of this process, unique among those with this token
 * @property {number} [graceSeconds] how long `stop` lets running jobs finish, before they go to other workers
 * @property {(error: unknown, job: {executionId: string, agent: string, attempt: number} | null) => void} [onError] told
 *   of agents that failed, and of edges that cannot be reached
 *
 * @typedef {Omit<EdgeOptions, "userId" | "org"> & OwnOptions} WorkerOptions
 */

const CLAIM_SECONDS = 20;
const LATE_MS = 10_000;
const RETRY_FIRST_MS = 200;
const RETRY_MOST_MS = 5_000;
const [MAX_CLAIM, MAX_HELD] = [100, 1000]; // of which one request may tell, those that wait for people included
const GRACE_SECONDS = 20;
/** The edge ends a job that does not follow a cancel within 10 s, or a limit within 1 s. */
const CANCEL_MS = 8_000;
const LIMIT_MS = 500;
const MAX_ERROR = 2000;
/** How long an end may wait for an edge. */
const AWAY_MS = 600_000;
const BUSY = new Set([408, 425, 429, 500, 502, 503, 504, 529]);
const BROKEN = new Set([
  "ECONNRESET",
  "ECONNREFUSED",
  "ETIMEDOUT",
  "EPIPE",
  "EAI_AGAIN",
  "ENOTFOUND",
  "UND_ERR_SOCKET",
  "UND_ERR_CONNECT_TIMEOUT",
]);

/** Raised by an agent: try again, after so many seconds (absent: the usual pause), if attempts are left. */
export class Retry extends Error {
  /** @param {string} [message] @param {{after?: number, cause?: unknown}} [options] */
  constructor(message = "", { after, cause } = {}) {
    super(message, { cause });
    this.name = "Retry";
    this.after = after;
  }
}

/** Raised by an agent: do not try again. */
export class Fatal extends Error {
  /** @param {string} [message] @param {{cause?: unknown}} [options] */
  constructor(message = "", { cause } = {}) {
    super(message, { cause });
    this.name = "Fatal";
  }
}

/** A worker for these agents; `run` starts it. @param {WorkerOptions} options */
export function createWorker(options) {
  return new Worker(options);
}

export class Worker {
  #options;
  #edge;
  /** @type {Map<string, AgentOptions>} */
  #agents;
  #concurrency;
  /** @type {Set<HeldJob>} */
  #jobs = new Set();
  /** @type {Set<Promise<void>>} */
  #runs = new Set();
  #stop = new AbortController();
  /** Ends a wait for a free place, or for something to renew. @type {Set<() => void>} */
  #wakes = new Set();
  /** Aborts the renewal on its way, which does not know of the latest job or question. */
  #renewal = new AbortController();
  /** @type {Promise<void> | null} */
  #running = null;

  /** @param {WorkerOptions} options */
  constructor(options) {
    const { agents, concurrency = 10, name = `js-${randomHex(8)}` } = options;
    this.#options = options;
    this.#edge = new Edge({ ...options, userId: undefined, org: undefined });
    this.#agents = new Map(
      Object.entries(agents).map(([each, agent]) => [each, typeof agent === "function" ? { run: agent } : agent]),
    );
    if (this.#agents.size === 0) throw new TypeError("agents: a worker has at least one");
    if (!(concurrency >= 1)) throw new TypeError(`concurrency: ${concurrency} is not a number from 1`);
    this.#concurrency = Math.floor(concurrency);
    this.name = name;
  }

  /** How many jobs it has. */
  get running() {
    return this.#jobs.size;
  }

  /** Claim and run jobs until `stop`, or until the edges refuse this worker: then it raises why. */
  run() {
    return (this.#running ??= this.#run());
  }

  /** Claim no more. Running jobs may finish for `graceSeconds`, and then go to other workers. Resolves when all is done.
   * @param {{graceSeconds?: number}} [options] */
  async stop({ graceSeconds = this.#options.graceSeconds ?? GRACE_SECONDS } = {}) {
    this.#stop.abort();
    this.#wake();
    const grace = new AbortController();
    const ended = Promise.allSettled([...this.#runs]).then(() => grace.abort());
    await pause(graceSeconds * 1000, grace.signal);
    for (const job of this.#jobs) job.cut(new Cut("stopping", "the worker stops"));
    await ended;
    await this.#running?.catch(() => {}); // `run` raises it
  }

  async #run() {
    const renewing = this.#renewAll();
    try {
      await this.#claimAll();
      await Promise.allSettled([...this.#runs]);
    } finally {
      this.#stop.abort();
      this.#wake();
      this.#renewal.abort();
      await renewing;
    }
  }

  // --- claims ---

  async #claimAll() {
    const { signal } = this.#stop;
    for (let failures = 0; !signal.aborted;) {
      const free = Math.min(this.#concurrency - this.#busy, MAX_HELD - this.#jobs.size);
      if (free <= 0) {
        await this.#change();
        continue;
      }
      try {
        const body = {
          agents: this.#announced(),
          worker: this.name,
          max: Math.min(free, MAX_CLAIM),
          waitSeconds: CLAIM_SECONDS,
          running: [...this.#jobs].map((job) => job.ref),
          concurrency: this.#concurrency,
        };
        const answer = await this.#ask("claim", body, CLAIM_SECONDS * 1000, signal);
        failures = 0;
        for (const job of answer?.jobs ?? []) this.#start(job);
      } catch (error) {
        if (signal.aborted) return;
        if (!isTemporary(error)) throw error;
        this.#tell(error, null);
        await pause((error.retryAfterMs ?? 0) + backoffMs(failures, RETRY_FIRST_MS, RETRY_MOST_MS), signal);
        failures += 1;
      }
    }
  }

  /** Jobs that hold a place: not those that wait for a person. */
  get #busy() {
    return [...this.#jobs].filter((job) => !job.isWaiting).length;
  }

  #announced() {
    return [...this.#agents].map(([name, { run: _, retryOn: __, ...described }]) => ({ name, ...described }));
  }

  /** @param {"claim" | "renew" | "release"} step @param {object} body @param {number} waitMs @param {AbortSignal} [signal] */
  #ask(step, body, waitMs, signal) {
    const headers = { "Content-Type": "application/json" };
    return this.#edge.request("POST", `/api/agent/jobs/${step}`, {
      body: JSON.stringify(body),
      headers,
      signal,
      timeoutMs: waitMs + LATE_MS,
    });
  }

  /** @param {any} claimed */
  #start(claimed) {
    const job = new HeldJob(claimed, {
      changed: () => this.#renewNow(),
      renew: (one) => this.#renew([one], 0),
    });
    this.#jobs.add(job);
    this.#renewNow();
    const run = this.#runJob(job).finally(() => {
      this.#jobs.delete(job);
      this.#runs.delete(run);
      this.#wake();
    });
    this.#runs.add(run);
  }

  // --- renewals ---

  async #renewAll() {
    for (let failures = 0; !this.#stop.signal.aborted || this.#jobs.size > 0;) {
      if (this.#jobs.size === 0) {
        await this.#change();
        continue;
      }
      const { signal } = (this.#renewal = new AbortController());
      const jobs = [...this.#jobs];
      const seconds = Math.min(...jobs.map(({ leaseSeconds }) => leaseSeconds)) / 3;
      try {
        const hasNews = await this.#renew(jobs, seconds, signal);
        failures = 0;
        // A cancel is told again and again until its job has ended.
        if (hasNews) await pause(Math.min(1000, seconds * 500), signal);
      } catch (error) {
        if (signal.aborted) continue;
        this.#tell(error, null);
        const most = Math.min(RETRY_MOST_MS, seconds * 1000);
        await pause(backoffMs(failures, RETRY_FIRST_MS, most), this.#renewal.signal);
        failures += 1;
      }
    }
  }

  /** Renew these jobs; whether there is news of one. @param {HeldJob[]} jobs @param {number} waitSeconds
   * @param {AbortSignal} [signal] */
  async #renew(jobs, waitSeconds, signal) {
    const body = { worker: this.name, jobs: jobs.map((job) => job.heldRef), waitSeconds };
    const answer = await this.#ask("renew", body, waitSeconds * 1000, signal);
    let hasNews = false;
    (answer?.jobs ?? []).forEach((/** @type {any} */ renewed, /** @type {number} */ at) => {
      hasNews = jobs[at]?.renewed(renewed) || hasNews;
    });
    return hasNews;
  }

  /** The renewal on its way does not know of a change: make another. */
  #renewNow() {
    this.#renewal.abort();
    this.#wake();
  }

  #wake() {
    const wakes = [...this.#wakes];
    this.#wakes.clear();
    for (const wake of wakes) wake();
  }

  /** Wait for a change of the jobs. @returns {Promise<void>} */
  #change() {
    return new Promise((resolve) => this.#wakes.add(resolve));
  }

  // --- one job ---

  /** @param {HeldJob} job */
  async #runJob(job) {
    const agent = /** @type {AgentOptions} */ (this.#agents.get(job.agent));
    const { url, token, fetch, requestTimeoutMs } = this.#options;
    const emitter = new AgentEmitter({
      url,
      token,
      fetch,
      requestTimeoutMs,
      executionId: job.executionId,
      requestId: job.requestId,
      job: job.hold,
    });
    const limit =
      job.timeLimit === null
        ? null
        : setTimeout(
            () => job.cut(new Cut("limit", `over its time limit of ${job.timeLimit} s`)),
            job.timeLimit * 1000,
          );
    try {
      emitter.executionStarted({ task: job.task });
      const outcome = await this.#outcome(job, agent, emitter);
      await this.#end(job, emitter, outcome, agent);
    } catch (error) {
      this.#tell(error, job);
    } finally {
      if (limit !== null) clearTimeout(limit);
      await emitter.close().catch(() => {});
    }
  }

  /** What the agent returned or raised. After it was interrupted it has some time to stop. @param {HeldJob} job
   * @param {AgentOptions} agent @param {AgentEmitter} emitter @returns {Promise<{result?: unknown, error?: unknown}>} */
  async #outcome(job, agent, emitter) {
    const { hold, task, params, metadata, executionId, conversationId, attempt, failed, owner } = job;
    /** @type {Context} */
    const context = {
      emitter,
      task,
      params,
      metadata,
      executionId,
      conversationId,
      attempt,
      failed,
      owner,
      signal: emitter.signal,
      ask: emitter.ask.bind(emitter),
    };
    const ran = (async () => agent.run(context))().then(
      (result) => ({ result }),
      (error) => ({ error }),
    );
    const interrupted = new Promise((resolve) => {
      const late = () => {
        const graceMs = { cancel: CANCEL_MS, limit: LIMIT_MS }[/** @type {string} */ (job.cause?.kind)] ?? 0;
        unref(setTimeout(resolve, graceMs, { error: hold.signal.reason }));
      };
      if (hold.signal.aborted) late();
      else hold.signal.addEventListener("abort", late, { once: true });
    });
    return /** @type {any} */ (await Promise.race([ran, interrupted]));
  }

  /** @param {HeldJob} job @param {AgentEmitter} emitter @param {{result?: unknown, error?: unknown}} outcome
   * @param {AgentOptions} agent */
  async #end(job, emitter, outcome, agent) {
    const { cause } = job;
    if (cause?.kind === "lost" || emitter.ended) return;
    if (cause?.kind === "stopping") return void (await this.#release(job));
    if (cause?.kind === "cancel")
      return await this.#say(job, emitter, () =>
        emitter.executionCancelled(cause.reason ? { reason: cause.reason } : {}),
      );
    if (cause?.kind === "limit")
      return await this.#say(job, emitter, () => emitter.executionError({ error: cause.message, code: "timeout" }));
    if (!("error" in outcome))
      return await this.#say(job, emitter, () => emitter.executionComplete({ result: outcome.result ?? null }));
    const { error } = outcome;
    if (error instanceof RuncastError && emitter.error === error) return; // the log refuses more
    this.#tell(error, job);
    if (mayRetry(error, agent)) return void (await this.#release(job, error));
    await this.#say(job, emitter, () => emitter.executionError({ error, code: "agent_error" }));
  }

  /** Say the last word, for as long as the edges are away. @param {HeldJob} job @param {AgentEmitter} emitter
   * @param {() => Promise<void>} say */
  async #say(job, emitter, say) {
    const until = performance.now() + AWAY_MS;
    let said = say();
    for (;;) {
      try {
        return await said;
      } catch (error) {
        if (!isTemporary(error) || performance.now() > until || job.cause?.kind === "lost") throw error;
        said = emitter.flush();
      }
    }
  }

  /** Give a job back: to another worker at once, or with its failure to be tried again. @param {HeldJob} job
   * @param {unknown} [error] */
  async #release(job, error) {
    const after =
      error instanceof Retry && error.after !== undefined ? { retryAfterSeconds: Math.max(0, error.after) } : {};
    const failure =
      error === undefined
        ? {}
        : { failure: { error: describe(error).slice(0, MAX_ERROR), code: "agent_error", ...after } };
    const until = performance.now() + job.leaseSeconds * 1000;
    for (let failures = 0; ; failures += 1) {
      try {
        return await this.#ask("release", { worker: this.name, jobs: [{ ...job.ref, ...failure }] }, 0);
      } catch (problem) {
        if (!isTemporary(problem) || performance.now() > until) throw problem;
        await pause(backoffMs(failures, RETRY_FIRST_MS, RETRY_MOST_MS));
      }
    }
  }

  /** @param {unknown} error @param {HeldJob | null} job */
  #tell(error, job) {
    try {
      this.#options.onError?.(
        error,
        job === null ? null : { executionId: job.executionId, agent: job.agent, attempt: job.attempt },
      );
    } catch (failure) {
      queueMicrotask(() => {
        throw failure;
      });
    }
  }
}

/** Whether another attempt may succeed without a change. @param {unknown} error @param {AgentOptions} agent */
function mayRetry(error, { retryOn }) {
  if (error instanceof Fatal) return false;
  if (error instanceof Retry) return true;
  return retryOn === undefined ? isTransient(error) : Boolean(retryOn(error));
}

/** @param {any} error @param {number} [depth] @returns {boolean} */
function isTransient(error, depth = 0) {
  if (typeof error !== "object" || error === null || depth > 4) return false;
  if (BUSY.has(error.status ?? error.statusCode ?? error.response?.status) || BROKEN.has(error.code)) return true;
  return (
    error.name === "TimeoutError" ||
    (error instanceof TypeError && error.message === "fetch failed") ||
    isTransient(error.cause, depth + 1)
  );
}
