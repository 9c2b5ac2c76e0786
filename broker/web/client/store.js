"use client";
/**
 * One execution in a zustand store (4 or 5), for pages whose parts each show a little of it: a component renders only
 * when what it selects has changed. Memory is bounded: the last steps are kept, and nothing of executions before.
 *
 * @import { StoreApi, UseBoundStore } from "zustand"
 * @import { RuncastClient } from "./api.js"
 * @import * as wire from "./events.js"
 * @import { RequestState } from "./requests.js"
 * @import { Shared, SharedWatchOptions } from "./sharing.js"
 * @import { Status } from "./stream.js"
 * @import { Snapshot } from "./watch.js"
 */
import { useEffect } from "react";
import { create } from "zustand";
import { failureOf, isUnderWay } from "./outcome.js";
import { useRuncast } from "./react.js";
import { NOTHING_ASKED, Requests } from "./requests.js";
import { sharedWatch } from "./sharing.js";
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
 * @property {CurrentExecution | null} currentExecution null until something is known of it
 * @property {boolean} isStarting
 * @property {boolean} isExecuting
 * @property {readonly wire.ThoughtState[]} thinkingSteps the last ones
 * @property {wire.Plan | null} plan
 * @property {readonly wire.PhaseState[]} phases
 * @property {wire.ProgressState | null} progress
 * @property {readonly wire.ToolState[]} tools the last calls
 * @property {readonly wire.SpecialistState[]} specialists
 * @property {string} text its last characters, if there are very many
 * @property {wire.UsageTotals | null} usage
 * @property {readonly wire.InputRequired[]} openInputs
 * @property {Error | null} error of the last request, of the stream, or of the agent
 * @property {Status} connection
 *
 * @typedef {object} AgentStoreActions None of them raises: what went wrong is `error`.
 * @property {(client: RuncastClient, executionId: string, options?: FollowOptions) => () => void} followExecution show
 *   this one, until another is followed or the returned function is called
 * @property {(client: RuncastClient, request: wire.ExecuteRequest) => Promise<string | null>} startExecution and follow
 *   it
 * @property {(reason?: string) => Promise<boolean>} cancelExecution
 * @property {(inputId: string, value: unknown) => Promise<boolean>} answerInput
 * @property {() => void} clear show none; the execution goes on
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
  error: null,
  connection: IDLE,
});

/** @typedef {{maxSteps: number, maxText: number}} Limits thoughts and tool calls kept each, characters of text kept */

/** What a store follows: an execution's watch, and the requests about it. */
class Following {
  #set;
  #limits;
  #view;
  #requests = new Requests((change) => this.#requested(change));
  #asked = NOTHING_ASKED;
  /** @type {RuncastClient | null} */
  #client = null;
  /** @type {Snapshot | null} */
  #seen = null;
  #unsubscribe = () => {};

  /** @param {StoreApi<AgentStore>["setState"]} set @param {Limits} limits */
  constructor(set, limits) {
    this.#set = set;
    this.#limits = limits;
    this.#view = new View(limits);
  }

  /** @param {RuncastClient} client @param {string} executionId @param {FollowOptions} [options] */
  follow(client, executionId, options) {
    this.#unsubscribe();
    this.#view = new View(this.#limits);
    const watch = sharedWatch(client, executionId, options);
    this.#client = client;
    this.#asked = { ...this.#asked, ...NOTHING_ASKED, executionId };
    this.#requests.follow(executionId);
    const unsubscribe = (this.#unsubscribe = watch.subscribe(() => this.#look(watch)));
    this.#look(watch);
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

  clear() {
    this.#unsubscribe();
    this.#unsubscribe = () => {};
    this.#requests.follow(null);
    this.#asked = NOTHING_ASKED;
    this.#seen = null;
    this.#view = new View(this.#limits);
    this.#set(EMPTY);
  }

  /** @param {Shared<Snapshot>} watch */
  #look(watch) {
    this.#seen = watch.getSnapshot() ?? this.#seen;
    this.#show();
    if (this.#seen?.status.phase === "ended") this.#unsubscribe(); // nothing follows: what it holds may go
  }

  /** @param {Partial<RequestState>} change */
  #requested(change) {
    const { executionId: shown } = this.#asked;
    this.#asked = { ...this.#asked, ...change };
    const { executionId } = this.#asked;
    if (this.#client !== null && executionId !== null && executionId !== shown) this.follow(this.#client, executionId);
    else this.#show();
  }

  #show() {
    const { isStarting, error, executionId, startedId } = this.#asked;
    const isStarted = executionId !== null && executionId === startedId;
    const seen = this.#seen === null ? {} : this.#view.of(this.#seen);
    const failure = this.#seen === null ? null : failureOf(this.#seen.status, this.#seen.state);
    const isUnder = this.#seen !== null && isUnderWay(this.#seen.status, this.#seen.state, isStarted);
    const isExecuting = isStarting || isUnder;
    this.#set({ ...seen, isStarting, isExecuting, error: error ?? failure });
  }
}

/** Snapshots as the store shows them: parts that are the same stay the same object. */
class View {
  #limits;
  /** @type {CurrentExecution | null} */
  #execution = null;
  #thoughts;
  #tools;

