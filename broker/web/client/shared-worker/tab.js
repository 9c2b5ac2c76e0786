/** A tab, as the worker sees it: one stream of one tab, and the items that the tab has not read yet. */

/**
 * @import { StreamControl } from "../events.js"
 * @import { AgentStream, Status } from "../stream.js"
 * @import { FromTab, FromWorker, Item, Open } from "./messages.js"
 * @import { SharedStream } from "./shared-streams.js"
 */
import { since, stamp } from "../clock.js";
import { PING_MS } from "./messages.js";

/** Limits of what a tab may leave unread: items, and characters of the events among them. */
const MAX_UNREAD = 4_000;
const MAX_UNREAD_SIZE = 16 * 1024 * 1024;
const LOW_UNREAD = 500;
/** A tab without a lock is gone if it has not answered for this long. */
const GONE_MS = 6 * PING_MS;
const TOKEN_MS = 15_000;

/** Created when a tab opens a stream; `onGone` is called when it has left. */
export class Tab {
  #port;
  #stream;
  #onGone;
  /** @type {Item[]} */
  #items = [];
  #size = 0;
  #unread = 0;
  #unreadSize = 0;
  #isLagging = false;
  /** Whether a ping is unanswered. No second one is sent: in the queue of a frozen tab they would pile up. */
  #isPinged = false;
  #answered = stamp();
  #hasLock;
  /** @type {AgentStream | null} */
  #catchUp = null;
  #sentControls = { open: false, live: false };
  #asks = 0;
  /** @type {Map<number, (token: string | null | undefined) => void>} */
  #waiting = new Map();
  #gone = new AbortController();
  isJoined = false;

  /** @param {MessagePort} port @param {Open} open @param {SharedStream} stream @param {() => void} onGone */
  constructor(port, open, stream, onGone) {
    this.#port = port;
    this.#stream = stream;
    this.#onGone = onGone;
    this.token = open.token;
    this.isFromNow = open.isFromNow;
    /** The id of the last event that was sent to the tab. */
    this.cursor = open.cursor;
    this.#hasLock = open.lock !== null;
    port.onmessage = ({ data }) => this.#take(data);
    // The worker gets the lock when the tab releases it, or has died.
    if (open.lock !== null) navigator.locks.request(open.lock, () => this.leave()).catch(() => (this.#hasLock = false));
  }

  /** Aborted when the tab has left. */
  get gone() {
    return this.#gone.signal;
  }

  get isGone() {
    return this.gone.aborted;
  }

  get isCatchingUp() {
    return this.#catchUp !== null;
  }

  /** Whether the stream that catches up is live. */
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
    this.#onGone();
    this.#stream.removeTab(this);
  }

  // --- called by the shared stream ---

  /** @param {StreamControl | null} open @param {{event: any, size: number}[]} missed @param {Status} status
   * @param {boolean} isLive */
  join(open, missed, status, isLive) {
    this.#endCatchUp();
    this.isJoined = true;
    if (open !== null && !this.#sentControls.open) this.control(open);
    for (const { event, size } of missed) this.event(event, size);
    if (isLive && !this.#sentControls.live) this.control({ type: "stream:live", data: { replayed: missed.length } });
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
    this.#items.push({ position: id });
  }

  /** @param {StreamControl} control */
  control(control) {
    if (control.type === "stream:open") this.#sentControls.open = true;
    if (control.type === "stream:live") this.#sentControls.live = true;
    this.#items.push({ control });
    this.#flush(); // a status, which flushes as well, may not follow for a long time
  }

  /** @param {Status} status */
  status({ phase, reconnects, retryAt, connectedAt, error, lastEventId }) {
    if (lastEventId !== null && lastEventId !== this.cursor) this.moveTo(lastEventId);
    this.#items.push({ change: { phase, reconnects, retryAt, connectedAt, error: plain(error) } });
    this.#flush();
  }

  // --- catching up, on a stream of its own ---

  catchUp() {
    const stream = this.#stream.newStream(this.cursor, this.isFromNow, {
      onEvent: (event, size) => this.event(event, size),
      onControl: (control) => this.control(control),
      onStatus: (status) => {
        if (this.#catchUp !== stream) return;
        this.status(status);
        if (!this.#isLagging && this.#catchUp === stream) this.#stream.join(this, status.phase === "live");
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
    else if (message.kind === "ack") this.#acknowledged(message);
    else if (message.kind === "token") this.#waiting.get(message.ask)?.(message.failed ? undefined : message.token);
  }

  /** @param {Extract<FromTab, {kind: "ack"}>} ack */
  #acknowledged({ count, size }) {
    this.#unread -= count;
    this.#unreadSize -= size;
    if (!this.#isLagging || this.#unread > LOW_UNREAD) return;
    this.#isLagging = false;
    this.#stream.joinOrCatchUp(this);
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

  /** A newer token than this one; undefined if the tab does not answer or has none. @param {string | null} than
   * @returns {Promise<string | null | undefined>} */
  requestToken(than) {
    const ask = ++this.#asks;
    return new Promise((/** @type {(token: string | null | undefined) => void} */ resolve) => {
      const timer = setTimeout(() => answer(undefined), TOKEN_MS);
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

/** An error in a form that a port can carry, with the fields of a `RuncastError`. @param {Error | null} error
 * @returns {any} */
function plain(error) {
  return error === null ? null : { ...error, message: error.message };
}
