/**
 * The list of a user's executions, kept current by the events of the feed. Pure.
 *
 * @import * as wire from "./events.js"
 */
import { TERMINAL_STATES } from "./fold.js";

/**
 * @typedef {object} FeedExtras What the list of the edge does not have. It comes from the feed; for the time before the
 *   feed was open, from the execution's state.
 * @property {number | null} progress percent
 * @property {string | null} activity what it does now, in the agent's words
 * @property {readonly wire.InputRequired[]} openInputs
 *
 * @typedef {wire.ExecutionSummary & FeedExtras} FeedItem
 *
 * @typedef {object} Answers The inputs of one execution that were answered, in any attempt.
 * @property {Set<string>} inputIds
 * @property {boolean} isComplete whether the list has seen the execution from its beginning
 */

export const LIMIT = 50;
const MAX_UNLISTED = 1_000;
const MAX_ANSWERS = 200;
const START_TYPES = new Set(["execution:queued", "execution:started"]);
const ACTIVE_STATES = new Set(["running", "waiting_input"]);
/** @type {FeedExtras} */
const NO_EXTRAS = Object.freeze({ progress: null, activity: null, openInputs: Object.freeze([]) });

/** Executions by id. */
export class ExecutionList {
  /** @type {Map<string, FeedItem>} */
  #items = new Map();
  /** Executions that are too old for the list. The list is read once for each, not at every event.
   * @type {Set<string>} */
  #unlisted = new Set();
  /** Executions whose extras are known. @type {Set<string>} */
  #known = new Set();
  /** By execution. An attempt that repeats an answered input gets that answer at once. @type {Map<string, Answers>} */
  #answers = new Map();
  #limit;

  /** @param {number} limit only the newest are kept */
  constructor(limit = LIMIT) {
    this.#limit = limit;
  }

