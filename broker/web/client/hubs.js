/**
 * The worker's end of shared connections: a hub for each stream of each user, with one connection for all of its tabs.
 *
 * A tab is a cursor: it joins its hub when the hub knows every event after it; until then a stream of its own catches
 * up. A tab that takes nothing is left alone until it does, and then joins again from where it stands.
 */

/**
 * @import { StreamControl } from "./events.js"
 * @import { Status } from "./stream.js"
 * @import { FromTab, FromWorker, Item } from "./shared.js"
 */
import { RuncastClient } from "./api.js";
import { backoffMs, RETRY_MS } from "./backoff.js";
import { START } from "./cursor.js";
import { Recent } from "./recent.js";
import { PING_MS } from "./shared.js";
import { AgentStream } from "./stream.js";
import { pause, since, stamp } from "./vigil.js";

/** Items that a tab may leave unread, and the characters of the events among them. */
const MAX_UNREAD = 4_000;
const MAX_UNREAD_SIZE = 16 * 1024 * 1024;
const LOW_UNREAD = 500;
/** A tab without a lock that answers nothing for so long is gone. */
const GONE_MS = 6 * PING_MS;
const ASK_MS = 15_000;
const MAX_TOKENS = 16;

/** @typedef {Extract<FromTab, {kind: "open"}>} Open */

/** All hubs of the worker. */
export class Hubs {
  /** @type {Map<string, Hub>} */
  #hubs = new Map();
  /** @type {Set<Tab>} */
  #tabs = new Set();
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #timer;

  /** A tab has come; what it wants is its first message. @param {MessagePort} port */
  connect(port) {
    port.onmessage = ({ data }) => data.kind === "open" && this.#enter(port, data);
  }

  /** @param {MessagePort} port @param {Open} open */
  #enter(port, open) {
    const hub = this.#hubs.get(open.key) ?? new Hub(open, (gone) => this.#over(open.key, gone));
    this.#hubs.set(open.key, hub);
    const tab = new Tab(port, open, hub, () => this.#left(tab));
    this.#tabs.add(tab);
    this.#timer ??= setInterval(() => this.#ping(), PING_MS);
    tab.ping();
    void hub.enter(tab);
  }

  /** @param {Tab} tab */
  #left(tab) {
    this.#tabs.delete(tab);
    if (this.#tabs.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  /** @param {string} key @param {Hub} hub */
  #over(key, hub) {
    if (this.#hubs.get(key) === hub) this.#hubs.delete(key);
  }

  #ping() {
    for (const tab of [...this.#tabs]) tab.ping();
  }
}

/** One stream, and who follows it. `onOver` is called when no further tab may enter. */
class Hub {
  #open;
  #onOver;
  #client;
  #stream;
  #recent;
  /** @type {Set<Tab>} */
  #tabs = new Set();
  /** @type {string | null} */
  #token;
  /** @type {Set<string>} */
  #tokens = new Set();
  /** The last of each kind, for those who come later. @type {{open: StreamControl | null, live: StreamControl | null}} */
  #told = { open: null, live: null };

  /** @param {Open} open @param {(hub: Hub) => void} onOver */
  constructor(open, onOver) {
    this.#open = open;
    this.#onOver = onOver;
    this.#token = open.token;
    this.#trust(open.token);
    this.#client = new RuncastClient({ baseUrl: open.baseUrl, token: ({ refresh }) => this.#freshToken(refresh) });
    this.#recent = new Recent(open.cursor ?? (open.isFromNow ? null : START));
    this.#stream = this.follow(open.cursor, open.isFromNow, {
      onEvent: (event, size) => this.#event(event, size),
      onControl: (control) => this.#control(control),
      onStatus: (status) => this.#status(status),
    });
  }

