"use client";
/**
 * Hooks for React 18 and 19: an agent's execution as state that components show.
 *
 * Streams are shared by all components under one provider that look at the same thing, opened by the first and closed
 * after the last. The hooks are right under StrictMode and in concurrent renders, and open nothing on a server. They do
 * not need zustand: `useAgentStore` is in `@runcast/client/store`.
 *
 * @import { ReactNode } from "react"
 * @import { ExecuteRequest, ExecutionState, StreamEvent } from "./events.js"
 * @import { TokenFunction } from "./api.js"
 * @import { FeedItem } from "./executions.js"
 * @import { Shared, SharedWatchOptions, TransportOptions } from "./sharing.js"
 * @import { Status } from "./stream.js"
 */
import {
  createContext,
  createElement,
  useCallback,
  useContext,
  useInsertionEffect,
  useMemo,
  useRef,
  useState,
  useSyncExternalStore,
} from "react";
import { RuncastClient } from "./index.js";
import { ExecutionFailed, failureOf, isUnderWay } from "./outcome.js";
import { NOTHING_ASKED, Requests } from "./requests.js";
import { sharedFeed, sharedWatch, UNOPENED, UNOPENED_FEED } from "./sharing.js";

export { ExecutionFailed };

const ASKED = Symbol("the token is asked for");
/** @type {readonly StreamEvent[]} */
const NO_EVENTS = Object.freeze([]);
const Client = createContext(/** @type {RuncastClient | null} */ (null));

/**
 * The client that the hooks below it use: `client`, or one for `baseUrl` and `token`.
 *
 * A token function may be a new one at each render; it is asked whenever a token is needed. A new string, baseUrl or
 * client opens the streams again. When another user signs in, give the provider another `key`.
 *
 * @param {object} props
 * @param {RuncastClient} [props.client]
 * @param {string} [props.baseUrl] of the edges; same origin if absent
 * @param {string | TokenFunction} [props.token] absent: the cookie
 * @param {ReactNode} [props.children]
 */
export function RuncastProvider({ client, baseUrl, token, children }) {
  const latest = useLatest(token);
  const given = typeof token === "function" ? ASKED : token;
  const made = useMemo(() => {
    /** @type {TokenFunction} */
    const ask = (asked) => (typeof latest.current === "function" ? latest.current(asked) : latest.current);
    return client ?? new RuncastClient({ baseUrl, token: given === ASKED ? ask : given });
  }, [client, baseUrl, given, latest]);
  return createElement(Client.Provider, { value: made }, children);
}

/**
 * The provider's client, for everything that is not state: `client.agents()`, `client.exportEvents(id)`, …
 *
 * @returns {RuncastClient}
 */
export function useRuncast() {
  const client = useContext(Client);
  if (!client) throw new Error("useRuncast and the other hooks need a <RuncastProvider> around them");
  return client;
}

/**
 * @typedef {object} AgentSSE
 * @property {string | null} executionId
 * @property {ExecutionState | null} state what the execution looks like now; null until something is known of it
 * @property {Status} status of the stream
 * @property {readonly StreamEvent[]} events the last 200
 * @property {Error | null} error why the stream or the agent has failed; what passes by itself is none
 * @property {() => void} reconnect begin again, after the stream has failed
 */

/**
 * Watch an execution while the component is mounted. Nothing is opened while `executionId` is null.
 *
 * @param {string | null | undefined} executionId
 * @param {SharedWatchOptions & {onEvent?: (event: StreamEvent) => void}} [options] `onEvent` is told each event that
 *   arrives while the component is mounted, once; what another component's stream got before is in `state`
 * @returns {AgentSSE}
 */
export function useAgentSSE(executionId, { onEvent, mode, identity, workerUrl, from, cursor } = {}) {
  const client = useRuncast();
  const shared = useMemo(() => {
    const options = { mode, identity, workerUrl, from, cursor };
    return executionId ? sharedWatch(client, executionId, options) : null;
  }, [client, executionId, mode, identity, workerUrl, from, cursor]);
  const { state, status, events = NO_EVENTS } = useShared(shared, UNOPENED, onEvent);
  const reconnect = useCallback(() => shared?.restart(), [shared]);
  return useMemo(
    () => ({ executionId: executionId ?? null, state, status, events, error: failureOf(status, state), reconnect }),
    [executionId, state, status, events, reconnect],
  );
}

/**
 * @typedef {object} ExecutionControls None of the functions raises: what went wrong is `error`.
 * @property {(request: string | ExecuteRequest) => Promise<string | null>} startExecution a task, or all there is to
 *   say; the new execution's id. One that is under way goes on, unwatched
 * @property {(reason?: string) => Promise<boolean>} cancelExecution whether it will be cancelled
 * @property {(inputId: string, value: unknown) => Promise<boolean>} answerInput whether this was the answer that counts
 * @property {(executionId: string | null) => void} followExecution show this one; null: none. Nothing is cancelled
 * @property {boolean} isStarting
 * @property {boolean} isExecuting from the start until it is over, waiting for people included; of one that was not
 *   started here, as soon as that is known
 * @property {Error | null} error of the last request, the stream (both `RuncastError`) or the agent (`ExecutionFailed`)
 */

