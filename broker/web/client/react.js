"use client";
/**
 * Hooks for React 18 and 19: an agent's execution as state of a component.
 *
 * Components under one provider that read the same execution share one stream: the first one opens it, the last one
 * closes it. The hooks work under StrictMode and in concurrent renders, and open nothing on a server. They do not need
 * zustand: `useAgentStore` is in `@runcast/client/store`.
 *
 * @import { ReactNode } from "react"
 * @import { ExecuteRequest, ExecutionNode, ExecutionState, MessageRequest, StreamEvent } from "./events.js"
 * @import { TokenFunction } from "./api.js"
 * @import { FeedItem } from "./execution-list.js"
 * @import { RefCounted, SharedWatchOptions, TransportOptions } from "./ref-count.js"
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
import { NO_REQUEST, Requests } from "./requests.js";
import { sharedFeed, sharedTree, sharedWatch, UNOPENED, UNOPENED_FEED, UNOPENED_TREE } from "./ref-count.js";

export { ExecutionFailed };

const BY_FUNCTION = Symbol("a function provides the token");
/** @type {readonly StreamEvent[]} */
const NO_EVENTS = Object.freeze([]);
const Client = createContext(/** @type {RuncastClient | null} */ (null));

/**
 * The client that the hooks below it use: `client`, or one for `baseUrl` and `token`.
 *
 * A token function may be a new one at each render; it is called whenever a token is needed. A new string, baseUrl or
 * client opens the streams again. If another user signs in, give the provider another `key`.
 *
 * @param {object} props
 * @param {RuncastClient} [props.client]
 * @param {string} [props.baseUrl] of the edges; same origin if absent
 * @param {string | TokenFunction} [props.token] absent: the cookie
 * @param {ReactNode} [props.children]
 */
export function RuncastProvider({ client, baseUrl, token, children }) {
  const latest = useLatest(token);
  const given = typeof token === "function" ? BY_FUNCTION : token;
  const made = useMemo(() => {
    /** @type {TokenFunction} */
    const ask = (asked) => (typeof latest.current === "function" ? latest.current(asked) : latest.current);
    return client ?? new RuncastClient({ baseUrl, token: given === BY_FUNCTION ? ask : given });
  }, [client, baseUrl, given, latest]);
  return createElement(Client.Provider, { value: made }, children);
}

/**
 * The provider's client, for requests beyond the hooks: `client.agents()`, `client.exportEvents(id)`, …
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
 * @property {ExecutionState | null} state the current state; null until the first event
 * @property {Status} status of the stream
 * @property {readonly StreamEvent[]} events the last 200
 * @property {Error | null} error why the stream or the agent failed; null while the stream reconnects by itself
 * @property {() => void} reconnect start again after the stream has failed
 */

/**
 * Watch an execution while the component is mounted. Nothing is opened while `executionId` is null.
 *
 * @param {string | null | undefined} executionId
 * @param {SharedWatchOptions & {onEvent?: (event: StreamEvent) => void}} [options] `onEvent` is called once for
 *   each event that arrives while the component is mounted; earlier events of a shared stream are in `state` only
 * @returns {AgentSSE}
 */
export function useAgentSSE(executionId, { onEvent, mode, identity, workerUrl, from, cursor, compact } = {}) {
  const client = useRuncast();
  const shared = useMemo(() => {
    const options = { mode, identity, workerUrl, from, cursor, compact };
    return executionId ? sharedWatch(client, executionId, options) : null;
  }, [client, executionId, mode, identity, workerUrl, from, cursor, compact]);
  const { state, status, events = NO_EVENTS } = useShared(shared, UNOPENED, onEvent);
  const reconnect = useCallback(() => shared?.restart(), [shared]);
  return useMemo(
    () => ({ executionId: executionId ?? null, state, status, events, error: failureOf(status, state), reconnect }),
    [executionId, state, status, events, reconnect],
  );
}