  /** A stream of what this hub shows, for one tab or for all. @param {string | null} cursor @param {boolean} isFromNow
   * @param {Pick<import("./stream.js").StreamOptions, "onEvent" | "onControl" | "onStatus">} listeners */
  follow(cursor, isFromNow, listeners) {
    const { path, executionId, query } = this.#open.target;
    const types = query.types?.split(",");
    const from = isFromNow ? "now" : "start";
    return new AgentStream({ client: this.#client, path, executionId, cursor, from, types, ...listeners });
  }

  // --- tabs ---

  /** @param {Tab} tab */
  async enter(tab) {
    const isFirst = this.#tabs.size === 0;
    this.#tabs.add(tab);
    const isGood = isFirst || (await this.#isGood(tab));
    if (tab.isGone) return;
    if (!isGood) return tab.refuse();
    this.#token = tab.token;
    this.#trust(tab.token);
    if (isFirst) {
      tab.isJoined = true;
      this.#stream.start();
    } else {
      this.seat(tab);
    }
  }

  /** @param {Tab} tab */
  leave(tab) {
    this.#tabs.delete(tab);
    if (this.#tabs.size > 0) return;
    this.#onOver(this);
    this.#stream.close();
  }

  /** Let a tab join, or catch up first. @param {Tab} tab */
  seat(tab) {
    if (!this.join(tab, false)) tab.catchUp();
  }

  /** Let a tab join if all after its cursor is known here. `isVetted`: an edge has just taken that cursor.
   * @param {Tab} tab @param {boolean} isVetted */
  join(tab, isVetted) {
    const { phase } = this.#stream.status;
    if (tab.cursor === null && tab.isFromNow) {
      if (phase !== "live" || this.#recent.last === null) return false;
      tab.moveTo(this.#recent.last);
    }
    const cursor = tab.cursor ?? START;
    if (!this.#recent.has(cursor) && !(isVetted && this.#recent.spans(cursor))) return false;
    const missed = this.#recent.after(cursor);
    tab.join(this.#told.open, missed, this.#stream.status, phase === "live" && this.#told.live !== null);
    return true;
  }

  // --- what the stream tells ---

  /** @param {any} event @param {number} size */
  #event(event, size) {
    if (event.id !== undefined) this.#recent.push(event, size);
    for (const tab of this.#tabs) if (tab.isJoined) tab.event(event, size);
  }

  /** @param {StreamControl} control */
  #control(control) {
    if (control.type === "stream:open") this.#told.open = control;
    if (control.type === "stream:live") this.#told.live = control;
    if (control.type === "stream:reset") this.#recent.clear();
    for (const tab of this.#tabs) if (tab.isJoined) tab.control(control);
  }

  /** Also the end of each batch. @param {Status} status */
  #status(status) {
    if (status.lastEventId !== null) this.#recent.place(status.lastEventId);
    for (const tab of [...this.#tabs]) {
      if (tab.isJoined) tab.status(status);
      else if (tab.isCatchingUp) this.join(tab, tab.isLive);
    }
    if (status.phase === "ended" || status.phase === "failed") this.#onOver(this);
  }

  // --- tokens ---

  /** @param {string | null} token */
  #trust(token) {
    if (token === null) return;
    this.#tokens.add(token);
    if (this.#tokens.size > MAX_TOKENS) this.#tokens.delete(/** @type {string} */ (this.#tokens.values().next().value));
  }

  /** What a token claims to be is believed when an edge believes it; one that cannot be asked is asked again.
   * @param {Tab} tab */
  async #isGood({ token, gone }) {
    if (token === null || this.#tokens.has(token)) return true;
    for (let failures = 0; !gone.aborted; failures += 1) {
      const status = await this.#statusFor(token);
      if (status > 0 && status < 500 && status !== 429) return status < 400;
      await pause(backoffMs(failures, RETRY_MS), gone);
    }
    return false;
  }

  /** What an edge answers to a token; 0 if nothing. @param {string} token */
  async #statusFor(token) {
    try {
      const response = await this.#client.send(this.#client.url("/api/agent/executions?limit=1"), { token });
      await response.body?.cancel();
      return response.status;
    } catch {
      return 0;
    }
  }

  /** @param {boolean} refresh */
  async #freshToken(refresh) {
    if (!refresh) return this.#token;
    const than = this.#token;
    for (const tab of [...this.#tabs]) {
      const token = await tab.askToken(than);
      if (token === undefined) continue;
      this.#token = token;
      this.#trust(token);
      return token;
    }
    throw new Error("no tab has a token");
  }
}

/** One stream of one tab. */
class Tab {
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
