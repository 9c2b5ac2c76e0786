/** A tab as the worker has it: one stream of one tab, with what waits to be taken by it. */

/**
 * @import { StreamControl } from "./events.js"
 * @import { Hub } from "./hubs.js"
 * @import { FromTab, FromWorker, Item } from "./shared.js"
 * @import { AgentStream, Status } from "./stream.js"
 */
import { PING_MS } from "./shared.js";
import { since, stamp } from "./vigil.js";

/** Items that a tab may leave unread, and the characters of the events among them. */
const MAX_UNREAD = 4_000;
const MAX_UNREAD_SIZE = 16 * 1024 * 1024;
const LOW_UNREAD = 500;
/** A tab without a lock that answers nothing for so long is gone. */
const GONE_MS = 6 * PING_MS;
const ASK_MS = 15_000;

/** @typedef {Extract<FromTab, {kind: "open"}>} Open */

/** Made when a tab opens a stream; `onLeft` is called when it has left. */
export class Tab {
  #port;
  #hub;
  #onLeft;
  /** @type {Item[]} */
  #items = [];
  #size = 0;
  #unread = 0;
  #unreadSize = 0;
  #isLagging = false;
  /** Whether it was pinged and has not answered: a frozen tab's pings would wait for it by the thousand. */
  #isPinged = false;
  #answered = stamp();
  #hasLock;
  /** @type {AgentStream | null} */
  #catchUp = null;
  #isTold = { open: false, live: false };
  #asks = 0;
  /** @type {Map<number, (token: string | null | undefined) => void>} */
  #waiting = new Map();
  #gone = new AbortController();
  isJoined = false;

  /** @param {MessagePort} port @param {Open} open @param {Hub} hub @param {() => void} onLeft */
  constructor(port, open, hub, onLeft) {
    this.#port = port;
    this.#hub = hub;
    this.#onLeft = onLeft;
    this.token = open.token;
    this.isFromNow = open.isFromNow;
    /** After which event it is. */
    this.cursor = open.cursor;
    this.#hasLock = open.lock !== null;
    port.onmessage = ({ data }) => this.#take(data);
    // It gets the lock when the tab lets go of it, by dying if need be.
    if (open.lock !== null) navigator.locks.request(open.lock, () => this.leave()).catch(() => (this.#hasLock = false));
  }

  /** Aborted when it has left. */
  get gone() {
    return this.#gone.signal;
  }

  get isGone() {
    return this.gone.aborted;
  }

  get isCatchingUp() {
    return this.#catchUp !== null;
  }

  /** Whether the stream by which it catches up has shown all that was. */
  get isLive() {
    return this.#catchUp?.status.phase === "live";
  }

  ping() {
    if (!this.#hasLock && since(this.#answered) > GONE_MS) return this.leave();
    if (this.#isPinged) return;
    this.#isPinged = true;
    this.#post({ kind: "ping" });
  }

  refuse() {
    this.#items.push({ refused: true });
    this.#flush();
    this.leave();
  }

  leave() {
    if (this.isGone) return;
    this.#gone.abort();
    this.isJoined = false;
    this.#endCatchUp();
    this.#port.close();
    for (const answer of this.#waiting.values()) answer(undefined);
    this.#onLeft();
    this.#hub.leave(this);
  }

  // --- from the hub ---

  /** @param {StreamControl | null} open @param {{event: any, size: number}[]} missed @param {Status} status
   * @param {boolean} isLive */
  join(open, missed, status, isLive) {
    this.#endCatchUp();
    this.isJoined = true;
    if (open !== null && !this.#isTold.open) this.control(open);
    for (const { event, size } of missed) this.event(event, size);
    if (isLive && !this.#isTold.live) this.control({ type: "stream:live", data: { replayed: missed.length } });
    this.status(status);
  }

  /** @param {any} event @param {number} size */
  event(event, size) {
    this.cursor = event.id ?? this.cursor;
    this.#items.push({ event, size });
    this.#size += size;
  }

  /** @param {string} id */
  moveTo(id) {
    this.cursor = id;
    this.#items.push({ place: id });
  }

  /** @param {StreamControl} control */
  control(control) {
    if (control.type === "stream:open") this.#isTold.open = true;
    if (control.type === "stream:live") this.#isTold.live = true;
    this.#items.push({ control });
    this.#flush(); // no other news may follow for long
  }

  /** @param {Status} status */
  status({ phase, reconnects, retryAt, connectedAt, error, lastEventId }) {
    if (lastEventId !== null && lastEventId !== this.cursor) this.moveTo(lastEventId);
    this.#items.push({ change: { phase, reconnects, retryAt, connectedAt, error: plain(error) } });
    this.#flush();
  }

  // --- on its own ---

  catchUp() {
    const stream = this.#hub.follow(this.cursor, this.isFromNow, {
      onEvent: (event, size) => this.event(event, size),
      onControl: (control) => this.control(control),
      onStatus: (status) => {
        if (this.#catchUp !== stream) return;
        this.status(status);
        if (!this.#isLagging && this.#catchUp === stream) this.#hub.join(this, status.phase === "live");
      },
    });
    this.#catchUp = stream;
    stream.start();
  }

  #endCatchUp() {
    const stream = this.#catchUp;
    this.#catchUp = null;
    stream?.close();
  }

  // --- the port ---

  /** @param {FromTab} message */
  #take(message) {
    this.#answered = stamp();
    this.#isPinged = false;
    if (message.kind === "close") this.leave();
    else if (message.kind === "ack") this.#read(message);
    else if (message.kind === "token") this.#waiting.get(message.ask)?.(message.failed ? undefined : message.token);
  }

  /** @param {Extract<FromTab, {kind: "ack"}>} ack */
  #read({ count, size }) {
    this.#unread -= count;
    this.#unreadSize -= size;
    if (!this.#isLagging || this.#unread > LOW_UNREAD) return;
    this.#isLagging = false;
    this.#hub.seat(this);
  }

  #flush() {
    if (this.#items.length === 0 || this.isGone) return;
    const [items, size] = [this.#items, this.#size];
    this.#items = [];
    this.#size = 0;
    this.#unread += items.length;
    this.#unreadSize += size;
    this.#post({ kind: "items", items, size });
    if (this.#unread <= MAX_UNREAD && this.#unreadSize <= MAX_UNREAD_SIZE) return;
    this.#isLagging = true;
    this.isJoined = false;
    this.#endCatchUp();
  }

  /** A newer token than this one; undefined if the tab does not say. @param {string | null} than
   * @returns {Promise<string | null | undefined>} */
  askToken(than) {
    const ask = ++this.#asks;
    return new Promise((/** @type {(token: string | null | undefined) => void} */ resolve) => {
      const timer = setTimeout(() => answer(undefined), ASK_MS);
      /** @param {string | null | undefined} token */
      const answer = (token) => {
        clearTimeout(timer);
        this.#waiting.delete(ask);
        resolve(token);
      };
      this.#waiting.set(ask, answer);
      this.#post({ kind: "ask", ask, than });
    });
  }

  /** @param {FromWorker} message */
  #post(message) {
    this.#port.postMessage(message);
  }
}

/** An error that a port can carry, with what a `RuncastError` has. @param {Error | null} error @returns {any} */
function plain(error) {
  return error === null ? null : { ...error, message: error.message };
}
