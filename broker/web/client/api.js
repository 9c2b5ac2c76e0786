/**
 * The client of an edge: a method for each endpoint, streams and watches.
 */

/**
 * @import * as wire from "./events.js"
 * @import { StreamOptions } from "./stream.js"
 * @import { Stamp } from "./clock.js"
 * @import { WatchOptions } from "./watch.js"
 */
import { backoffMs } from "./backoff.js";
import { since, stamp } from "./clock.js";
import { clientError, errorOf, RuncastError } from "./errors.js";
import { executionPath } from "./paths.js";
import { AgentStream } from "./stream.js";
import { ExecutionWatch } from "./watch.js";

const MAX_ATTEMPTS = 4;
const RETRY_BASE_MS = 400;
const RETRIED_STATUSES = new Set([502, 503, 504]);
/** A request is not repeated if `Retry-After` is longer. */
const MAX_RETRY_AFTER_MS = 10_000;
/** A renewed token is reused for this long by streams and requests that had the same old one. */
const RENEWAL_REUSE_MS = 15_000;

/**
 * @typedef {(asked: {refresh: boolean}) => string | null | undefined | Promise<string | null | undefined>}
 *   TokenFunction
 * `refresh`: a newer token is needed, as the last one was refused or expires soon. Return nothing to use the cookie.
 */

/**
 * @typedef {object} ClientOptions
 * @property {string} [baseUrl] of the edges; same origin if absent
 * @property {string | TokenFunction} [token] absent: the cookie `runcast_token`
 * @property {typeof fetch} [fetch]
 * @property {{user?: string, org?: string}} [as] whose executions these are: of another user, with scope `admin`, or `org:read` in one's org
 */

/**
 * @typedef {object} RequestOptions
 * @property {unknown} [body] sent as JSON
 * @property {Record<string, string>} [headers]
 * @property {AbortSignal} [signal]
 */

/** @typedef {{than: string | null, token: Promise<string | null>, began: Stamp}} Renewal */

/** Requests and streams of one user. */
export class RuncastClient {
  #token;
  #fetch;
  /** The last renewal of the token. @type {Renewal | null} */
  #renewal = null;

  /** @param {ClientOptions} [options] */
  constructor({ baseUrl = "", token, fetch, as = {} } = {}) {
    this.baseUrl = baseUrl.replace(/\/+$/, "");
    this.as = as;
    this.#token = token;
    this.#fetch = fetch;
  }

  /** Whether the application gave a `fetch` of its own, which a worker cannot call. */
  get hasFetch() {
    return this.#fetch !== undefined;
  }

  /** Whether a newer token can be requested. */
  get canRefresh() {
    return typeof this.#token === "function";
  }

  /** The current token; null: the cookie. @param {{refresh?: boolean}} [asked] @returns {Promise<string | null>} */
  async token({ refresh = false } = {}) {
    const token = typeof this.#token === "function" ? await this.#token({ refresh }) : this.#token;
    return token || null;
  }

