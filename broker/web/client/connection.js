/**
 * Keeps one stream open over many connections: connects, detects dead connections, waits, and resumes after the last
 * event.
 */

/**
 * @import { RuncastClient } from "./api.js"
 * @import { Sequence } from "./cursor.js"
 * @import { Frame } from "./parser.js"
 * @import { Stamp } from "./clock.js"
 * @import { Problem, StreamControl } from "./events.js"
 * @import { Sink, Target } from "./stream.js"
 * @import { Stall } from "./watchdog.js"
 */

/**
 * @typedef {{kind: "over"} | {kind: "failed", error: Error} | {kind: "reconnect", delayMs: number,
 *   error: Error | null}} Verdict what to do after a connection
 */
import { backoffMs, boundedRetry, RETRY_MS } from "./backoff.js";
import { pause, since, stamp } from "./clock.js";
import { clientError, problemError, RuncastError } from "./errors.js";
import { CONTROLS, readByEventSource, readByFetch } from "./transports.js";
import { Watchdog } from "./watchdog.js";

/** The interval of attempts while the browser reports no network: it may be wrong about an edge on this machine. */
const OFFLINE_MS = 30_000;
/** After this time without an answer, `status.error` names a likely reason; the attempt continues. */
const LATE_MS = 5_000;
const NOTICE_MS = 60_000; // an edge sends `stream:token_expiring` this long before the expiry
/** A connection without events that was live for this long counts as good: the backoff starts again. */
const STABLE_MS = 10_000;
const TEMPORARY_STATUSES = new Set([408, 425, 429]);
/** Reasons of `stream:end` after which the stream resumes once the time of `retry:` has passed. */
const RESUMED_AFTER_RETRY = new Set(["aged", "draining", "refused", "replaced", "failed"]);
/** Texts for reasons of `stream:end` that are faults, if the edge sends no problem. @type {Record<string, string>} */
const FAULTS = {
  slow: "the stream was read too slowly",
  lost_redis: "the edge could not read the log for too long",
  refused: "the edge accepts no stream at the moment",
  replaced: "the stream was opened a second time",
  failed: "the edge could not show an event",
};

/** Why the client ended a connection. */
class Cut extends Error {
  /** @param {Stall | "closed" | "ended" | "renewed" | "gap"} why */
  constructor(why) {
    super(why);
    this.why = why;
  }
}

/** One `start`, one `stop`. Never raises: events, controls and changes of the status go to the sink. */
export class Connection {
  #client;
  #target;
  #sequence;
  #sink;
  #stop = new AbortController();
  /** Aborts the current connection. */
  #cut = new AbortController();
  /** @type {Watchdog | null} */
  #watchdog = null;
  #failures = 0;
  #retryMs = RETRY_MS;
  #opened = 0;
  /** Whether the edge has answered on this connection. */
  #isAnswered = false;
  /** When the connection became live. @type {Stamp | null} */
  #live = null;
  /** The reason of `stream:end`. @type {string | null} */
  #end = null;
  /** The problem in `stream:end`. @type {Problem | null} */
  #problem = null;
  #mustRefresh = false;
  /** The token that was sent last. @type {string | null} */
  #token = null;
  /** A token for the next connection, renewed before the last one expired. @type {{token: string | null} | null} */
  #renewed = null;

  /** @param {RuncastClient} client @param {Target} target @param {Sequence} sequence @param {Sink} sink */
  constructor(client, target, sequence, sink) {
    this.#client = client;
    this.#target = target;
    this.#sequence = sequence;
    this.#sink = sink;
  }

  start() {
    void this.#run();
  }

  stop() {
    this.#stop.abort();
    this.#cut.abort(new Cut("closed"));
    this.#watchdog?.stop(); // a token function or an edge that never answers must not keep its timer
  }

  async #run() {
    while (!this.#stop.signal.aborted) {
      const verdict = await this.#connect();
      if (this.#stop.signal.aborted) return;
      if (verdict.kind === "over") return this.#sink.change({ phase: "ended", error: null, retryAt: null });
      if (verdict.kind === "failed") return this.#sink.change({ phase: "failed", error: verdict.error, retryAt: null });
      await this.#wait(verdict.delayMs, verdict.error);
    }
  }

  // --- one connection ---

