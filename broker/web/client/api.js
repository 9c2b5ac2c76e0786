/**
 * Requests to an edge: one method for each endpoint, and the door to its streams.
 */

/**
 * @import * as wire from "./events.js"
 * @import { StreamOptions } from "./stream.js"
 * @import { Stamp } from "./vigil.js"
 * @import { WatchOptions } from "./watch.js"
 */
import { backoffMs } from "./backoff.js";
import { clientError, errorOf, RuncastError } from "./errors.js";
import { executionPath } from "./paths.js";
import { AgentStream } from "./stream.js";
import { since, stamp } from "./vigil.js";
import { ExecutionWatch } from "./watch.js";

const TRIES = 4;
const TRY_AGAIN_BASE_MS = 400;
const TRY_AGAIN_STATUSES = new Set([502, 503, 504]);
/** An edge that asks to wait longer than this is not waited for. */
const PATIENCE_MS = 10_000;
/** Who wants a newer token so soon after another did gets the same one. */
const RENEWAL_MS = 15_000;

/**
 * @typedef {(asked: {refresh: boolean}) => string | null | undefined | Promise<string | null | undefined>} TokenFunction
 * `refresh` asks for a newer token than the last one: it was refused, or expires soon. Nothing, where a cookie is used.
 */

/**
 * @typedef {object} ClientOptions
 * @property {string} [baseUrl] of the edges; same origin if absent
 * @property {string | TokenFunction} [token] absent: the cookie `runcast_token`
 * @property {typeof fetch} [fetch]
 */

/**
 * @typedef {object} RequestOptions
 * @property {unknown} [body] sent as JSON
 * @property {Record<string, string>} [headers]
 * @property {AbortSignal} [signal]
 */

/** @typedef {{than: string | null, token: Promise<string | null>, began: Stamp}} Renewal */

/** A user's way to the edges. */
export class RuncastClient {
  #token;
  #fetch;
  /** The last time that a newer token was asked for. @type {Renewal | null} */
  #renewal = null;

  /** @param {ClientOptions} [options] */
  constructor({ baseUrl = "", token, fetch } = {}) {
    this.baseUrl = baseUrl.replace(/\/+$/, "");
    this.#token = token;
    this.#fetch = fetch;
  }

  /** Whether requests go a way of their own, on which no worker can send them. */
  get hasFetch() {
    return this.#fetch !== undefined;
  }

  /** Whether there is somebody to ask for a newer token. */
  get canRefresh() {
    return typeof this.#token === "function";
  }

  /** The token to send now; null: the cookie. @param {{refresh?: boolean}} [asked] @returns {Promise<string | null>} */
  async token({ refresh = false } = {}) {
    const token = typeof this.#token === "function" ? await this.#token({ refresh }) : this.#token;
    return token || null;
  }

