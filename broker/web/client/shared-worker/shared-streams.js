/**
 * The worker's side of shared streams: one stream, and one connection, for all tabs of a user that read the same thing.
 *
 * A tab is a cursor. It joins the shared stream when every event after its cursor is among the recent events; until
 * then a stream of its own catches up. A tab that does not read gets nothing more until it reads; then it joins again
 * from its cursor.
 */

/**
 * @import { StreamControl } from "../events.js"
 * @import { Status, StreamOptions } from "../stream.js"
 * @import { Open } from "./messages.js"
 */
import { RuncastClient } from "../api.js";
import { backoffMs, RETRY_MS } from "../backoff.js";
import { pause } from "../clock.js";
import { START } from "../cursor.js";
import { AgentStream } from "../stream.js";
import { PING_MS } from "./messages.js";
import { RecentEvents } from "./recent-events.js";
import { Tab } from "./tab.js";

const MAX_TOKENS = 16;

/** All shared streams of the worker, by key: user, edge, whose, path, filter, and whether deltas are joined. */
export class SharedStreams {
  /** @type {Map<string, SharedStream>} */
  #streams = new Map();
  /** @type {Set<Tab>} */
  #tabs = new Set();
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #timer;

  /** A tab has connected; its first message is `open`. @param {MessagePort} port */
  connect(port) {
    port.onmessage = ({ data }) => data.kind === "open" && this.#open(port, data);
  }

  /** @param {MessagePort} port @param {Open} open */
  #open(port, open) {
    const stream = this.#streams.get(open.key) ?? new SharedStream(open, (closed) => this.#remove(open.key, closed));
    this.#streams.set(open.key, stream);
    const tab = new Tab(port, open, stream, () => this.#removeTab(tab));
    this.#tabs.add(tab);
    this.#timer ??= setInterval(() => this.#ping(), PING_MS);
    tab.ping();
    void stream.addTab(tab);
  }

  /** @param {Tab} tab */
  #removeTab(tab) {
    this.#tabs.delete(tab);
    if (this.#tabs.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  /** @param {string} key @param {SharedStream} stream */
  #remove(key, stream) {
    if (this.#streams.get(key) === stream) this.#streams.delete(key);
  }

  #ping() {
    for (const tab of [...this.#tabs]) tab.ping();
  }
}

/** One stream and its tabs. `onOver` is called when it takes no further tab. */
export class SharedStream {
  #open;
  #onOver;
  #client;
  #stream;
  #recent;
  /** @type {Set<Tab>} */
  #tabs = new Set();
  /** @type {string | null} */
  #token;
  /** Tokens that an edge accepted. @type {Set<string>} */
  #accepted = new Set();
  /** The last control of each kind, for tabs that join later.
   * @type {{open: StreamControl | null, live: StreamControl | null}} */
  #lastControls = { open: null, live: null };

  /** @param {Open} open of the first tab @param {(stream: SharedStream) => void} onOver */
  constructor(open, onOver) {
    this.#open = open;
    this.#onOver = onOver;
    this.#token = open.token;
    this.#rememberToken(open.token);
    const { baseUrl, as } = open;
    this.#client = new RuncastClient({ baseUrl, as, token: ({ refresh }) => this.#currentToken(refresh) });
    const isCompact = open.target.query.compact === "true";
    this.#recent = new RecentEvents(open.cursor ?? (open.isFromNow ? null : START), isCompact);
    this.#stream = this.newStream(open.cursor, open.isFromNow, {
      onEvent: (event, size) => this.#event(event, size),
      onControl: (control) => this.#control(control),
      onStatus: (status) => this.#status(status),
    });
  }

