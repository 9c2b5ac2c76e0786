/**
 * A user's executions as a list that moves on with the feed's events. Pure.
 *
 * @import * as wire from "./events.js"
 */
import { TERMINAL_STATES } from "./fold.js";

/**
 * @typedef {object} FeedExtras What the feed tells beyond the list; of what happened before it was open, the state does.
 * @property {number | null} progress percent
 * @property {string | null} activity what it does now, in its own words
 * @property {readonly wire.InputRequired[]} openInputs
 *
 * @typedef {wire.ExecutionSummary & FeedExtras} FeedItem
 */

export const LIMIT = 50;
const MAX_UNLISTED = 1_000;
const BEGINNINGS = new Set(["execution:queued", "execution:started"]);
const OVER = new Set(Object.values(TERMINAL_STATES));
const UNDER_WAY = new Set(["running", "waiting_input"]);
/** @type {FeedExtras} */
const NOTHING_KNOWN = Object.freeze({ progress: null, activity: null, openInputs: Object.freeze([]) });

/** Executions by id, moved on by the feed's events. Pure. */
export class ExecutionList {
  /** @type {Map<string, FeedItem>} */
  #items = new Map();
  /** Those that are not listed, being too old: they were asked for once. @type {Set<string>} */
  #unlisted = new Set();
  /** Those of which nobody needs to ask how far they are. @type {Set<string>} */
  #known = new Set();
  #limit;

  /** @param {number} limit the oldest beyond it are left out */
  constructor(limit = LIMIT) {
    this.#limit = limit;
  }

  /**
   * What the edge lists counts. Events that came in since it was asked have to be applied again.
   *
   * @param {readonly wire.ExecutionSummary[]} summaries
   */
  replace(summaries) {
    const items = summaries.map((summary) => listed(summary, this.#items.get(summary.executionId)));
    this.#items = new Map(items.map((item) => [item.executionId, item]));
    for (const { executionId } of items) this.#unlisted.delete(executionId);
    this.#known = new Set([...this.#known].filter((executionId) => this.#items.has(executionId)));
  }

  /** Those under way of which only the state tells how far they are. */
  unknown() {
    const items = [...this.#items.values()];
    return items.filter(({ executionId, state }) => UNDER_WAY.has(state) && !this.#known.has(executionId)).map(idOf);
  }

  /**
   * What the state of one tells; null: nothing. Events that came in since it was asked have to be applied again.
   *
   * @param {string} executionId
   * @param {wire.ExecutionState | null} state
   */
  learn(executionId, state) {
    const item = this.#items.get(executionId);
    this.#known.add(executionId);
    if (item && state && UNDER_WAY.has(item.state)) this.#items.set(executionId, { ...item, ...told(state) });
  }

  /** Some events were lost: what they said is in the states. */
  forget() {
    this.#known.clear();
  }

  /**
   * Take an event of the feed. Whether the list has to be read again to know all about its execution.
   *
   * @param {wire.StreamEvent} event
   * @returns {boolean}
   */
  apply(event) {
    const known = this.#items.get(event.executionId);
    if (BEGINNINGS.has(event.type)) this.#known.add(event.executionId); // all that it says is heard
    if (!known) return this.#discover(event);
    if (OVER.has(known.state)) return false; // the list knew more than this event did
    this.#items.set(event.executionId, { ...known, ...change(known, event), updatedAt: millis(event) });
    return event.type === "input:received" && !known.openInputs.length;
  }

  /** @param {wire.StreamEvent} event */
  #discover(event) {
    const { executionId } = event;
    const isBeginning = BEGINNINGS.has(event.type);
    if (!isBeginning && this.#unlisted.has(executionId)) return false;
    if (this.#unlisted.size >= MAX_UNLISTED) this.#unlisted.clear();
    this.#unlisted.add(executionId);
    const item = { executionId, createdAt: millis(event), state: /** @type {const} */ ("running"), ...NOTHING_KNOWN };
    if (isBeginning) this.#items.set(executionId, { ...item, ...change(item, event) });
    return true;
  }

  items() {
    const items = [...this.#items.values()].sort((a, b) => (b.createdAt ?? 0) - (a.createdAt ?? 0));
    for (const { executionId } of items.splice(this.#limit)) {
      this.#items.delete(executionId);
      this.#known.delete(executionId);
    }
    return items;
  }
}

/** @param {FeedItem} item */
function idOf({ executionId }) {
  return executionId;
}

/** @param {wire.StreamEvent} event */
function millis(event) {
  return Number(event.id.split("-")[0]);
}

/**
 * @param {wire.ExecutionSummary} summary
 * @param {FeedItem | undefined} known
 * @returns {FeedItem}
 */
function listed(summary, known) {
  if (!known || OVER.has(summary.state)) return { ...summary, ...NOTHING_KNOWN };
  const openInputs = summary.state === "waiting_input" ? known.openInputs : [];
  return { ...summary, progress: known.progress, activity: known.activity, openInputs };
}

/**
 * What the feed's events would have told.
 *
 * @param {wire.ExecutionState} state
 * @returns {Partial<FeedItem>}
 */
function told({ progress, phases, openInputs }) {
  const own = progress?.specialist ? null : progress; // of a specialist, it is no progress of the whole
  const phase = phases.find(({ status }) => status === "running");
  return { progress: own?.progress ?? null, activity: own?.currentAction ?? phase?.name ?? null, openInputs };
}

/**
 * @param {FeedItem} item
 * @param {wire.StreamEvent} event
 * @returns {Partial<FeedItem>}
 */
function change(item, event) {
  switch (event.type) {
    case "execution:queued":
      return { state: "queued", task: event.data.task, agent: event.data.agent };
    case "execution:started":
      return { ...NOTHING_KNOWN, state: "running", task: event.data.task, attempt: event.data.attempt };
    case "execution:superseded":
      return { ...NOTHING_KNOWN, state: "queued", attempt: event.data.attempt };
    case "execution:complete":
      return { ...NOTHING_KNOWN, state: "completed" };
    case "execution:error":
      return { ...NOTHING_KNOWN, state: "failed" };
    case "execution:cancelled":
      return { ...NOTHING_KNOWN, state: "cancelled" };
    case "input:required":
      return { state: "waiting_input", openInputs: [...without(item.openInputs, event.data.inputId), event.data] };
    case "input:received":
      return answered(item, without(item.openInputs, event.data.inputId));
    case "phase:start":
      return { activity: event.data.phaseName };
    case "progress":
      return event.data.specialist ? {} : progressed(item, event.data);
    default:
      return {};
  }
}

/**
 * @param {readonly wire.InputRequired[]} inputs
 * @param {string} inputId
 */
function without(inputs, inputId) {
  return inputs.filter((input) => input.inputId !== inputId);
}

/**
 * @param {FeedItem} item
 * @param {wire.InputRequired[]} openInputs those that are left
 * @returns {Partial<FeedItem>}
 */
function answered({ state }, openInputs) {
  const goesOn = state === "waiting_input" && openInputs.length === 0; // else the next attempt waits for a worker
  return { state: goesOn ? "running" : state, openInputs };
}

/**
 * @param {FeedItem} item
 * @param {{progress: number, currentAction?: string}} data
 * @returns {Partial<FeedItem>}
 */
function progressed(item, { progress, currentAction }) {
  return { progress, activity: currentAction ?? item.activity };
}