  /** A newer token than this one, which was refused or expires soon. The application is asked once, however many streams
   * and requests had it: a token that renews another may be good for one time only.
   * @param {string | null} than @returns {Promise<string | null>} */
  newerToken(than) {
    const before = this.#renewal;
    if (before !== null && before.than === than && since(before.began) < RENEWAL_MS) return before.token;
    const renewal = (this.#renewal = { than, token: this.token({ refresh: true }), began: stamp() });
    const forget = () => {
      if (this.#renewal === renewal) this.#renewal = null;
    };
    renewal.token.then((token) => (token === null || token === than) && forget(), forget);
    return renewal.token;
  }

  /** Absolute where that can be known, so that a worker can use it. @param {string} path
   * @param {Record<string, string | number | null | undefined>} [query] what is null is left out */
  url(path, query = {}) {
    const set = Object.entries(query).filter(([, value]) => value !== undefined && value !== null);
    const search = new URLSearchParams(set.map(([name, value]) => [name, String(value)])).toString();
    const url = this.baseUrl + path + (search && (path.includes("?") ? "&" : "?") + search);
    const base = globalThis.location?.href;
    return base === undefined || base.startsWith("blob:") ? url : new URL(url, base).href;
  }

  // --- executions ---

  /**
   * Start an execution. A connection that breaks on the way is tried again, and starts nothing twice.
   * @param {wire.ExecuteRequest} request
   * @param {{idempotencyKey?: string, signal?: AbortSignal}} [options]
   * @returns {Promise<wire.ExecuteResponse>}
   */
  execute(request, { idempotencyKey = newKey(), signal } = {}) {
    const headers = { "Idempotency-Key": idempotencyKey };
    return persist(() => this.#json("POST", "/api/agent/execute", { body: request, headers, signal }), signal);
  }

  /** The caller's executions, newest first. @param {{state?: wire.State, limit?: number, cursor?: string}} [query]
   * @param {{signal?: AbortSignal}} [options] @returns {Promise<wire.ExecutionList>} */
  executions(query = {}, { signal } = {}) {
    return this.#json("GET", this.url("/api/agent/executions", query), { signal });
  }

  /** The folded state. @param {string} executionId @param {{signal?: AbortSignal}} [options]
   * @returns {Promise<wire.ExecutionState>} */
  execution(executionId, { signal } = {}) {
    return this.#json("GET", executionPath(executionId), { signal });
  }

  /** A page of the log. @param {string} executionId @param {{after?: string, limit?: number}} [query]
   * @returns {Promise<wire.EventPage>} */
  events(executionId, query = {}) {
    return this.#json("GET", this.url(executionPath(executionId) + "/events", query));
  }

  /** The whole log as NDJSON, a `LoggedEvent` on each line. @param {string} executionId
   * @returns {Promise<ReadableStream<string>>} */
  async exportEvents(executionId) {
    const headers = { Accept: "application/x-ndjson" };
    const { body } = await this.request("GET", executionPath(executionId) + "/events", { headers });
    if (body === null) throw clientError("no-body", "the answer has no body");
    return body.pipeThrough(/** @type {ReadableWritablePair<string, any>} */ (new TextDecoderStream()));
  }

  /** Ask it to stop; asking again changes nothing. @param {string} executionId @param {string} [reason]
   * @returns {Promise<wire.CancelResponse>} */
  cancel(executionId, reason) {
    const body = reason ? { reason } : {};
    return persist(() => this.#json("POST", executionPath(executionId) + "/cancel", { body }));
  }

  /** Answer an `input:required`; the first answer wins, and a later one is refused with 409. @param {string} executionId
   * @param {string} inputId @param {unknown} value @returns {Promise<wire.InputResponse>} */
  answer(executionId, inputId, value) {
    return this.#json("POST", executionPath(executionId) + "/input", { body: { inputId, value } });
  }

  /** The agents that live workers announce. @returns {Promise<wire.AgentList>} */
  agents() {
    return this.#json("GET", "/api/agent/agents");
  }

  /** A ticket that opens one stream: of this execution, or the feed. @param {string} [executionId]
   * @param {{signal?: AbortSignal}} [options] @returns {Promise<wire.TicketResponse>} */
  ticket(executionId, { signal } = {}) {
    const body = executionId === undefined ? {} : { executionId };
    return this.#json("POST", "/api/agent/stream-tickets", { body, signal });
  }

  // --- streams ---

  /** @param {Omit<StreamOptions, "client">} [options] */
  stream(options = {}) {
    return new AgentStream({ ...options, client: this });
  }

  /** An execution's stream and the state it comes to. @param {string} executionId @param {WatchOptions} [options] */
  watch(executionId, options = {}) {
    return new ExecutionWatch(this, executionId, options);
  }

  // --- requests ---

  /** Send a request, once more with a newer token if the first is refused. Raises `RuncastError` unless it succeeds.
   * @param {string} method @param {string} path @param {RequestOptions} [options] */
  async request(method, path, options = {}) {
    const token = await this.token();
    const response = await this.#send(method, path, options, token);
    if (response.ok) return response;
    const error = await errorOf(response);
    if (response.status !== 401 || !this.canRefresh) throw error;
    const fresh = await this.newerToken(token);
    if (fresh === token && fresh !== null) throw error;
    const second = await this.#send(method, path, options, fresh);
    if (!second.ok) throw await errorOf(second);
    return second;
  }

  /** One request as it is, with this token or, without, the cookie. Raises `RuncastError` when there is no answer.
   * @param {string} url @param {RequestInit & {token: string | null}} init @returns {Promise<Response>} */
  async send(url, { token, ...init }) {
    const headers = new Headers(init.headers);
    if (token !== null) headers.set("Authorization", `Bearer ${token}`);
    const credentials = token === null ? "include" : "same-origin";
    const send = this.#fetch ?? globalThis.fetch.bind(globalThis);
    try {
      return await send(url, { cache: "no-store", credentials, ...init, headers });
    } catch (error) {
      if (init.signal?.aborted) throw init.signal.reason;
      const or = isForeign(url) ? ", or the origin of this page is not allowed there (RUNCAST_CORS_ORIGINS)" : "";
      throw clientError("unreachable", "the edge cannot be reached" + or, error);
    }
  }

  /** @param {string} method @param {string} path @param {RequestOptions} options @param {string | null} token */
  async #send(method, path, { body, headers = {}, signal }, token) {
    const url = /^[a-z]+:/i.test(path) ? path : this.url(path);
    const json = body === undefined ? headers : { "Content-Type": "application/json", ...headers };
    const init = { method, headers: json, signal, token, body: JSON.stringify(body) };
    try {
      return await this.send(url, init);
    } catch (error) {
      // The connection may have been one that the edge was leaving: what only reads is asked again, as browsers do.
      if (method !== "GET" || signal?.aborted) throw error;
      return await this.send(url, init);
    }
  }

  /** @param {string} method @param {string} path @param {RequestOptions} [options] @returns {Promise<any>} */
  async #json(method, path, options = {}) {
    const headers = { Accept: "application/json", ...options.headers };
    const response = await this.request(method, path, { ...options, headers });
    return await response.json();
  }
}

/** Whether it is of another origin than the page: then a browser does not say which of two reasons keeps it from there.
 * @param {string} url */
function isForeign(url) {
  const { location } = globalThis;
  return location !== undefined && /^https?:/i.test(url) && !url.startsWith(location.origin + "/");
}

/** Do what may be done twice until it is done, a few times at most. @template T @param {() => Promise<T>} act
 * @param {AbortSignal} [signal] @returns {Promise<T>} */
async function persist(act, signal) {
  for (let tried = 1; ; tried += 1) {
    try {
      return await act();
    } catch (error) {
      if (tried === TRIES || signal?.aborted || !isPassing(error)) throw error;
      await waited((error.retryAfterMs ?? 0) + backoffMs(tried, TRY_AGAIN_BASE_MS), signal);
    }
  }
}

/** @param {unknown} error @returns {error is RuncastError} */
function isPassing(error) {
  if (!(error instanceof RuncastError) || (error.retryAfterMs ?? 0) > PATIENCE_MS) return false;
  return error.status === 0 || TRY_AGAIN_STATUSES.has(error.status);
}

/** @param {number} milliseconds @param {AbortSignal} [signal] */
function waited(milliseconds, signal) {
  return new Promise((/** @type {(value: void) => void} */ resolve, reject) => {
    const leave = () => (clearTimeout(timer), reject(signal?.reason));
    const timer = setTimeout(() => (signal?.removeEventListener("abort", leave), resolve()), milliseconds);
    signal?.addEventListener("abort", leave, { once: true });
  });
}

/** 128 random bits; `randomUUID` is not there on plain HTTP. */
function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
