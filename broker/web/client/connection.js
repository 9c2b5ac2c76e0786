/**
 * Keeps one stream open: connects, notices when it is not to be trusted, waits, and goes on after the last event.
 */

/**
 * @import { RuncastClient } from "./api.js"
 * @import { Sequence } from "./cursor.js"
 * @import { Frame } from "./parser.js"
 * @import { Doubt, Stamp } from "./vigil.js"
 * @import { Problem, StreamControl } from "./events.js"
 * @import { Sink, Target } from "./stream.js"
 */

/**
 * @typedef {{kind: "over"} | {kind: "failed", error: Error} | {kind: "again", delayMs: number, error: Error | null}}
 *   Verdict what comes after a connection
 */
import { backoffMs, boundedRetry, RETRY_MS } from "./backoff.js";
import { clientError, problemError, RuncastError } from "./errors.js";
import { CONTROLS, readByEventSource, readByFetch } from "./transports.js";
import { pause, since, stamp, Vigil } from "./vigil.js";

/** While the browser says that there is no network, one try so often: it may be wrong about this machine itself. */
const OFFLINE_MS = 30_000;
/** An edge that has not answered for so long is asked for still, and the status says why it may be. */
const LATE_MS = 5_000;
const NOTICE_MS = 60_000; // an edge tells of an expiry so long before it
/** A connection without news that lasts so long is a good one: what ends it is the first failure again. */
const STEADY_MS = 10_000;
const PASSING_REFUSALS = new Set([408, 425, 429]);
/** What an edge says when others, or the same one later, will take the stream: it gave the time to wait. */
const RESUMED_LATER = new Set(["aged", "draining", "refused", "replaced", "failed"]);
/** Reasons to end a stream that are no matter of course, for what an edge says no more about. @type {Record<string, string>} */
const FAULTS = {
  slow: "the stream was read too slowly",
  lost_redis: "the edge could not read the log for too long",
  refused: "the edge takes no stream just now",
  replaced: "the stream was opened a second time",
  failed: "the edge could not show an event",
};

/** Why we ended a connection ourselves. */
class Cut extends Error {
  /** @param {Doubt | "closed" | "ended" | "renewed" | "gap"} why */
  constructor(why) {
    super(why);
    this.why = why;
  }
}

/** From `start` to `stop`, once. Never raises; what happens is told to the sink. */
export class Connection {
  #client;
  #target;
  #sequence;
  #sink;
  #stop = new AbortController();
  /** The connection that is open, or opening. */
  #cut = new AbortController();
  /** @type {Vigil | null} */
  #vigil = null;
  #failures = 0;
  #retryMs = RETRY_MS;
  #opened = 0;
  /** Whether the edge has answered on this connection. */
  #isAnswered = false;
  /** Since when the connection is live. @type {Stamp | null} */
  #live = null;
  /** The reason of `stream:end`. @type {string | null} */
  #end = null;
  /** What `stream:end` says of a refusal. @type {Problem | null} */
  #problem = null;
  #mustRefresh = false;
  /** The last one sent. @type {string | null} */
  #token = null;
  /** A token that was asked for before it was needed. @type {{token: string | null} | null} */
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
    this.#vigil?.end(); // whoever is asked for a token, or an answer, may never say anything
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
    const vigil = (this.#vigil = new Vigil((doubt) => cut.abort(new Cut(doubt))));
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
      vigil.end();
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
    // Only a stream without a cursor has a beginning to choose.
    const asked = cursor === null ? query : { ...query, from: null };
    const opening = { path, executionId, query: asked, cursor, token, signal: cut.signal };
    const read = mode === "eventsource" ? readByEventSource : readByFetch;
    const late = setTimeout(() => this.#isAnswered || this.#sink.change({ error: unanswered() }), LATE_MS);
    try {
      const ending = await read(this.#client, opening, {
        opened: () => this.#isOpen(),
        bytes: () => this.#heard(),
        frame: (frame) => this.#frame(frame, token, cut),
        place: (id) => cut.signal.aborted || this.#sequence.place(id),
        retry: (milliseconds) => (this.#retryMs = boundedRetry(milliseconds)),
      });
      return ending === "nothing" ? { kind: "over" } : this.#afterEnd();
    } finally {
      clearTimeout(late);
    }
  }

  #isOpen() {
    this.#isAnswered = true;
    this.#vigil?.heard();
    this.#opened += 1;
    this.#sink.opened(this.#opened > 1);
  }

  #heard() {
    this.#vigil?.heard();
    if (this.#live !== null && since(this.#live) > STEADY_MS) this.#failures = 0;
    this.#sink.batch();
  }

  // --- what comes in ---