/**
 * Start an execution, watch it, answer what it asks, cancel it. When the component goes, the execution goes on.
 *
 * @param {SharedWatchOptions & {
 *   agent?: string,
 *   executionId?: string | null,
 *   onEvent?: (event: StreamEvent) => void,
 * }} [options] `agent` is started by a request that names none; `executionId` is one to show from the beginning, and
 *   another one when it changes
 * @returns {AgentSSE & ExecutionControls}
 */
export function useAgentExecution({ agent, executionId: given = null, ...options } = {}) {
  const client = useRuncast();
  const [own, setOwn] = useState({ ...NOTHING_ASKED, given, executionId: given });
  if (own.given !== given) setOwn({ ...own, ...NOTHING_ASKED, given, executionId: given });
  const [requests] = useState(() => new Requests((change) => setOwn((before) => ({ ...before, ...change }))));
  useInsertionEffect(() => requests.follow(given), [requests, given]);
  const latestAgent = useLatest(agent);
  const watched = useAgentSSE(own.executionId, options);

  const controls = useMemo(
    () => ({
      startExecution: (/** @type {string | ExecuteRequest} */ request) => {
        const asked = typeof request === "string" ? { task: request } : request;
        return requests.start(client, { agent: latestAgent.current, ...asked });
      },
      cancelExecution: (/** @type {string | undefined} */ reason) => requests.cancel(client, reason),
      answerInput: (/** @type {string} */ inputId, /** @type {unknown} */ value) =>
        requests.answer(client, inputId, value),
      followExecution: (/** @type {string | null} */ executionId) => {
        requests.follow(executionId);
        setOwn((before) => ({ ...before, ...NOTHING_ASKED, executionId }));
      },
    }),
    [client, requests, latestAgent],
  );
  const { isStarting, startedId } = own;
  const isStarted = own.executionId !== null && own.executionId === startedId;
  const isExecuting = isStarting || isUnderWay(watched.status, watched.state, isStarted);
  const error = own.error ?? watched.error;
  return useMemo(
    () => ({ ...watched, ...controls, isStarting, isExecuting, error }),
    [watched, controls, isStarting, isExecuting, error],
  );
}

/**
 * @typedef {object} AgentFeed
 * @property {readonly FeedItem[]} executions newest first
 * @property {boolean} isLoaded
 * @property {Status} status of the feed's stream
 * @property {Error | null} error
 * @property {() => void} reconnect begin again, after the stream has failed
 */

/**
 * The user's executions, live, on one connection however many they are.
 *
 * @param {TransportOptions & {limit?: number, onEvent?: (event: StreamEvent) => void}} [options] `limit`: how many, at
 *   most 200 (50); `onEvent` is told what happens while the component is mounted, but for deltas and `tool:progress`
 * @returns {AgentFeed}
 */
export function useAgentFeed({ onEvent, mode, identity, workerUrl, limit } = {}) {
  const client = useRuncast();
  const shared = useMemo(
    () => sharedFeed(client, { mode, identity, workerUrl, limit }),
    [client, mode, identity, workerUrl, limit],
  );
  const snapshot = useShared(shared, UNOPENED_FEED, onEvent);
  const reconnect = useCallback(() => shared.restart(), [shared]);
  return useMemo(() => ({ ...snapshot, reconnect }), [snapshot, reconnect]);
}

/**
 * Subscribed while mounted; `before` is shown until then, and on a server.
 *
 * @template S
 * @param {Shared<S> | null} shared
 * @param {S} before
 * @param {((event: StreamEvent) => void) | undefined} onEvent
 * @returns {S}
 */
function useShared(shared, before, onEvent) {
  const reader = useLatest(onEvent);
  const subscribe = useCallback(
    (/** @type {() => void} */ listener) =>
      shared?.subscribe(listener, (event) => reader.current?.(event)) ?? (() => {}),
    [shared, reader],
  );
  const snapshot = useCallback(() => shared?.getSnapshot() ?? before, [shared, before]);
  return useSyncExternalStore(subscribe, snapshot, () => before);
}

/**
 * What callbacks read that were made in an earlier render.
 *
 * @template T
 * @param {T} value
 * @returns {{readonly current: T}}
 */
function useLatest(value) {
  const latest = useRef(value);
  // Before every other effect, and silent on a server.
  useInsertionEffect(() => {
    latest.current = value;
  });
  return latest;
}
