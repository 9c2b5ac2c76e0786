/**
 * A tab's end of a connection that all tabs share, in a `SharedWorker`: browsers allow six connections of HTTP/1.1 to
 * one origin, over all of its tabs.
 */

/**
 * @import { RuncastClient } from "./api.js"
 * @import { StreamControl } from "./events.js"
 * @import { Sequence } from "./cursor.js"
 * @import { Sink, Status, Target } from "./stream.js"
 *
 * What a tab says: `open` (once), `ack` for each `items`, `token` for each `ask`, `pong` for each `ping`, `close`.
 * What the worker says: `items`, `ask`, `ping`.
 */

/**
 * @typedef {{kind: "open", key: string, baseUrl: string, target: Target, cursor: string | null, isFromNow: boolean,
 *   token: string | null, lock: string | null}
 *   | {kind: "ack", count: number, size: number}
 *   | {kind: "token", ask: number, token?: string | null, failed?: boolean}
 *   | {kind: "pong"} | {kind: "close"}} FromTab
 * @typedef {{event: any, size: number} | {place: string} | {control: StreamControl}
 *   | {change: Partial<Status>} | {refused: true}} Item
 * @typedef {{kind: "items", items: Item[], size: number} | {kind: "ask", ask: number, than: string | null} | {kind: "ping"}} FromWorker
 */
import { backoffMs, RETRY_MS } from "./backoff.js";
import { RuncastError } from "./errors.js";
import { VERSION } from "./version.js";
import { pause, since, stamp } from "./vigil.js";

export const PING_MS = 10_000;
const LOST_MS = 3.5 * PING_MS;
const HELLO_MS = 5_000;
const LOOK_MS = 1_000;
const NOT_LOADED = "the script of the shared worker cannot be loaded; `workerUrl` is its address";
/** Why a worker cannot be had on this page, by the address that was given for it. @type {Map<string, string>} */
const unavailable = new Map();
/** Not spelled out in `new URL`: there a bundler would take the worker for an asset, and not bundle what it imports. */
const HERE = import.meta.url;

/** From `start` to `stop`, once, as a `Connection`. Calls `instead`, with the reason, when there is no sharing here. */
export class SharedConnection {
  #client;
  #target;
  #sequence;
  #sink;
  #instead;
  #stop = new AbortController();
  /** @type {MessagePort | null} */
  #port = null;
  #heard = stamp();
  #isGreeted = false;
  #failures = 0;