  /** @returns {Promise<Verdict>} */
  async #connect() {
    const cut = (this.#cut = new AbortController());
    const watchdog = (this.#watchdog = new Watchdog((stall) => cut.abort(new Cut(stall))));
    const refreshed = this.#mustRefresh || this.#renewed !== null;
    this.#end = null;
    this.#problem = null;
    this.#live = null;
    this.#isAnswered = false;
    this.#sink.change({ phase: "connecting", retryAt: null });
    try {
      const token = await orCut(this.#takeToken(), cut.signal);
      return await this.#read(token, cut);
    } catch (error) {
      return this.#judge(error, refreshed);
    } finally {
      watchdog.stop();
      cut.abort(new Cut("closed"));
    }
  }

  /** @returns {Promise<string | null>} */
  async #takeToken() {
    const renewed = this.#renewed;
    this.#renewed = null;
    if (renewed !== null) return (this.#token = renewed.token);
    const token = await (this.#mustRefresh ? this.#client.newerToken(this.#token) : this.#client.token());
    this.#mustRefresh = false;
    return (this.#token = token);
  }

  /** @param {string | null} token @param {AbortController} cut @returns {Promise<Verdict>} */
  async #read(token, cut) {
    const { path, executionId, query, mode } = this.#target;
    const cursor = this.#sequence.cursor;
    // `from` is for streams without a cursor only.
    const asked = cursor === null ? query : { ...query, from: null };
    const opening = { path, executionId, query: asked, cursor, token, signal: cut.signal };
    const read = mode === "eventsource" ? readByEventSource : readByFetch;
    const late = setTimeout(() => this.#isAnswered || this.#sink.change({ error: unanswered() }), LATE_MS);
    try {
      const ending = await read(this.#client, opening, {
        opened: () => this.#hasOpened(),
        bytes: () => this.#received(),
        frame: (frame) => this.#frame(frame, token, cut),
        position: (id) => cut.signal.aborted || this.#sequence.moveTo(id),
        retry: (milliseconds) => (this.#retryMs = boundedRetry(milliseconds)),
      });
      return ending === "finished" ? { kind: "over" } : this.#afterEnd();
    } finally {
      clearTimeout(late);
    }
  }

  #hasOpened() {
    this.#isAnswered = true;
    this.#watchdog?.received();
    this.#opened += 1;
    this.#sink.opened(this.#opened > 1);
  }

  #received() {
    this.#watchdog?.received();
    if (this.#live !== null && since(this.#live) > STABLE_MS) this.#failures = 0;
    this.#sink.batch();
  }

  // --- frames ---

  /** @param {Frame} frame @param {string | null} token @param {AbortController} cut */
  #frame(frame, token, cut) {
    if (cut.signal.aborted || frame.event === "heartbeat") return;
    const isControl = frame.event.startsWith("stream:");
    if (isControl && frame.id !== undefined) this.#sequence.moveTo(frame.id);
    else if (frame.id !== undefined) return this.#logged(frame.id, frame.data, cut);
    if (!isControl) return this.#unlogged(frame);
    if (!CONTROLS.includes(frame.event)) return; // of a later version
    const control = /** @type {StreamControl} */ ({ type: frame.event, data: parsed(frame.data) });
    this.#obey(control, token, cut);
    this.#sink.control(control);
  }

  /** An event of a stream that is not a log. @param {Frame} frame */
  #unlogged({ event, data }) {
    this.#failures = 0;
    this.#sink.event({ type: event, data: parsed(data) }, data.length);
  }

  /** @param {string} id @param {string} data @param {AbortController} cut */
  #logged(id, data, cut) {
    const envelope = parsed(data);
    const verdict = this.#sequence.take(id, envelope.type, this.#live !== null);
    if (verdict === "gap") return cut.abort(new Cut("gap"));
    if (verdict === "known") return;
    this.#failures = 0;
    this.#sink.event({ id, ...envelope }, data.length);
  }

  /** @param {StreamControl} control @param {string | null} token @param {AbortController} cut */
  #obey({ type, data }, token, cut) {
    if (type === "stream:open") {
      if (this.#watchdog !== null) this.#watchdog.heartbeatMs = data.heartbeatSeconds * 1000;
      if (data.retryMs >= 0) this.#retryMs = boundedRetry(data.retryMs);
    } else if (type === "stream:live") {
      this.#live = stamp(); // failures are not reset yet: connections that are live for a moment only are backed off
    } else if (type === "stream:reset") {
      this.#sequence.reset(data.reason);
    } else if (type === "stream:token_expiring") {
      void this.#renew(token, data.expiresAt, cut.signal);
    } else if (type === "stream:end") {
      this.#end = data.reason;
      this.#problem = data.problem ?? null;
      cut.abort(new Cut("ended"));
    }
  }

