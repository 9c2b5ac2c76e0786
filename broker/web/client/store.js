"use client";
/**
 * One execution in a zustand store (4 or 5), for pages with many small parts: a component renders only if its selected
 * slice has changed. Memory is bounded: only the last steps are kept, and nothing of earlier executions.
 *
 * @import { StoreApi, UseBoundStore } from "zustand"
 * @import { RuncastClient } from "./api.js"
 * @import * as wire from "./events.js"
 * @import { RequestState } from "./requests.js"
 * @import { RefCounted, SharedWatchOptions } from "./ref-count.js"
 * @import { Status } from "./stream.js"
 * @import { Snapshot } from "./watch.js"
 */
import { useEffect } from "react";
import { create } from "zustand";
import { failureOf, isUnderWay } from "./outcome.js";
import { useRuncast } from "./react.js";
import { NO_REQUEST, Requests } from "./requests.js";
import { sharedWatch } from "./ref-count.js";
import { IDLE } from "./stream.js";

export const MAX_STEPS = 100;
export const MAX_TEXT = 100_000;

/** @typedef {SharedWatchOptions} FollowOptions */

/**
 * @typedef {object} CurrentExecution
 * @property {string} executionId
 * @property {wire.State} status
 * @property {string | null} task
 * @property {string | null} agent
 * @property {number} attempt
 * @property {number | null} startedAt
 * @property {number | null} endedAt
 * @property {number | null} duration seconds
 * @property {unknown} result
 *
 * @typedef {object} AgentStoreState
 * @property {CurrentExecution | null} currentExecution null until the first event
 * @property {boolean} isStarting
 * @property {boolean} isExecuting
 * @property {readonly wire.ThoughtState[]} thinkingSteps the last thoughts
 * @property {wire.Plan | null} plan
 * @property {readonly wire.PhaseState[]} phases
 * @property {wire.ProgressState | null} progress
 * @property {readonly wire.ToolState[]} tools the last calls
 * @property {readonly wire.SpecialistState[]} specialists
 * @property {string} text the last characters, if it is very long
 * @property {wire.UsageTotals | null} usage
 * @property {readonly wire.InputRequired[]} openInputs
 * @property {readonly wire.UserMessageState[]} userMessages what people have said to the agent
 * @property {Error | null} error of the last request, of the stream, or of the agent
 * @property {Status} connection
 *
 * @typedef {object} AgentStoreActions No function raises; errors are in `error`.
 * @property {(client: RuncastClient, executionId: string, options?: FollowOptions) => () => void} followExecution show
 *   this execution until another one is followed or the returned function is called
 * @property {(client: RuncastClient, request: wire.ExecuteRequest) => Promise<string | null>} startExecution start
 *   and follow an execution
 * @property {(reason?: string) => Promise<boolean>} cancelExecution
 * @property {(inputId: string, value: unknown) => Promise<boolean>} answerInput
 * @property {(message: string | wire.MessageRequest) => Promise<boolean>} sendMessage whether the message waits for the
 *   agent; `userMessages` says what becomes of it
 * @property {(messageId: string) => Promise<boolean>} withdrawMessage whether the agent will not take it
 * @property {() => void} clear show no execution; it continues
 *
 * @typedef {AgentStoreState & AgentStoreActions} AgentStore
 */

/** @type {Readonly<AgentStoreState>} */
const EMPTY = Object.freeze({
  currentExecution: null,
  isStarting: false,
  isExecuting: false,
  thinkingSteps: [],
  plan: null,
  phases: [],
  progress: null,
  tools: [],
  specialists: [],
  text: "",
  usage: null,
  openInputs: [],
  userMessages: [],
  error: null,
  connection: IDLE,
});

/** @typedef {{maxSteps: number, maxText: number}} Limits `maxSteps`: of thoughts, and of calls; `maxText`: characters */

/** The execution that a store shows: its watch, and the requests about it. */
class FollowedExecution {
  #set;
  #limits;
  #view;
  #requests = new Requests((change) => this.#requestChanged(change));
  #request = NO_REQUEST;
  /** @type {RuncastClient | null} */
  #client = null;
  /** @type {Snapshot | null} */
  #snapshot = null;
  #unsubscribe = () => {};

  /** @param {StoreApi<AgentStore>["setState"]} set @param {Limits} limits */
  constructor(set, limits) {
    this.#set = set;
    this.#limits = limits;
    this.#view = new StateView(limits);
  }

