/**
 * The worker's end of shared connections: a hub for each stream of each user, with one connection for all of its tabs.
 *
 * A tab is a cursor: it joins its hub when the hub knows every event after it; until then a stream of its own catches
 * up. A tab that takes nothing is left alone until it does, and then joins again from where it stands.
 */

/**
 * @import { StreamControl } from "./events.js"
 * @import { Status } from "./stream.js"
 * @import { Open } from "./tab.js"
 */
import { RuncastClient } from "./api.js";
import { backoffMs, RETRY_MS } from "./backoff.js";
import { START } from "./cursor.js";
import { Recent } from "./recent.js";
import { PING_MS } from "./shared.js";
import { AgentStream } from "./stream.js";
import { Tab } from "./tab.js";
import { pause } from "./vigil.js";

const MAX_TOKENS = 16;

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
export class Hub {
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