  /** @param {Frame} frame @param {string | null} token @param {AbortController} cut */
  #frame(frame, token, cut) {
    if (cut.signal.aborted || frame.event === "heartbeat") return;
    const isControl = frame.event.startsWith("stream:");
    if (isControl && frame.id !== undefined) this.#sequence.place(frame.id);
    else if (frame.id !== undefined) return this.#logged(frame.id, frame.data, cut);
    if (!isControl) return this.#unlogged(frame);
    if (!CONTROLS.includes(frame.event)) return; // of a later version
    const control = /** @type {StreamControl} */ ({ type: frame.event, data: parsed(frame.data) });
    this.#obey(control, token, cut);
    this.#sink.control(control);
  }

  /** An event of a stream that is no log. @param {Frame} frame */
  #unlogged({ event, data }) {
    this.#failures = 0;
    this.#sink.event({ type: event, data: parsed(data) }, data.length);
  }

  /** @param {string} id @param {string} data @param {AbortController} cut */
  #logged(id, data, cut) {
    const envelope = parsed(data);
    const verdict = this.#sequence.take(id);
    if (verdict === "gap") return cut.abort(new Cut("gap"));
    if (verdict === "known") return;
    this.#failures = 0;
    this.#sink.event({ id, ...envelope }, data.length);
  }

  /** @param {StreamControl} control @param {string | null} token @param {AbortController} cut */
  #obey({ type, data }, token, cut) {
    if (type === "stream:open") {
      if (this.#vigil !== null) this.#vigil.beatMs = data.heartbeatSeconds * 1000;
      if (data.retryMs >= 0) this.#retryMs = boundedRetry(data.retryMs);
    } else if (type === "stream:live") {
      this.#live = stamp(); // what is live for a moment only, again and again, is waited for longer each time
    } else if (type === "stream:reset") {
      this.#sequence.reset(data.reason);
    } else if (type === "stream:token_expiring") {
      void this.#renew(token, data.expiresAt, cut.signal);
    } else {
      this.#end = data.reason;
      this.#problem = data.problem ?? null;
      cut.abort(new Cut("ended"));
    }
  }

  /** Get a newer token while the old one is still good, and go on with it. A token of a minute is not renewed at every
   * notice, which would come at once again: some of its time is used. @param {string | null} token
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

  // --- what comes after ---

  /** @param {unknown} error @param {boolean} refreshed whether the token was new @returns {Verdict} */
  #judge(error, refreshed) {
    if (this.#end !== null) return this.#afterEnd();
    if (error instanceof Cut) return this.#afterCut(error);
    const status = error instanceof RuncastError ? error.status : 0;
    if (status === 401 && this.#client.canRefresh && !refreshed) {
      this.#mustRefresh = true;
      return this.#again(0, asError(error));
    }
    const isFinal = status >= 400 && status < 500 && !PASSING_REFUSALS.has(status);
    if (isFinal) return { kind: "failed", error: asError(error) };
    const asked = (error instanceof RuncastError && error.retryAfterMs) || 0;
    return this.#again(asked + this.#backoff(), asError(error));
  }

  /** @returns {Verdict} */
  #afterEnd() {
    if (this.#end === "finished") return { kind: "over" };
    if (this.#end === null) return this.#again(this.#backoff(), clientError("connection-lost", "the stream was cut"));
    const error = this.#fault(this.#end);
    if (RESUMED_LATER.has(this.#end)) return this.#again(this.#retryMs, error);
    this.#mustRefresh = this.#end === "expired" || this.#end === "revoked";
    return this.#again(this.#failures === 0 ? 0 : this.#backoff(), error);
  }

  /** What is wrong when a stream ends so; null: nothing. The edge's problem is what it would have answered with.
   * @param {string} reason */
  #fault(reason) {
    if (this.#problem !== null) return problemError(this.#problem, this.#problem.status, "", "", this.#retryMs);
    return reason in FAULTS ? clientError("stream-" + reason, FAULTS[reason]) : null;
  }

  /** @param {Cut} cut @returns {Verdict} */
  #afterCut({ why }) {
    if (why === "silence" && !this.#isAnswered) return this.#again(this.#backoff(), unanswered());
    if (why === "silence") return this.#again(this.#backoff(), clientError("silent", "nothing came for too long"));
    if (why !== "gap") return this.#again(0, null);
    const error = clientError("gap", "an event was missing; the stream goes on after the last good one");
    return this.#again(this.#failures === 0 ? 0 : this.#backoff(), error);
  }

  /** @param {number} delayMs @param {Error | null} error @returns {Verdict} */
  #again(delayMs, error) {
    this.#failures += 1;
    return { kind: "again", delayMs, error };
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

/** A page cannot see how many connections others have; that they are too few is what most often keeps it waiting. */
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
    throw clientError("malformed-event", "an event is no JSON", error);
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