  /**
   * Replace the items by the edge's list. Apply the events that arrived since it was requested again.
   *
   * @param {readonly wire.ExecutionSummary[]} summaries
   */
  replace(summaries) {
    const items = summaries.map((summary) => merged(summary, this.#items.get(summary.executionId)));
    this.#items = new Map(items.map((item) => [item.executionId, item]));
    for (const { executionId } of items) this.#unlisted.delete(executionId);
    this.#known = new Set([...this.#known].filter((executionId) => this.#items.has(executionId)));
    for (const executionId of this.#answers.keys())
      if (!this.#items.has(executionId)) this.#answers.delete(executionId);
  }

  /** The ids of active executions whose extras are not known. Their states have them. */
  needingState() {
    const items = [...this.#items.values()];
    return items
      .filter(({ executionId, state }) => ACTIVE_STATES.has(state) && !this.#known.has(executionId))
      .map(idOf);
  }

  /**
   * Take the extras from an execution's state. Apply the events that arrived since it was requested again.
   *
   * @param {string} executionId
   * @param {wire.ExecutionState | null} state null: it could not be read
   */
  applyState(executionId, state) {
    const item = this.#items.get(executionId);
    this.#known.add(executionId);
    if (item && state && ACTIVE_STATES.has(item.state)) this.#items.set(executionId, { ...item, ...extrasOf(state) });
  }

  /** Events of the feed were lost: the states must be read again. */
  eventsLost() {
    this.#known.clear();
    this.#answers.clear();
  }

  /**
   * Apply an event of the feed. Returns whether the list must be read again to be complete.
   *
   * @param {wire.StreamEvent} event
   * @returns {boolean}
   */
  apply(event) {
    const { executionId } = event;
    const item = this.#items.get(executionId);
    if (START_TYPES.has(event.type)) this.#known.add(executionId); // it has no extras before this event
    if (isBeginning(event)) this.#answers.set(executionId, { inputIds: new Set(), isComplete: true });
    if (!item) return this.#discover(event);
    if (TERMINAL_STATES.has(item.state)) return false; // the edge's list was newer than this event
    const isRepeated = event.type === "input:required" && this.#isAnswered(event);
    this.#items.set(executionId, { ...item, ...(isRepeated ? {} : change(item, event)), updatedAt: millis(event) });
    if (event.type === "input:received") {
      this.#remember(event);
      return !item.openInputs.length;
    }
    return event.type === "input:required" && !isRepeated && this.#mayBeAnswered(item);
  }

  /** @param {wire.StreamEvent & {type: "input:required"}} event */
  #isAnswered({ executionId, data }) {
    return this.#answers.get(executionId)?.inputIds.has(data.inputId) ?? false;
  }

  /** Whether an input of this attempt may have been answered in an earlier one, before the feed was open.
   * @param {FeedItem} item */
  #mayBeAnswered({ executionId, attempt }) {
    return (attempt ?? 1) > 1 && !this.#answers.get(executionId)?.isComplete;
  }

  /** @param {wire.StreamEvent & {type: "input:received"}} event */
  #remember({ executionId, data }) {
    const answers = this.#answers.get(executionId) ?? { inputIds: new Set(), isComplete: false };
    this.#answers.set(executionId, answers);
    answers.inputIds.add(data.inputId);
    if (answers.inputIds.size <= MAX_ANSWERS) return;
    answers.inputIds.delete(/** @type {string} */ (answers.inputIds.values().next().value));
  }

  /** An event of an execution that is not in the list. @param {wire.StreamEvent} event */
  #discover(event) {
    const { executionId } = event;
    const isStart = START_TYPES.has(event.type);
    if (!isStart && this.#unlisted.has(executionId)) return false;
    if (this.#unlisted.size >= MAX_UNLISTED) this.#unlisted.clear();
    this.#unlisted.add(executionId);
    const item = { executionId, createdAt: millis(event), state: /** @type {const} */ ("running"), ...NO_EXTRAS };
    if (isStart) this.#items.set(executionId, { ...item, ...change(item, event) });
    return true;
  }

  /** The items, newest first. */
  items() {
    const items = [...this.#items.values()].sort((a, b) => (b.createdAt ?? 0) - (a.createdAt ?? 0));
    for (const { executionId } of items.splice(this.#limit)) {
      this.#items.delete(executionId);
      this.#known.delete(executionId);
      this.#answers.delete(executionId);
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

/** Whether no input can have been answered before this event. @param {wire.StreamEvent} event */
function isBeginning(event) {
  return event.type === "execution:queued" || (event.type === "execution:started" && event.data.attempt === 1);
}

/**
 * A summary with the extras that are known.
 *
 * @param {wire.ExecutionSummary} summary
 * @param {FeedItem | undefined} known
 * @returns {FeedItem}
 */
function merged(summary, known) {
  if (!known || TERMINAL_STATES.has(summary.state)) return { ...summary, ...NO_EXTRAS };
  const openInputs = summary.state === "waiting_input" ? known.openInputs : [];
  return { ...summary, progress: known.progress, activity: known.activity, openInputs };
}

/**
 * The extras as the events of the feed would have made them.
 *
 * @param {wire.ExecutionState} state
 * @returns {FeedExtras}
 */
function extrasOf({ progress, phases, openInputs }) {
  const own = progress?.specialist ? null : progress; // a specialist's progress is not the execution's
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
      return { ...NO_EXTRAS, state: "running", task: event.data.task, attempt: event.data.attempt };
    case "execution:superseded":
      return { ...NO_EXTRAS, state: "queued", attempt: event.data.attempt };
    case "execution:complete":
      return { ...NO_EXTRAS, state: "completed" };
    case "execution:error":
      return { ...NO_EXTRAS, state: "failed" };
    case "execution:cancelled":
      return { ...NO_EXTRAS, state: "cancelled" };
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
 * @param {wire.InputRequired[]} openInputs the inputs that are still open
 * @returns {Partial<FeedItem>}
 */
function answered({ state }, openInputs) {
  const isResumed = state === "waiting_input" && openInputs.length === 0; // a queued attempt stays queued
  return { state: isResumed ? "running" : state, openInputs };
}

/**
 * @param {FeedItem} item
 * @param {{progress: number, currentAction?: string}} data
 * @returns {Partial<FeedItem>}
 */
function progressed(item, { progress, currentAction }) {
  return { progress, activity: currentAction ?? item.activity };
}
