/** Requests to an edge: the token, bounds of time, and errors. */
import { EdgeUnavailable, RuncastError, Unauthorized, errorOf } from "./errors.js";

/**
 * @typedef {(asked: {refresh: boolean}) => string | Promise<string>} TokenFunction
 * `refresh`: a newer token is needed, since the last one was refused.
 *
 * @typedef {object} EdgeOptions
 * @property {string} url of the edges, `https://runcast.example.com`
 * @property {string | TokenFunction} token
 * @property {string} [userId] whose execution it is, the `sub` of that user's tokens. Absent: the token's own user; any
 *   other needs the scope `admin`
 * @property {string} [org] of `userId`
 * @property {typeof fetch} [fetch]
 * @property {number} [requestTimeoutMs] of one request; the next try follows
 *
 * @typedef {object} RequestOptions
 * @property {string} [body]
 * @property {Record<string, string>} [headers]
 * @property {AbortSignal} [signal]
 * @property {number} [timeoutMs]
 */

const TIMEOUT_MS = 10_000;

export class Edge {
  #base;
  #query;
  #token;
  #fetch;
  #timeoutMs;
  /** @type {Promise<string> | null} */
  #renewal = null;

  /** @param {EdgeOptions} options */
  constructor({ url, token, userId, org, fetch, requestTimeoutMs = TIMEOUT_MS }) {
    if (!/^https?:\/\//.test(String(url)))
      throw new TypeError(`url: ${JSON.stringify(url)} is not the address of an edge`);
    if (!token) throw new TypeError("token: a token, or a function that returns one, is needed");
    this.#base = String(url).replace(/\/+$/, "");
    this.#query = new URLSearchParams({ ...(userId && { user: userId }), ...(org && { org }) }).toString();
    this.#token = token;
    this.#fetch = fetch;
    this.#timeoutMs = requestTimeoutMs;
  }

  /** The JSON of a successful answer; null of one without a body. Raises `EdgeUnavailable` without an answer, otherwise
   * what the edge said. @param {string} method @param {string} path @param {RequestOptions} [options]
   * @returns {Promise<any>} */
  async request(method, path, { body, headers, signal, timeoutMs = this.#timeoutMs } = {}) {
    const bound = new Bound(timeoutMs, signal);
    try {
      const response = await bound.race(this.#authorised(method, path, body, headers, bound.signal));
      const text = await bound.race(response.text());
      if (!response.ok) throw errorOf(response, text);
      return text === "" ? null : JSON.parse(text);
    } catch (error) {
      throw bound.errorOf(error);
    } finally {
      bound.end();
    }
  }

  /** An event stream; null if there is nothing more to read (204). The caller ends it by the signal. @param {string} path
   * @param {Record<string, string>} headers @param {AbortSignal} signal @returns {Promise<Response | null>} */
  async open(path, headers, signal) {
    const bound = new Bound(this.#timeoutMs, signal);
    try {
      const response = await bound.race(this.#authorised("GET", path, undefined, headers, bound.signal));
      if (response.status === 204) return null;
      if (!response.ok) throw errorOf(response, await response.text());
      if (response.headers.get("Content-Type")?.startsWith("text/event-stream") && response.body !== null)
        return response;
      void response.body?.cancel().catch(() => {});
      throw new EdgeUnavailable("the answer is not an event stream: is the address that of an edge?");
    } catch (error) {
      throw bound.errorOf(error);
    } finally {
      bound.endTimer(); // the signal still ends the stream
    }
  }

  /** @param {string} method @param {string} path @param {string | undefined} body
   * @param {Record<string, string> | undefined} headers @param {AbortSignal} signal */
  async #authorised(method, path, body, headers, signal) {
    const token = await this.#current();
    const response = await this.#send(method, path, body, headers, signal, token);
    if (response.status !== 401 || typeof this.#token !== "function") return response;
    const fresh = await this.#renewed();
    if (fresh === token) return response;
    void response.body?.cancel().catch(() => {});
    return await this.#send(method, path, body, headers, signal, fresh);
  }

  async #current() {
    try {
      return await (typeof this.#token === "function" ? this.#token({ refresh: false }) : this.#token);
    } catch (error) {
      throw new EdgeUnavailable("the token function failed", { cause: error });
    }
  }

  /** A newer token, asked for once by all requests that need one. */
  async #renewed() {
    if (typeof this.#token !== "function") throw new Unauthorized("the token is not accepted", { status: 401 });
    this.#renewal ??= Promise.resolve(this.#token({ refresh: true })).finally(() => (this.#renewal = null));
    return await this.#renewal;
  }

  /** @param {string} method @param {string} path @param {string | undefined} body
   * @param {Record<string, string> | undefined} headers @param {AbortSignal} signal @param {string} token */
  #send(method, path, body, headers, signal, token) {
    const send = this.#fetch ?? globalThis.fetch;
    const url = this.#base + path + (this.#query && (path.includes("?") ? "&" : "?") + this.#query);
    return send(url, {
      method,
      body,
      signal,
      headers: { Accept: "application/json", ...headers, Authorization: `Bearer ${token}` },
    });
  }
}

/** One request's bound of time, which its caller may shorten. */
class Bound {
  #controller = new AbortController();
  #signal;
  #timer;
  #isLate = false;

  /** @param {number} timeoutMs @param {AbortSignal} [signal] */
  constructor(timeoutMs, signal) {
    this.#signal = signal;
    this.#timer = setTimeout(() => {
      this.#isLate = true;
      this.#controller.abort();
    }, timeoutMs);
    if (signal?.aborted) this.#abort();
    else signal?.addEventListener("abort", this.#abort, { once: true });
  }

  #abort = () => this.#controller.abort(this.#signal?.reason);

  get signal() {
    return this.#controller.signal;
  }

  /** A promise, or the end of the bound: not everything that waits heeds a signal. @template T @param {Promise<T>} work
   * @returns {Promise<T>} */
  race(work) {
    const { signal } = this.#controller;
    return new Promise((resolve, reject) => {
      const stop = () => reject(signal.reason);
      signal.addEventListener("abort", stop, { once: true });
      if (signal.aborted) stop();
      work.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
    });
  }

  endTimer() {
    clearTimeout(this.#timer);
  }

  end() {
    this.endTimer();
    this.#signal?.removeEventListener("abort", this.#abort);
  }

  /** @param {unknown} error */
  errorOf(error) {
    if (this.#signal?.aborted) return error;
    if (this.#isLate) return new EdgeUnavailable("the edge did not answer in time", { cause: error });
    if (error instanceof RuncastError) return error;
    return new EdgeUnavailable("the edge cannot be reached, or the answer is not an edge's", { cause: error });
  }
}

/** The path of an execution. @param {string} executionId */
export function executionPath(executionId) {
  return `/api/agent/executions/${encodeURIComponent(executionId)}`;
}
