/**
 * The live list of a user's executions: the edge's list, kept current by the feed.
 *
 * @import { RuncastClient } from "./api.js"
 * @import { FeedItem } from "./execution-list.js"
 * @import { StreamEvent } from "./events.js"
 * @import { Status, StreamOptions } from "./stream.js"
 *
 * @typedef {object} FeedSnapshot
 * @property {readonly FeedItem[]} executions newest first
 * @property {boolean} isLoaded whether the edge's list has been read
 * @property {Status} status of the feed's stream
 * @property {Error | null} error why the list or the feed could not be read
 *
 * @typedef {Pick<StreamOptions, "mode" | "identity" | "workerUrl" | "onEvent"> & {limit?: number}} FeedOptions
 */
import { backoffMs, RETRY_MS } from "./backoff.js";
import { ExecutionList, LIMIT } from "./execution-list.js";
import { Snapshots } from "./snapshots.js";

const REFRESH_MS = 250;
/** Time limit of a request. It bounds the memory for events that arrive meanwhile, too. */
const REQUEST_MS = 20_000;

/** The list and its stream. `start()`, `close()`; `subscribe` and `getSnapshot` fit `useSyncExternalStore`. */
export class ExecutionFeed {
  #client;
  #limit;
  #list;
  #stream;
  /** @type {Snapshots<FeedSnapshot>} */
  #snapshots = new Snapshots(() => this.#build());
  #isLoaded = false;
  /** @type {Error | null} */
  #error = null;
  /** Events since the list was requested; null: no request is under way. @type {StreamEvent[] | null} */
  #meanwhile = null;
  /** Whether the list must be read again after the current request. */
  #isStale = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #failures = 0;
  /** Whether the feed has been live without a lost event since. */
  #isComplete = false;
  #isClosed = false;

  /** @param {RuncastClient} client @param {FeedOptions} [options] `limit`: how many executions, at most 200 */
  constructor(client, { limit = LIMIT, onEvent, ...options } = {}) {
    this.#client = client;
    this.#limit = limit;
    this.#list = new ExecutionList(limit);
    this.#stream = client.stream({
      ...options,
      from: "now",
      onEvent: (event, size) => {
        this.#take(event);
        onEvent?.(event, size);
      },
      onControl: ({ type }) => this.#control(type),
      onStatus: () => this.#snapshots.changed(),
    });
  }

  start() {
    this.#stream.start();
  }

  close() {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    this.#stream.close();
  }

  /** @param {() => void} listener */
  subscribe(listener) {
    return this.#snapshots.subscribe(listener);
  }

  getSnapshot() {
    return this.#snapshots.getSnapshot();
  }

  /** @returns {FeedSnapshot} */
  #build() {
    const { status } = this.#stream;
    const error = status.phase === "failed" ? status.error : this.#error;
    return Object.freeze({ executions: this.#list.items(), isLoaded: this.#isLoaded, status, error });
  }

  /** @param {StreamEvent} event */
  #take(event) {
    this.#meanwhile?.push(event);
    if (this.#list.apply(event)) this.#refreshIn(REFRESH_MS);
    this.#snapshots.changed();
  }

  /** The list is read when the feed is live, so that no event is lost between them. @param {string} type */
  #control(type) {
    if (type === "stream:reset") {
      this.#isComplete = false;
      this.#list.eventsLost();
    } else if (type !== "stream:live") return;
    const { phase, lastEventId } = this.#stream.status;
    if (phase !== "live") return;
    // Without a cursor the feed could not resume: only the list has what happened meanwhile.
    if (!this.#isComplete || !lastEventId) this.#refreshIn(0);
    this.#isComplete = true;
  }

  /** @param {number} ms */
  #refreshIn(ms) {
    if (this.#meanwhile !== null) this.#isStale = true;
    else if (this.#timer === undefined) this.#schedule(ms);
  }

  /** @param {number} ms */
  #schedule(ms) {
    if (!this.#isClosed) this.#timer = setTimeout(() => void this.#refresh(), ms);
  }

  async #refresh() {
    /** @type {StreamEvent[]} */
    const meanwhile = (this.#meanwhile = []);
    this.#timer = undefined;
    this.#isStale = false;
    try {
      const { executions } = await this.#client.executions({ limit: this.#limit }, timeLimit());
      this.#list.replace(executions);
      this.#catchUp(meanwhile);
      this.#isLoaded = true;
      this.#error = null;
      this.#failures = 0;
      await this.#readStates(meanwhile);
      if (this.#isStale) this.#schedule(REFRESH_MS);
    } catch (error) {
      this.#error = /** @type {Error} */ (error);
      this.#schedule(backoffMs(this.#failures++, RETRY_MS));
    }
    this.#meanwhile = null;
    if (!this.#isClosed) this.#snapshots.changed();
  }

  /** Read the states of executions that started before the feed was open, each once, one after the other.
   * @param {StreamEvent[]} meanwhile */
  async #readStates(meanwhile) {
    for (const executionId of this.#list.needingState()) {
      if (this.#isClosed) return;
      const state = await this.#client.execution(executionId, timeLimit()).catch(() => null);
      this.#list.applyState(executionId, state);
      this.#catchUp(meanwhile);
    }
  }

  /** Apply the events that arrived during a request: those that its answer includes already change nothing.
   * @param {StreamEvent[]} meanwhile */
  #catchUp(meanwhile) {
    for (const event of meanwhile.splice(0)) this.#list.apply(event);
    if (!this.#isClosed) this.#snapshots.changed();
  }
}

function timeLimit() {
  return { signal: AbortSignal.timeout(REQUEST_MS) };
}