  /** A stream with this target, for one tab or for all. @param {string | null} cursor @param {boolean} isFromNow
   * @param {Pick<StreamOptions, "onEvent" | "onControl" | "onStatus">} listeners */
  newStream(cursor, isFromNow, listeners) {
    const { path, executionId, query } = this.#open.target;
    const types = query.types?.split(",");
    const from = isFromNow ? "now" : "start";
    const compact = query.compact === "true";
    return new AgentStream({ client: this.#client, path, executionId, cursor, from, types, compact, ...listeners });
  }

  // --- tabs ---

  /** @param {Tab} tab */
  async addTab(tab) {
    const isFirst = this.#tabs.size === 0;
    this.#tabs.add(tab);
    const isAccepted = isFirst || (await this.#isAccepted(tab));
    if (tab.isGone) return;
    if (!isAccepted) return tab.refuse();
    this.#token = tab.token;
    this.#rememberToken(tab.token);
    if (isFirst) {
      tab.isJoined = true;
      this.#stream.start();
    } else {
      this.joinOrCatchUp(tab);
    }
  }

  /** @param {Tab} tab */
  removeTab(tab) {
    this.#tabs.delete(tab);
    if (this.#tabs.size > 0) return;
    this.#onOver(this);
    this.#stream.close();
  }

  /** @param {Tab} tab */
  joinOrCatchUp(tab) {
    if (!this.join(tab, false)) tab.catchUp();
  }

  /** Let a tab join if every event after its cursor is known here; whether it joined.
   * @param {Tab} tab @param {boolean} isVerified whether an edge has just accepted the tab's cursor */
  join(tab, isVerified) {
    const { phase } = this.#stream.status;
    if (tab.cursor === null && tab.isFromNow) {
      if (phase !== "live" || this.#recent.last === null) return false;
      tab.moveTo(this.#recent.last);
    }
    const cursor = tab.cursor ?? START;
    if (!this.#recent.has(cursor) && !(isVerified && this.#recent.spans(cursor))) return false;
    const missed = this.#recent.after(cursor);
    const isLive = phase === "live" && this.#lastControls.live !== null;
    tab.join(this.#lastControls.open, missed, this.#stream.status, isLive);
    return true;
  }

  // --- callbacks of the stream ---

  /** @param {any} event @param {number} size */
  #event(event, size) {
    if (event.id !== undefined) this.#recent.push(event, size);
    for (const tab of this.#tabs) if (tab.isJoined) tab.event(event, size);
  }

  /** @param {StreamControl} control */
  #control(control) {
    if (control.type === "stream:open") this.#lastControls.open = control;
    if (control.type === "stream:live") this.#lastControls.live = control;
    if (control.type === "stream:reset") this.#recent.clear();
    for (const tab of this.#tabs) if (tab.isJoined) tab.control(control);
  }

  /** Called after each batch of events, too. @param {Status} status */
  #status(status) {
    if (status.lastEventId !== null) this.#recent.moveTo(status.lastEventId);
    for (const tab of [...this.#tabs]) {
      if (tab.isJoined) tab.status(status);
      else if (tab.isCatchingUp) this.join(tab, tab.isLive);
    }
    if (status.phase === "ended" || status.phase === "failed") this.#onOver(this);
  }

  // --- tokens ---

  /** @param {string | null} token */
  #rememberToken(token) {
    if (token === null) return;
    this.#accepted.add(token);
    if (this.#accepted.size > MAX_TOKENS)
      this.#accepted.delete(/** @type {string} */ (this.#accepted.values().next().value));
  }

  /** Whether an edge accepts the tab's token: its claims alone do not prove that it is the same user. The question is
   * repeated until an edge answers. @param {Tab} tab */
  async #isAccepted({ token, gone }) {
    if (token === null || this.#accepted.has(token)) return true;
    for (let failures = 0; !gone.aborted; failures += 1) {
      const status = await this.#statusFor(token);
      if (status > 0 && status < 500 && status !== 429) return status < 400;
      await pause(backoffMs(failures, RETRY_MS), gone);
    }
    return false;
  }

  /** The HTTP status of an edge's answer to a token; 0 without an answer. @param {string} token */
  async #statusFor(token) {
    try {
      const response = await this.#client.send(this.#client.url("/api/agent/executions?limit=1"), { token });
      await response.body?.cancel();
      return response.status;
    } catch {
      return 0;
    }
  }

  /** @param {boolean} refresh whether a newer token is needed: the tabs are asked, one after the other */
  async #currentToken(refresh) {
    if (!refresh) return this.#token;
    const than = this.#token;
    for (const tab of [...this.#tabs]) {
      const token = await tab.requestToken(than);
      if (token === undefined) continue;
      this.#token = token;
      this.#rememberToken(token);
      return token;
    }
    throw new Error("no tab has a newer token");
  }
}
