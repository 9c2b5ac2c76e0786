/**
 * The tab's side of a shared stream. One connection, in a `SharedWorker`, serves all tabs: browsers open at most six
 * connections of HTTP/1.1 to a host, counted over all tabs.
 */

/**
 * @import { RuncastClient } from "../api.js"
 * @import { StreamControl } from "../events.js"
 * @import { Sequence } from "../cursor.js"
 * @import { Sink, Status, Target } from "../stream.js"
 * @import { FromTab, FromWorker, Item } from "./messages.js"
 */
import { backoffMs, RETRY_MS } from "../backoff.js";
import { pause, since, stamp } from "../clock.js";
import { RuncastError } from "../errors.js";
import { VERSION } from "../version.js";
import { PING_MS } from "./messages.js";

const LOST_MS = 3.5 * PING_MS;
const FIRST_MESSAGE_MS = 5_000;
const CHECK_MS = 1_000;
const NOT_LOADED = "the script of the shared worker cannot be loaded; set its address as `workerUrl`";
/** Why this page has no worker, by `workerUrl`. @type {Map<string, string>} */
const unavailable = new Map();
/** A constant, because bundlers search for `new URL(…, import.meta.url)`: outside of `new SharedWorker` they would copy
 * the worker as an asset, without the modules that it imports. */
const HERE = import.meta.url;

/** Used like a `Connection`: one `start`, one `stop`. Calls `onUnavailable`, with the reason, if sharing is not
 * possible. */
export class SharedConnection {
  #client;
  #target;
  #sequence;
  #sink;
  #onUnavailable;
  #stop = new AbortController();
  /** @type {MessagePort | null} */
  #port = null;
  #received = stamp();
  #hasAnswered = false;
  #failures = 0;

  /** @param {RuncastClient} client @param {Target} target @param {Sequence} sequence @param {Sink} sink
   * @param {(reason: string) => void} onUnavailable */
  constructor(client, target, sequence, sink, onUnavailable) {
    this.#client = client;
    this.#target = target;
    this.#sequence = sequence;
    this.#sink = sink;
    this.#onUnavailable = onUnavailable;
  }

  start() {
    void this.#run();
  }

  stop() {
    this.#stop.abort();
    this.#leave();
  }