  /** A newer token than this one, which was refused or expires soon. The token function is called once for all streams
   * and requests that had it, because a refresh token may be valid for one use only.
   * @param {string | null} than @returns {Promise<string | null>} */
  newerToken(than) {
    const before = this.#renewal;
    if (before !== null && before.than === than && since(before.began) < RENEWAL_REUSE_MS) return before.token;
    const renewal = (this.#renewal = { than, token: this.token({ refresh: true }), began: stamp() });
    const forget = () => {
      if (this.#renewal === renewal) this.#renewal = null;
    };
    renewal.token.then((token) => (token === null || token === than) && forget(), forget);
    return renewal.token;
  }

  /** The URL of a path; absolute if the page's address is known, so that a worker can use it. @param {string} path
   * @param {Record<string, string | number | boolean | null | undefined>} [query] values that are null are left out */
  url(path, query = {}) {
    const set = Object.entries({ ...this.as, ...query }).filter(([, value]) => value !== undefined && value !== null);
    const search = new URLSearchParams(set.map(([name, value]) => [name, String(value)])).toString();
    const url = this.baseUrl + path + (search && (path.includes("?") ? "&" : "?") + search);
    const base = globalThis.location?.href;
    return base === undefined || base.startsWith("blob:") ? url : new URL(url, base).href;
  }

  // --- executions ---

  /**
   * Start an execution. A request without an answer is repeated with the same idempotency key: nothing starts twice.
   * @param {wire.ExecuteRequest} request
   * @param {{idempotencyKey?: string, signal?: AbortSignal}} [options]
   * @returns {Promise<wire.ExecuteResponse>}
   */
  execute(request, { idempotencyKey = newKey(), signal } = {}) {
    const headers = { "Idempotency-Key": idempotencyKey };
    return retried(() => this.#json("POST", "/api/agent/execute", { body: request, headers, signal }), signal);
  }

  /** The caller's executions, newest first. A page may be short, or empty, and still have a `nextCursor`.
   * @param {{q?: string, agent?: string, state?: wire.State, since?: number, until?: number, parent?: string, limit?: number, cursor?: string}} [query]
   * `q`: words in task, result, error, agent or id; `since` and `until`: when it was created, in ms; `parent`: those
   * that it started
   * @param {{signal?: AbortSignal}} [options] @returns {Promise<wire.ExecutionList>} */
  executions(query = {}, { signal } = {}) {
    return this.#json("GET", this.url("/api/agent/executions", query), { signal });
  }

  /** The state of an execution. @param {string} executionId @param {{signal?: AbortSignal}} [options]
   * @returns {Promise<wire.ExecutionState>} */
  execution(executionId, { signal } = {}) {
    return this.#json("GET", executionPath(executionId), { signal });
  }

  /** A link that shows this execution, and nothing else, to whoever has it; a day, unless it says otherwise.
   * @param {string} executionId @param {{expiresInSeconds?: number}} [body] @returns {Promise<wire.ShareResponse>} */
  share(executionId, body = {}) {
    return this.#json("POST", executionPath(executionId) + "/shares", { body });
  }

  /** The links to an execution that still work. @param {string} executionId @returns {Promise<wire.ShareList>} */
  shares(executionId) {
    return this.#json("GET", executionPath(executionId) + "/shares");
  }

  /** End a link, and the streams that were opened with it. @param {string} executionId @param {string} shareId
   * @returns {Promise<void>} */
  async revokeShare(executionId, shareId) {
    await this.request("DELETE", `${executionPath(executionId)}/shares/${encodeURIComponent(shareId)}`);
  }

  /** What an execution was started with, and by whom: without credentials. @param {string} executionId
   * @param {{signal?: AbortSignal}} [options] @returns {Promise<wire.AcceptedRequest>} */
  acceptedRequest(executionId, { signal } = {}) {
    return this.#json("GET", executionPath(executionId) + "/request", { signal });
  }

  /** The states of an execution and of all that it started. @param {string} executionId
   * @param {{signal?: AbortSignal}} [options] @returns {Promise<wire.ExecutionNode>} */
  tree(executionId, { signal } = {}) {
    return this.#json("GET", this.url(executionPath(executionId), { tree: true }), { signal });
  }

  /** A page of the log. @param {string} executionId
   * @param {{after?: string, limit?: number, compact?: boolean}} [query]
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

  /** Cancel an execution. Repeating this has no effect. @param {string} executionId @param {string} [reason]
   * @returns {Promise<wire.CancelResponse>} */
  cancel(executionId, reason) {
    const body = reason ? { reason } : {};
    return retried(() => this.#json("POST", executionPath(executionId) + "/cancel", { body }));
  }

  /** Answer an `input:required`. The first answer counts; a later one is refused with 409. @param {string} executionId
   * @param {string} inputId @param {unknown} value @returns {Promise<wire.InputResponse>} */
  answer(executionId, inputId, value) {
    return this.#json("POST", executionPath(executionId) + "/input", { body: { inputId, value } });
  }

  /** Decline to answer an `input:required`: an approval is refused, and the agent hears of any other. @param {string}
   * executionId @param {string} inputId @returns {Promise<wire.InputResponse>} */
  decline(executionId, inputId) {
    return this.#json("POST", executionPath(executionId) + "/input", { body: { inputId, declined: true } });
  }

  /** Say something to the running agent. A request without an answer is repeated with the same `messageId`: the agent
   * hears it once. @param {string} executionId @param {string | wire.MessageRequest} message a text, or more
   * @returns {Promise<wire.MessageResponse>} */
  sendMessage(executionId, message) {
    const body = { messageId: newKey(), ...(typeof message === "string" ? { text: message } : message) };
    return retried(() => this.#json("POST", executionPath(executionId) + "/messages", { body }));
  }

  /** What people have said to the agent, and whether it takes more. @param {string} executionId
   * @returns {Promise<wire.MessageList>} */
  messages(executionId) {
    return this.#json("GET", executionPath(executionId) + "/messages");
  }

  /** Withdraw a message that the agent has not taken; otherwise it is refused with 409. Repeating this has no effect.
   * @param {string} executionId @param {string} messageId @returns {Promise<wire.MessageResponse>} */
  withdrawMessage(executionId, messageId) {
    const path = `${executionPath(executionId)}/messages/${encodeURIComponent(messageId)}`;
    return retried(() => this.#json("DELETE", path));
  }

  /** The agents of the live workers. @returns {Promise<wire.AgentList>} */
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

  /** The stream of an execution, and the state folded from it. @param {string} executionId
   * @param {WatchOptions} [options] */
  watch(executionId, options = {}) {
    return new ExecutionWatch(this, executionId, options);
  }

  // --- requests ---

  /** Send a request; if its token is refused, repeat it with a newer one. Raises `RuncastError` unless it succeeds.
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

  /** Send one request with this token, or with the cookie if it is null. Raises `RuncastError` without an answer.
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
      const hint = isForeign(url) ? ", or the origin of this page is not allowed there (RUNCAST_CORS_ORIGINS)" : "";
      throw clientError("unreachable", "the edge cannot be reached" + hint, error);
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
      // The edge may just have closed an idle connection. Browsers repeat a GET in this case, and so does this client.
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

/** Whether the URL has another origin than the page: then the browser does not tell a failed connection from a refused
 * origin.
 * @param {string} url */
function isForeign(url) {
  const { location } = globalThis;
  return location !== undefined && /^https?:/i.test(url) && !url.startsWith(location.origin + "/");
}

/** Repeat an idempotent request while it fails temporarily, a few times at most. @template T
 * @param {() => Promise<T>} act
 * @param {AbortSignal} [signal] @returns {Promise<T>} */
async function retried(act, signal) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await act();
    } catch (error) {
      if (attempt === MAX_ATTEMPTS || signal?.aborted || !isTemporary(error)) throw error;
      await waited((error.retryAfterMs ?? 0) + backoffMs(attempt, RETRY_BASE_MS), signal);
    }
  }
}

/** @param {unknown} error @returns {error is RuncastError} */
function isTemporary(error) {
  if (!(error instanceof RuncastError) || (error.retryAfterMs ?? 0) > MAX_RETRY_AFTER_MS) return false;
  return error.status === 0 || RETRIED_STATUSES.has(error.status);
}

/** @param {number} milliseconds @param {AbortSignal} [signal] */
function waited(milliseconds, signal) {
  return new Promise((/** @type {(value: void) => void} */ resolve, reject) => {
    const leave = () => (clearTimeout(timer), reject(signal?.reason));
    const timer = setTimeout(() => (signal?.removeEventListener("abort", leave), resolve()), milliseconds);
    signal?.addEventListener("abort", leave, { once: true });
  });
}

/** 128 random bits; `randomUUID` is not available on plain HTTP. */
function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