  /** @param {Limits} limits */
  constructor(limits) {
    this.#limits = limits;
    this.#thoughts = new Tail(limits.maxSteps);
    this.#tools = new Tail(limits.maxSteps);
  }

  /** @param {Snapshot} snapshot */
  of({ state, status }) {
    if (state === null) return { ...EMPTY, connection: status };
    const { plan, phases, progress, specialists, usage, openInputs } = state;
    return {
      currentExecution: this.#current(state),
      thinkingSteps: this.#thoughts.of(state.thinking),
      tools: this.#tools.of(state.tools),
      text: lastOf(state.text, this.#limits.maxText),
      connection: status,
      ...{ plan, phases, progress, specialists, usage, openInputs },
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

/** The last of an array's items; the same array for the same one. */
class Tail {
  #limit;
  /** @type {readonly any[]} */
  #items = [];
  /** @type {readonly any[]} */
  #tail = [];

  /** @param {number} limit */
  constructor(limit) {
    this.#limit = limit;
  }

  /** @template T @param {readonly T[]} items @returns {readonly T[]} */
  of(items) {
    if (items !== this.#items) this.#tail = items.length > this.#limit ? items.slice(-this.#limit) : items;
    this.#items = items;
    return this.#tail;
  }
}

/** The last characters, none of them cut in half. @param {string} text @param {number} most */
function lastOf(text, most) {
  return text.length > most ? text.slice(-most).replace(/^[\uDC00-\uDFFF]/, "") : text;
}

/** @template {object} T @param {T} one @param {T} other */
function isSame(one, other) {
  return Object.entries(other).every(([name, value]) => one[/** @type {keyof T} */ (name)] === value);
}

/**
 * A store of its own, for pages that show several executions at a time.
 *
 * @param {Partial<Limits>} [limits]
 * @returns {UseBoundStore<StoreApi<AgentStore>>}
 */
export function createAgentStore({ maxSteps = MAX_STEPS, maxText = MAX_TEXT } = {}) {
  return create((set) => {
    const following = new Following(set, { maxSteps, maxText });
    return {
      ...EMPTY,
      followExecution: (client, executionId, options) => following.follow(client, executionId, options),
      startExecution: (client, request) => following.start(client, request),
      cancelExecution: (reason) => following.cancel(reason),
      answerInput: (inputId, value) => following.answer(inputId, value),
      clear: () => following.clear(),
    };
  });
}

/** The store of pages that show one execution at a time. */
export const useAgentStore = createAgentStore();

/**
 * Have a store follow an execution while the component is mounted. The stream is shared with `useAgentSSE`, where both
 * have the same options.
 *
 * @param {string | null | undefined} executionId
 * @param {UseBoundStore<StoreApi<AgentStore>>} [store]
 * @param {FollowOptions} [options]
 */
export function useStoredExecution(
  executionId,
  store = useAgentStore,
  { mode, identity, workerUrl, from, cursor } = {},
) {
  const client = useRuncast();
  useEffect(() => {
    const options = { mode, identity, workerUrl, from, cursor };
    return executionId ? store.getState().followExecution(client, executionId, options) : undefined;
  }, [client, executionId, store, mode, identity, workerUrl, from, cursor]);
}
