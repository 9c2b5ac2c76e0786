/**
 * The live tree of an execution and of all that it started: the edge's tree, kept current by the feed.
 *
 * @import { RuncastClient } from "./api.js"
 * @import { ExecutionNode, State, StreamEvent } from "./events.js"
 * @import { Status, StreamOptions } from "./stream.js"
 *
 * @typedef {object} TreeSnapshot
 * @property {ExecutionNode | null} tree null until it has been read
 * @property {Status} status of the feed's stream
 * @property {Error | null} error why the tree or the feed could not be read
 *
 * @typedef {Pick<StreamOptions, "mode" | "identity" | "workerUrl" | "onEvent">} TreeOptions
 */
import { backoffMs, RETRY_MS } from "./backoff.js";
import { Snapshots } from "./snapshots.js";

const REFRESH_MS = 250;
const REQUEST_MS = 20_000;
/** Event type → state after it. @type {Readonly<Record<string, State>>} */
const STATE_AFTER = Object.freeze({
  "execution:queued": "queued",
  "execution:started": "running",
  "execution:superseded": "queued",
  "input:required": "waiting_input",
  "execution:complete": "completed",
  "execution:error": "failed",
  "execution:cancelled": "cancelled",
});
/** Events after which the tree is read again: the edge knows the new execution, the usage, or whether an input is
 * open. */
const REFRESHING = new Set([...Object.keys(STATE_AFTER), "input:received", "child:started", "child:ended"]);

/** `start()`, `close()`; `subscribe` and `getSnapshot` fit `useSyncExternalStore`. */
export class ExecutionTree {
  #client;
  #rootId;
  #stream;
  /** @type {Snapshots<TreeSnapshot>} */
  #snapshots = new Snapshots(() => this.#build());
  /** @type {ExecutionNode | null} */
  #tree = null;
  /** The executions that are in the tree, or begin to be. @type {Set<string>} */
  #ids;
  /** @type {Error | null} */
  #error = null;
  /** Executions of which something was said since the tree was requested, and their states by that, also of those that
   * are not known before the answer; null: no request is under way. @type {Map<string, State | undefined> | null} */
  #meanwhile = null;
  /** Whether the tree must be read again after the current request. */
  #isStale = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #failures = 0;
  #isClosed = false;

  /** @param {RuncastClient} client @param {string} rootId @param {TreeOptions} [options] `onEvent`: called for the
   * events of the feed that belong to the tree */
  constructor(client, rootId, { onEvent, ...options } = {}) {
    this.#client = client;
    this.#rootId = rootId;
    this.#ids = new Set([rootId]);
    this.#stream = client.stream({
      ...options,
      from: "now",
      onEvent: (event, size) => {
        if (this.#take(event)) onEvent?.(event, size);
      },
      onControl: ({ type }) => {
        if (type === "stream:live" || type === "stream:reset") this.#refreshIn(0);
      },
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

  /** @returns {TreeSnapshot} */
  #build() {
    const { status } = this.#stream;
    const error = status.phase === "failed" ? status.error : this.#error;
    return Object.freeze({ tree: this.#tree, status, error });
  }

  /** Whether an event belongs to the tree. @param {StreamEvent} event */
  #take(event) {
    const { executionId, type } = event;
    const state = STATE_AFTER[type];
    if (REFRESHING.has(type)) this.#meanwhile?.set(executionId, state ?? this.#meanwhile.get(executionId));
    if (!this.#ids.has(executionId)) return false;
    if (type === "child:started") this.#ids.add(event.data.executionId);
    if (state !== undefined) {
      if (this.#tree !== null) this.#tree = withState(this.#tree, executionId, state);
      this.#snapshots.changed();
    }
    if (REFRESHING.has(type)) this.#refreshIn(REFRESH_MS);
    return true;
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
    /** @type {Map<string, State | undefined>} */
    const meanwhile = (this.#meanwhile = new Map());
    this.#timer = undefined;
    this.#isStale = false;
    try {
      let tree = await this.#client.tree(this.#rootId, { signal: AbortSignal.timeout(REQUEST_MS) });
      for (const [executionId, state] of meanwhile) if (state) tree = withState(tree, executionId, state);
      this.#tree = tree;
      const ids = idsOf(tree);
      if (ids.some((id) => meanwhile.has(id))) this.#isStale = true;
      this.#ids = new Set([...this.#ids, ...ids]);
      this.#error = null;
      this.#failures = 0;
      this.#meanwhile = null;
      if (this.#isStale) this.#schedule(REFRESH_MS);
    } catch (error) {
      this.#error = /** @type {Error} */ (error);
      this.#meanwhile = null;
      this.#schedule(backoffMs(this.#failures++, RETRY_MS));
    }
    if (!this.#isClosed) this.#snapshots.changed();
  }
}

/** The tree with this state of one execution; parts that do not change stay the same objects.
 * @param {ExecutionNode} node @param {string} executionId @param {State} state @returns {ExecutionNode} */
function withState(node, executionId, state) {
  if (node.executionId === executionId) return node.state === state ? node : { ...node, state };
  const children = node.children.map((child) => withState(child, executionId, state));
  return children.every((child, index) => child === node.children[index]) ? node : { ...node, children };
}

/** @param {ExecutionNode} node @returns {string[]} */
function idsOf(node) {
  return [node.executionId, ...node.children.flatMap(idsOf)];
}

/** The snapshot without a stream. @param {Status} status @returns {TreeSnapshot} */
export function noTree(status) {
  return Object.freeze({ tree: null, status, error: null });
}