  /** @param {RuncastClient} client @param {Target} target @param {Sequence} sequence @param {Sink} sink
   * @param {(reason: string) => void} instead */
  constructor(client, target, sequence, sink, instead) {
    this.#client = client;
    this.#target = target;
    this.#sequence = sequence;
    this.#sink = sink;
    this.#instead = instead;
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
    if (known !== undefined) return this.#instead(known);
    try {
      await this.#stay();
    } catch (error) {
      // No worker here: no SharedWorker, a foreign origin, a policy.
      if (!this.#stop.signal.aborted) this.#giveUp(error instanceof Error ? error.message : String(error));
    }
  }

  /** No stream of this page needs to try again. @param {string} reason */
  #giveUp(reason) {
    unavailable.set(String(this.#target.workerUrl), reason);
    this.#instead(reason);
  }

  /** Keep a port open until `stop`; a worker that falls silent is left. */
  async #stay() {
    const lock = await heldLock(this.#stop.signal);
    while (!this.#stop.signal.aborted) {
      const token = await this.#token(); // now, for a page may have been frozen for longer than a token lives
      if (this.#stop.signal.aborted) return;
      const identity = identityOf(token, this.#target.identity);
      if (this.#client.hasFetch) return this.#instead("the client has a `fetch` of its own");
      if (identity === null) return this.#instead("whose cookie it is must be given as `identity`");
      this.#open(token, identity, lock);
      await this.#silence();
      if (this.#stop.signal.aborted) return;
      this.#leave();
      if (!this.#isGreeted) return this.#instead("the shared worker does not answer");
      this.#isGreeted = false;
    }
  }

  /** Resolves when the worker has said nothing for too long. */
  async #silence() {
    while (!this.#stop.signal.aborted && since(this.#heard) < (this.#isGreeted ? LOST_MS : HELLO_MS)) {
      await pause(LOOK_MS, this.#stop.signal);
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
    worker.onerror = () => this.#isGreeted || this.#stop.signal.aborted || this.#giveUp(NOT_LOADED);
    const port = (this.#port = worker.port);
    port.onmessage = ({ data }) => port === this.#port && this.#take(data);
    this.#heard = stamp();
    const { cursor, isFromNow } = this.#sequence;
    const baseUrl = this.#client.url("/");
    const key = JSON.stringify([identity, baseUrl, target.path, target.query.types]);
    this.#say({ kind: "open", key, baseUrl, target, cursor, isFromNow, token, lock });
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
  #say(message) {
    this.#port?.postMessage(message);
  }

  /** @param {FromWorker} message */
  #take(message) {
    this.#heard = stamp();
    this.#isGreeted = true;
    if (message.kind === "ping") return this.#say({ kind: "pong" });
    if (message.kind === "ask") return void this.#answer(message.ask, message.than);
    this.#say({ kind: "ack", count: message.items.length, size: message.size });
    for (const item of message.items) if (!this.#stop.signal.aborted) this.#item(item);
    this.#sink.batch();
  }

  /** @param {number} ask @param {string | null} than */
  async #answer(ask, than) {
    try {
      this.#say({ kind: "token", ask, token: await this.#client.newerToken(than) });
    } catch {
      this.#say({ kind: "token", ask, failed: true });
    }
  }

  /** @param {Item} item */
  #item(item) {
    if ("event" in item) this.#event(item.event, item.size);
    else if ("place" in item) this.#sequence.place(item.place);
    else if ("control" in item) this.#control(item.control);
    else if ("change" in item) this.#sink.change(revived(item.change));
    else this.#instead("the edge did not take the token for that of the other tabs' user");
  }

  /** @param {any} event @param {number} size */
  #event(event, size) {
    const verdict = event.id === undefined ? "next" : this.#sequence.take(event.id);
    if (verdict === "next") this.#sink.event(event, size);
    else if (verdict === "gap") this.#heard = { wall: 0, steady: 0 }; // leave, and come back with our cursor
  }

  /** @param {StreamControl} control */
  #control(control) {
    if (control.type === "stream:reset") this.#sequence.reset(control.data.reason);
    this.#sink.control(control);
  }
}

/** What the worker says of an error, as an error again. @param {Partial<Status>} change @returns {Partial<Status>} */
function revived(change) {
  if (!change.error) return change;
  return { ...change, error: new RuncastError(change.error.message, change.error) };
}

/**
 * Who it is, for tabs to know each other by: of a token its claims (a renewed one has the same); with a cookie, which
 * no script can read, what the application says. Null: nobody knows.
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

/** A lock that this tab holds until then, or until it dies: how the worker learns of that. Null where there are none, or
 * none are allowed. @param {AbortSignal} signal @returns {Promise<string | null>} */
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
  const url = given ?? (isOnItsOwn() ? new URL("./shared-worker.js", HERE) : undefined);
  if (url !== undefined) return new SharedWorker(trusted(url), options);
  // In one expression, its options spelled out: this is how bundlers find the worker. The name has `VERSION`.
  return new SharedWorker(new URL("./shared-worker.js", import.meta.url), { type: "module", name: "runcast 0.1.0" });
}

/** Whether this module is served as it is, its worker beside it, and not part of a bundle. */
function isOnItsOwn() {
  const { origin, pathname } = new URL(HERE);
  return origin === globalThis.location?.origin && pathname.endsWith("/shared.js");
}

/** Made once: a page's policy may allow the name `runcast`, and no second of a name. @type {any} */
let policy;

/** A script's address for pages whose policy asks for such (`require-trusted-types-for`); others take it too.
 * @param {string | URL} url @returns {any} */
function trusted(url) {
  const { trustedTypes } = /** @type {any} */ (globalThis);
  if (trustedTypes === undefined || trustedTypes.isScriptURL(url)) return url;
  try {
    policy ??= trustedTypes.createPolicy("runcast", { createScriptURL: (/** @type {string} */ given) => given });
  } catch {
    return url; // a name that the page's policy does not allow; perhaps it does not ask for such addresses
  }
  return policy.createScriptURL(String(url));
}