/**
 * @typedef {object} ExecutionControls No function raises; errors are in `error`.
 * @property {(request: string | ExecuteRequest) => Promise<string | null>} startExecution a task or a whole
 *   request; the new execution's id, null if it failed. An execution that was shown before continues, unwatched
 * @property {(reason?: string) => Promise<boolean>} cancelExecution whether the execution will be cancelled
 * @property {(inputId: string, value: unknown) => Promise<boolean>} answerInput whether this answer was accepted
 * @property {(message: string | MessageRequest) => Promise<boolean>} sendMessage whether the message waits for the
 *   agent; `state.userMessages` says what becomes of it
 * @property {(messageId: string) => Promise<boolean>} withdrawMessage whether the agent will not take it
 * @property {(executionId: string | null) => void} followExecution show this execution; null: none. Nothing is
 *   cancelled
 * @property {boolean} isStarting
 * @property {boolean} isExecuting from the start to the terminal event, also while it waits for input; if the
 *   execution was not started here, from the first event
 * @property {Error | null} error of the last request, the stream (both `RuncastError`) or the agent (`ExecutionFailed`)
 */

/**
 * Start an execution, watch it, answer its inputs, talk to its agent, cancel it. The execution continues when the
 * component unmounts.
 *
 * @param {SharedWatchOptions & {
 *   agent?: string,
 *   executionId?: string | null,
 *   onEvent?: (event: StreamEvent) => void,
 * }} [options] `agent`: for requests without an agent; `executionId`: which execution to show, until another one is
 *   started, followed or given here
 * @returns {AgentSSE & ExecutionControls}
 */
export function useAgentExecution({ agent, executionId: given = null, ...options } = {}) {
  const client = useRuncast();
  const [own, setOwn] = useState({ ...NO_REQUEST, given, executionId: given });
  if (own.given !== given) setOwn({ ...own, ...NO_REQUEST, given, executionId: given });
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
      sendMessage: (/** @type {string | MessageRequest} */ message) => requests.say(client, message),
      withdrawMessage: (/** @type {string} */ messageId) => requests.withdraw(client, messageId),
      followExecution: (/** @type {string | null} */ executionId) => {
        requests.follow(executionId);
        setOwn((before) => ({ ...before, ...NO_REQUEST, executionId }));
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
 * @property {() => void} reconnect start again after the stream has failed
 */

/**
 * The list of the user's executions, live, over one connection.
 *
 * @param {TransportOptions & {limit?: number, onEvent?: (event: StreamEvent) => void}} [options] `limit`: how
 *   many executions, 50 by default, at most 200; `onEvent` is called for events that arrive while the component is
 *   mounted; the feed has no deltas and no `tool:progress`
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
 * @typedef {object} AgentTree
 * @property {ExecutionNode | null} tree the execution with its `children`; null until it has been read
 * @property {Status} status of the feed's stream
 * @property {Error | null} error
 * @property {() => void} reconnect start again after the stream has failed
 */

/**
 * An execution and all that it started, as a tree, live. One connection, however large the tree is. Nothing is opened
 * while `rootId` is null.
 *
 * @param {string | null | undefined} rootId any execution: its children and theirs are shown
 * @param {TransportOptions & {onEvent?: (event: StreamEvent) => void}} [options] `onEvent` is called for events of the
 *   tree that arrive while the component is mounted, without deltas and `tool:progress`
 * @returns {AgentTree}
 */
export function useAgentTree(rootId, { onEvent, mode, identity, workerUrl } = {}) {
  const client = useRuncast();
  const shared = useMemo(
    () => (rootId ? sharedTree(client, rootId, { mode, identity, workerUrl }) : null),
    [client, rootId, mode, identity, workerUrl],
  );
  const snapshot = useShared(shared, UNOPENED_TREE, onEvent);
  const reconnect = useCallback(() => shared?.restart(), [shared]);
  return useMemo(() => ({ ...snapshot, reconnect }), [snapshot, reconnect]);
}

/**
 * The snapshot of a source, subscribed while mounted; `before` until then, and on a server.
 *
 * @template S
 * @param {RefCounted<S> | null} shared
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
 * The value of the latest render, for callbacks that were created in an earlier one.
 *
 * @template T
 * @param {T} value
 * @returns {{readonly current: T}}
 */
function useLatest(value) {
  const latest = useRef(value);
  // Insertion effects run before all other effects, and give no warning on a server.
  useInsertionEffect(() => {
    latest.current = value;
  });
  return latest;
}