  async #run() {
    const known = unavailable.get(String(this.#target.workerUrl));
    if (known !== undefined) return this.#onUnavailable(known);
    try {
      await this.#keepOpen();
    } catch (error) {
      // The browser has no SharedWorker, the script is of another origin, or a policy forbids it.
      if (!this.#stop.signal.aborted) this.#giveUp(error instanceof Error ? error.message : String(error));
    }
  }

  /** Remembered, so that no other stream of this page tries it. @param {string} reason */
  #giveUp(reason) {
    unavailable.set(String(this.#target.workerUrl), reason);
    this.#onUnavailable(reason);
  }

  /** Keep a port to the worker open until `stop`; open another one when the worker is silent for too long. */
  async #keepOpen() {
    const lock = await heldLock(this.#stop.signal);
    while (!this.#stop.signal.aborted) {
      const token = await this.#token(); // again each time: a page may be frozen for longer than its token is valid
      if (this.#stop.signal.aborted) return;
      const identity = identityOf(token, this.#target.identity);
      if (this.#client.hasFetch) return this.#onUnavailable("the client has a `fetch` of its own");
      if (identity === null) return this.#onUnavailable("a shared stream with a cookie needs `identity`");
      this.#open(token, identity, lock);
      await this.#silence();
      if (this.#stop.signal.aborted) return;
      this.#leave();
      if (!this.#hasAnswered) return this.#onUnavailable("the shared worker does not answer");
      this.#hasAnswered = false;
    }
  }

  /** Resolves when the worker has been silent for too long. */
  async #silence() {
    while (!this.#stop.signal.aborted && since(this.#received) < (this.#hasAnswered ? LOST_MS : FIRST_MESSAGE_MS)) {
      await pause(CHECK_MS, this.#stop.signal);
    }
  }

  /** @returns {Promise<string | null>} */
  async #token() {
    for (;;) {
      try {
        return await this.#client.token();
      } catch (error) {
        const delayMs = backoffMs(this.#failures++, RETRY_MS);
        this.#sink.change({ phase: "waiting", error: /** @type {Error} */ (error), retryAt: Date.now() + delayMs });
        await pause(delayMs, this.#stop.signal);
        this.#stop.signal.throwIfAborted();
      }
    }
  }

  // --- the port ---

  /** @param {string | null} token @param {string} identity @param {string | null} lock */
  #open(token, identity, lock) {
    const { workerUrl, ...target } = this.#target;
    const worker = sharedWorker(workerUrl);
    worker.onerror = () => this.#hasAnswered || this.#stop.signal.aborted || this.#giveUp(NOT_LOADED);
    const port = (this.#port = worker.port);
    port.onmessage = ({ data }) => port === this.#port && this.#take(data);
    this.#received = stamp();
    const { cursor, isFromNow } = this.#sequence;
    const { as } = this.#client;
    const baseUrl = this.#client.url("/", { user: null, org: null });
    const key = JSON.stringify([identity, baseUrl, as, target.path, target.query.types, target.query.compact]);
    this.#send({ kind: "open", key, baseUrl, as, target, cursor, isFromNow, token, lock });
  }

  #leave() {
    const port = this.#port;
    this.#port = null;
    if (port === null) return;
    port.onmessage = null;
    port.postMessage({ kind: "close" });
    port.close();
  }

  /** @param {FromTab} message */
  #send(message) {
    this.#port?.postMessage(message);
  }

  /** @param {FromWorker} message */
  #take(message) {
    this.#received = stamp();
    this.#hasAnswered = true;
    if (message.kind === "ping") return this.#send({ kind: "pong" });
    if (message.kind === "ask") return void this.#answer(message.ask, message.than);
    this.#send({ kind: "ack", count: message.items.length, size: message.size });
    for (const item of message.items) if (!this.#stop.signal.aborted) this.#item(item);
    this.#sink.batch();
  }

  /** @param {number} ask @param {string | null} than */
  async #answer(ask, than) {
    try {
      this.#send({ kind: "token", ask, token: await this.#client.newerToken(than) });
    } catch {
      this.#send({ kind: "token", ask, failed: true });
    }
  }

  /** @param {Item} item */
  #item(item) {
    if ("event" in item) this.#event(item.event, item.size);
    else if ("position" in item) this.#sequence.moveTo(item.position);
    else if ("control" in item) this.#control(item.control);
    else if ("change" in item) this.#sink.change(revived(item.change));
    else this.#onUnavailable("the edge did not accept this tab's token");
  }

  /** @param {any} event @param {number} size */
  #event(event, size) {
    const verdict = event.id === undefined ? "next" : this.#sequence.take(event.id, event.type);
    if (verdict === "next") this.#sink.event(event, size);
    else if (verdict === "gap") this.#received = { wall: 0, steady: 0 }; // long ago: `#keepOpen` opens another port
  }

  /** @param {StreamControl} control */
  #control(control) {
    if (control.type === "stream:reset") this.#sequence.reset(control.data.reason);
    this.#sink.control(control);
  }
}

/** The change, with its error as an instance of `RuncastError` again. @param {Partial<Status>} change
 * @returns {Partial<Status>} */
function revived(change) {
  if (!change.error) return change;
  return { ...change, error: new RuncastError(change.error.message, change.error) };
}

/**
 * The user's identity: tabs of the same identity share a stream. With a token these are its claims, which a renewed
 * token repeats. A cookie cannot be read by scripts: with one it is the application's `identity`. Null: not known.
 * @param {string | null} token @param {string} [given]
 */
export function identityOf(token, given) {
  if (token === null) return given === undefined ? null : "cookie " + given;
  try {
    const payload = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const { iss, org, sub, scope } = JSON.parse(new TextDecoder().decode(bytesOf(atob(payload))));
    return typeof sub === "string" ? "token " + JSON.stringify([iss, org, sub, scope]) : token;
  } catch {
    return token;
  }
}

/** @param {string} binary */
function bytesOf(binary) {
  return Uint8Array.from(binary, (character) => character.charCodeAt(0));
}

/** The name of a lock that this tab holds until `signal` is aborted or the tab dies: the worker notices that it is
 * released. Null if the browser has no locks, or forbids them. @param {AbortSignal} signal
 * @returns {Promise<string | null>} */
async function heldLock(signal) {
  if (globalThis.navigator?.locks === undefined) return null;
  const name = "runcast " + Array.from(crypto.getRandomValues(new Uint32Array(4))).join("-");
  const released = new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
  return new Promise((/** @type {(name: string | null) => void} */ resolve) => {
    const hold = () => (resolve(name), released);
    navigator.locks.request(name, hold).catch(() => resolve(null));
  });
}

/** @param {string | URL} [given] the address of its script */
function sharedWorker(given) {
  if (!("SharedWorker" in globalThis)) throw new Error("this browser has no SharedWorker");
  const options = { type: /** @type {const} */ ("module"), name: "runcast " + VERSION };
  const url = given ?? (isUnbundled() ? new URL("../shared-worker.js", HERE) : undefined);
  if (url !== undefined) return new SharedWorker(trusted(url), options);
  // Bundlers find the worker by this one expression with literal options. The name contains `VERSION`.
  return new SharedWorker(new URL("../shared-worker.js", import.meta.url), { type: "module", name: "runcast 0.3.0" });
}

/** Whether this module is served as a file of its own, with the worker's script at its place, not as part of a bundle.
 * */
function isUnbundled() {
  const { origin, pathname } = new URL(HERE);
  return origin === globalThis.location?.origin && pathname.endsWith("/shared-worker/shared-connection.js");
}

/** Created once: a page's policy may allow the name `runcast`, and forbid a second policy of that name. @type {any} */
let policy;

/** The script's address as a `TrustedScriptURL`, which some pages require (`require-trusted-types-for`).
 * @param {string | URL} url @returns {any} */
function trusted(url) {
  const { trustedTypes } = /** @type {any} */ (globalThis);
  if (trustedTypes === undefined || trustedTypes.isScriptURL(url)) return url;
  try {
    policy ??= trustedTypes.createPolicy("runcast", { createScriptURL: (/** @type {string} */ given) => given });
  } catch {
    return url; // the page forbids the name; it may still accept a plain address
  }
  return policy.createScriptURL(String(url));
}