  /** @param {RuncastClient} client @param {string} executionId @param {FollowOptions} [options] */
  follow(client, executionId, options) {
    this.#unsubscribe();
    this.#view = new StateView(this.#limits);
    const watch = sharedWatch(client, executionId, options);
    this.#client = client;
    this.#request = { ...this.#request, ...NO_REQUEST, executionId };
    this.#requests.follow(executionId);
    const unsubscribe = (this.#unsubscribe = watch.subscribe(() => this.#update(watch)));
    this.#update(watch);
    return () => {
      if (this.#unsubscribe === unsubscribe) this.clear();
    };
  }

  /** @param {RuncastClient} client @param {wire.ExecuteRequest} request */
  start(client, request) {
    this.#client = client;
    return this.#requests.start(client, request);
  }

  /** @param {string} [reason] */
  async cancel(reason) {
    return this.#client !== null && this.#requests.cancel(this.#client, reason);
  }

  /** @param {string} inputId @param {unknown} value */
  async answer(inputId, value) {
    return this.#client !== null && this.#requests.answer(this.#client, inputId, value);
  }

  /** @param {string | wire.MessageRequest} message */
  async say(message) {
    return this.#client !== null && this.#requests.say(this.#client, message);
  }

  /** @param {string} messageId */
  async withdraw(messageId) {
    return this.#client !== null && this.#requests.withdraw(this.#client, messageId);
  }

  clear() {
    this.#unsubscribe();
    this.#unsubscribe = () => {};
    this.#requests.follow(null);
    this.#request = NO_REQUEST;
    this.#snapshot = null;
    this.#view = new StateView(this.#limits);
    this.#set(EMPTY);
  }

  /** @param {RefCounted<Snapshot>} watch */
  #update(watch) {
    this.#snapshot = watch.getSnapshot() ?? this.#snapshot;
    this.#show();
    if (this.#snapshot?.status.phase === "ended") this.#unsubscribe(); // no further event: release its memory
  }

  /** @param {Partial<RequestState>} change */
  #requestChanged(change) {
    const { executionId: shown } = this.#request;
    this.#request = { ...this.#request, ...change };
    const { executionId } = this.#request;
    if (this.#client !== null && executionId !== null && executionId !== shown) this.follow(this.#client, executionId);
    else this.#show();
  }

  #show() {
    const { isStarting, error, executionId, startedId } = this.#request;
    const isStarted = executionId !== null && executionId === startedId;
    const seen = this.#snapshot === null ? {} : this.#view.of(this.#snapshot);
    const failure = this.#snapshot === null ? null : failureOf(this.#snapshot.status, this.#snapshot.state);
    const isUnder = this.#snapshot !== null && isUnderWay(this.#snapshot.status, this.#snapshot.state, isStarted);
    const isExecuting = isStarting || isUnder;
    this.#set({ ...seen, isStarting, isExecuting, error: error ?? failure });
  }
}

/** Maps snapshots to the store's state: an unchanged part stays the same object. */
class StateView {
  #limits;
  /** @type {CurrentExecution | null} */
  #execution = null;
  #thoughts;
  #tools;

  /** @param {Limits} limits */
  constructor(limits) {
    this.#limits = limits;
    this.#thoughts = new LastItems(limits.maxSteps);
    this.#tools = new LastItems(limits.maxSteps);
  }

  /** @param {Snapshot} snapshot */
  of({ state, status }) {
    if (state === null) return { ...EMPTY, connection: status };
    const { plan, phases, progress, specialists, usage, openInputs, userMessages } = state;
    return {
      currentExecution: this.#current(state),
      thinkingSteps: this.#thoughts.of(state.thinking),
      tools: this.#tools.of(state.tools),
      text: lastOf(state.text, this.#limits.maxText),
      connection: status,
      ...{ plan, phases, progress, specialists, usage, openInputs, userMessages },
    };
  }

  /** @param {wire.ExecutionState} state */
  #current(state) {
    const { executionId, status, task, agent, attempt, startedAt, endedAt, duration, result } = state;
    const execution = { executionId, status, task, agent, attempt, startedAt, endedAt, duration, result };
    if (!this.#execution || !isSame(this.#execution, execution)) this.#execution = execution;
    return this.#execution;
  }
}

/** The last items of an array; the same result for the same array. */
class LastItems {
  #limit;
  /** @type {readonly any[]} */
  #items = [];
  /** @type {readonly any[]} */
  #last = [];

  /** @param {number} limit */
  constructor(limit) {
    this.#limit = limit;
  }

  /** @template T @param {readonly T[]} items @returns {readonly T[]} */
  of(items) {
    if (items !== this.#items) this.#last = items.length > this.#limit ? items.slice(-this.#limit) : items;
    this.#items = items;
    return this.#last;
  }
}

/** The last characters, without half of a surrogate pair. @param {string} text @param {number} most */
function lastOf(text, most) {
  return text.length > most ? text.slice(-most).replace(/^[\uDC00-\uDFFF]/, "") : text;
}

/** @template {object} T @param {T} one @param {T} other */
function isSame(one, other) {
  return Object.entries(other).every(([name, value]) => one[/** @type {keyof T} */ (name)] === value);
}

/**
 * Create a store, for pages that show several executions at once.
 *
 * @param {Partial<Limits>} [limits]
 * @returns {UseBoundStore<StoreApi<AgentStore>>}
 */
export function createAgentStore({ maxSteps = MAX_STEPS, maxText = MAX_TEXT } = {}) {
  return create((set) => {
    const followed = new FollowedExecution(set, { maxSteps, maxText });
    return {
      ...EMPTY,
      followExecution: (client, executionId, options) => followed.follow(client, executionId, options),
      startExecution: (client, request) => followed.start(client, request),
      cancelExecution: (reason) => followed.cancel(reason),
      answerInput: (inputId, value) => followed.answer(inputId, value),
      sendMessage: (message) => followed.say(message),
      withdrawMessage: (messageId) => followed.withdraw(messageId),
      clear: () => followed.clear(),
    };
  });
}

/** The default store, for pages that show one execution at a time. */
export const useAgentStore = createAgentStore();

/**
 * Let a store follow an execution while the component is mounted. `useAgentSSE` with the same options shares its
 * stream.
 *
 * @param {string | null | undefined} executionId
 * @param {UseBoundStore<StoreApi<AgentStore>>} [store]
 * @param {FollowOptions} [options]
 */
export function useStoredExecution(
  executionId,
  store = useAgentStore,
  { mode, identity, workerUrl, from, cursor, compact } = {},
) {
  const client = useRuncast();
  useEffect(() => {
    const options = { mode, identity, workerUrl, from, cursor, compact };
    return executionId ? store.getState().followExecution(client, executionId, options) : undefined;
  }, [client, executionId, store, mode, identity, workerUrl, from, cursor, compact]);
}
