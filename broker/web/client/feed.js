/**
 * The live list of a user's executions: what the edge lists, and the feed on top of it.
 *
 * @import { RuncastClient } from "./api.js"
 * @import { FeedItem } from "./executions.js"
 * @import { StreamEvent } from "./events.js"
 * @import { Status, StreamOptions } from "./stream.js"
 *
 * @typedef {object} FeedSnapshot
 * @property {readonly FeedItem[]} executions newest first
 * @property {boolean} isLoaded whether the edge's list was read
 * @property {Status} status of the feed's stream
 * @property {Error | null} error why the list or the feed cannot be read
 *
 * @typedef {Pick<StreamOptions, "mode" | "identity" | "workerUrl" | "onEvent"> & {limit?: number}} FeedOptions
 */
import { backoffMs, RETRY_MS } from "./backoff.js";
import { ExecutionList, LIMIT } from "./executions.js";
import { Snapshots } from "./snapshots.js";

const REFRESH_MS = 250;
/** How long an answer is waited for: what came in meanwhile is kept until then. */
const ANSWER_MS = 20_000;

/** The list and its stream. `start()`, `close()`; `subscribe` and `getSnapshot` fit `useSyncExternalStore`. */
export class ExecutionFeed {
  #client;
  #limit;
  #list;
  #stream;
  /** @type {Snapshots<FeedSnapshot>} */
  #snapshots = new Snapshots(() => this.#look());
  #isLoaded = false;
  /** @type {Error | null} */
  #error = null;
  /** What came in since the list was asked for; null: it is not being read. @type {StreamEvent[] | null} */
  #meanwhile = null;
  /** Whether the list being read was asked for too early. */
  #isOld = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #failures = 0;
  #isWhole = false;
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
  #look() {
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

  /** The list is read once the stream follows, so that nothing falls between them. @param {string} type */
  #control(type) {
    if (type === "stream:reset") {
      this.#isWhole = false;
      this.#list.forget();
    }
    if (type !== "stream:live") return;
    // Without a cursor there was nothing to resume from: what happened since is only in the list.
    if (!this.#isWhole || !this.#stream.status.lastEventId) this.#refreshIn(0);
    this.#isWhole = true;
  }

  /** @param {number} ms */
  #refreshIn(ms) {
    if (this.#meanwhile !== null) this.#isOld = true;
    else if (this.#timer === undefined) this.#next(ms);
  }

  /** @param {number} ms */
  #next(ms) {
    if (!this.#isClosed) this.#timer = setTimeout(() => void this.#refresh(), ms);
  }

  async #refresh() {
    /** @type {StreamEvent[]} */
    const meanwhile = (this.#meanwhile = []);
    this.#timer = undefined;
    this.#isOld = false;
    try {
      const { executions } = await this.#client.executions({ limit: this.#limit }, soon());
      this.#list.replace(executions);
      this.#catchUp(meanwhile);
      this.#isLoaded = true;
      this.#error = null;
      this.#failures = 0;
      await this.#learn(meanwhile);
      if (this.#isOld) this.#next(REFRESH_MS);
    } catch (error) {
      this.#error = /** @type {Error} */ (error);
      this.#next(backoffMs(this.#failures++, RETRY_MS));
    }
    this.#meanwhile = null;
    if (!this.#isClosed) this.#snapshots.changed();
  }

  /** How far those are that began before the feed did, only their states tell: each is asked for once, one at a time.
   * @param {StreamEvent[]} meanwhile */
  async #learn(meanwhile) {
    for (const executionId of this.#list.unknown()) {
      if (this.#isClosed) return;
      const state = await this.#client.execution(executionId, soon()).catch(() => null);
      this.#list.learn(executionId, state);
      this.#catchUp(meanwhile);
    }
  }

  /** What came in while an answer was waited for is newer than the answer, or in it already and harmless.
   * @param {StreamEvent[]} meanwhile */
  #catchUp(meanwhile) {
    for (const event of meanwhile.splice(0)) this.#list.apply(event);
    if (!this.#isClosed) this.#snapshots.changed();
  }
}

function soon() {
  return { signal: AbortSignal.timeout(ANSWER_MS) };
}