  /** Get a newer token while the old one is valid, and reconnect with it. It waits for a part of the remaining time: a
   * token of one minute would otherwise be renewed again at once. @param {string | null} token
   * @param {number} expiresAt @param {AbortSignal} signal */
  async #renew(token, expiresAt, signal) {
    while (this.#client.canRefresh && !signal.aborted) {
      const left = Math.min(Math.max(expiresAt - Date.now(), 0), NOTICE_MS);
      await pause(Math.max(1000, left * (0.25 + Math.random() * 0.25)), signal);
      if (signal.aborted) return;
      try {
        const fresh = await this.#client.newerToken(token);
        if (signal.aborted) return;
        if (fresh !== null && fresh === token) continue;
        this.#renewed = { token: fresh };
        return this.#cut.abort(new Cut("renewed"));
      } catch (error) {
        this.#sink.change({ error: asError(error) });
      }
    }
  }

  // --- after a connection ---

  /** @param {unknown} error @param {boolean} refreshed whether the token had just been renewed @returns {Verdict} */
  #judge(error, refreshed) {
    if (this.#end !== null) return this.#afterEnd();
    if (error instanceof Cut) return this.#afterCut(error);
    const status = error instanceof RuncastError ? error.status : 0;
    if (status === 401 && this.#client.canRefresh && !refreshed) {
      this.#mustRefresh = true;
      return this.#reconnect(0, asError(error));
    }
    const isFinal = status >= 400 && status < 500 && !TEMPORARY_STATUSES.has(status);
    if (isFinal) return { kind: "failed", error: asError(error) };
    const asked = (error instanceof RuncastError && error.retryAfterMs) || 0;
    return this.#reconnect(asked + this.#backoff(), asError(error));
  }

  /** @returns {Verdict} */
  #afterEnd() {
    if (this.#end === "finished") return { kind: "over" };
    if (this.#end === null)
      return this.#reconnect(this.#backoff(), clientError("connection-lost", "the stream was cut"));
    const error = this.#faultOf(this.#end);
    if (RESUMED_AFTER_RETRY.has(this.#end)) return this.#reconnect(this.#retryMs, error);
    this.#mustRefresh = this.#end === "expired" || this.#end === "revoked";
    return this.#reconnect(this.#failures === 0 ? 0 : this.#backoff(), error);
  }

  /** The error for a reason of `stream:end`: the edge's problem if there is one; null if the reason is no fault.
   * @param {string} reason */
  #faultOf(reason) {
    if (this.#problem !== null) return problemError(this.#problem, this.#problem.status, "", "", this.#retryMs);
    return reason in FAULTS ? clientError("stream-" + reason, FAULTS[reason]) : null;
  }

  /** @param {Cut} cut @returns {Verdict} */
  #afterCut({ why }) {
    if (why === "silence" && !this.#isAnswered) return this.#reconnect(this.#backoff(), unanswered());
    if (why === "silence")
      return this.#reconnect(this.#backoff(), clientError("silent", "nothing was received for too long"));
    if (why !== "gap") return this.#reconnect(0, null);
    const error = clientError("gap", "an event was missing; the stream resumes before the gap");
    return this.#reconnect(this.#failures === 0 ? 0 : this.#backoff(), error);
  }

  /** @param {number} delayMs @param {Error | null} error @returns {Verdict} */
  #reconnect(delayMs, error) {
    this.#failures += 1;
    return { kind: "reconnect", delayMs, error };
  }

  #backoff() {
    return backoffMs(this.#failures, this.#retryMs);
  }

  /** @param {number} milliseconds @param {Error | null} error */
  async #wait(milliseconds, error) {
    const isOffline = error !== null && globalThis.navigator?.onLine === false;
    if (!isOffline && milliseconds === 0) return;
    const delayMs = isOffline ? OFFLINE_MS : milliseconds;
    this.#sink.change({ phase: isOffline ? "offline" : "waiting", error, retryAt: Date.now() + delayMs });
    const target = "addEventListener" in globalThis ? /** @type {EventTarget} */ (globalThis) : null;
    if (await pause(delayMs, this.#stop.signal, target, "online")) this.#failures = 0;
  }
}

/** In a browser the most frequent reason is the limit of connections; a page cannot see how many are in use. */
function unanswered() {
  const isInBrowser = globalThis.location !== undefined;
  const hint = ": six connections to this host may be in use; use mode `shared`, or HTTP/2";
  return clientError("no-answer", "the edge has not answered yet" + (isInBrowser ? hint : ""));
}

/** @param {string} data */
function parsed(data) {
  try {
    return JSON.parse(data);
  } catch (error) {
    throw clientError("malformed-event", "an event is not valid JSON", error);
  }
}

/** @param {unknown} error */
function asError(error) {
  return error instanceof Error ? error : new Error(String(error));
}

/** @template T @param {Promise<T>} work @param {AbortSignal} signal @returns {Promise<T>} */
function orCut(work, signal) {
  return new Promise((resolve, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    work.then(resolve, reject);
  });
}
