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
export function RuncastProvider({ client, baseUrl, token, children }: {
    client?: RuncastClient | undefined;
    baseUrl?: string | undefined;
    token?: string | TokenFunction | undefined;
    children?: ReactNode;
}): import("react").FunctionComponentElement<import("react").ProviderProps<RuncastClient | null>>;
/**
 * The provider's client, for requests beyond the hooks: `client.agents()`, `client.exportEvents(id)`, …
 *
 * @returns {RuncastClient}
 */
export function useRuncast(): RuncastClient;
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
export function useAgentSSE(executionId: string | null | undefined, { onEvent, mode, identity, workerUrl, from, cursor, compact }?: SharedWatchOptions & {
    onEvent?: (event: StreamEvent) => void;
}): AgentSSE;
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
export function useAgentExecution({ agent, executionId: given, ...options }?: SharedWatchOptions & {
    agent?: string;
    executionId?: string | null;
    onEvent?: (event: StreamEvent) => void;
}): AgentSSE & ExecutionControls;
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
export function useAgentFeed({ onEvent, mode, identity, workerUrl, limit }?: TransportOptions & {
    limit?: number;
    onEvent?: (event: StreamEvent) => void;
}): AgentFeed;
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
export function useAgentTree(rootId: string | null | undefined, { onEvent, mode, identity, workerUrl }?: TransportOptions & {
    onEvent?: (event: StreamEvent) => void;
}): AgentTree;
export { ExecutionFailed };
export type AgentSSE = {
    executionId: string | null;
    /**
     * the current state; null until the first event
     */
    state: ExecutionState | null;
    /**
     * of the stream
     */
    status: Status;
    /**
     * the last 200
     */
    events: readonly StreamEvent[];
    /**
     * why the stream or the agent failed; null while the stream reconnects by itself
     */
    error: Error | null;
    /**
     * start again after the stream has failed
     */
    reconnect: () => void;
};
/**
 * No function raises; errors are in `error`.
 */
export type ExecutionControls = {
    /**
     * a task or a whole
     * request; the new execution's id, null if it failed. An execution that was shown before continues, unwatched
     */
    startExecution: (request: string | ExecuteRequest) => Promise<string | null>;
    /**
     * whether the execution will be cancelled
     */
    cancelExecution: (reason?: string) => Promise<boolean>;
    /**
     * whether this answer was accepted
     */
    answerInput: (inputId: string, value: unknown) => Promise<boolean>;
    /**
     * whether the message waits for the
     * agent; `state.userMessages` says what becomes of it
     */
    sendMessage: (message: string | MessageRequest) => Promise<boolean>;
    /**
     * whether the agent will not take it
     */
    withdrawMessage: (messageId: string) => Promise<boolean>;
    /**
     * show this execution; null: none. Nothing is
     * cancelled
     */
    followExecution: (executionId: string | null) => void;
    isStarting: boolean;
    /**
     * from the start to the terminal event, also while it waits for input; if the
     * execution was not started here, from the first event
     */
    isExecuting: boolean;
    /**
     * of the last request, the stream (both `RuncastError`) or the agent (`ExecutionFailed`)
     */
    error: Error | null;
};
export type AgentFeed = {
    /**
     * newest first
     */
    executions: readonly FeedItem[];
    isLoaded: boolean;
    /**
     * of the feed's stream
     */
    status: Status;
    error: Error | null;
    /**
     * start again after the stream has failed
     */
    reconnect: () => void;
};
export type AgentTree = {
    /**
     * the execution with its `children`; null until it has been read
     */
    tree: ExecutionNode | null;
    /**
     * of the feed's stream
     */
    status: Status;
    error: Error | null;
    /**
     * start again after the stream has failed
     */
    reconnect: () => void;
};
import { RuncastClient } from "./index.js";
import type { TokenFunction } from "./api.js";
import type { ReactNode } from "react";
import type { SharedWatchOptions } from "./ref-count.js";
import type { StreamEvent } from "./events.js";
import type { TransportOptions } from "./ref-count.js";
import { ExecutionFailed } from "./outcome.js";
import type { ExecutionState } from "./events.js";
import type { Status } from "./stream.js";
import type { ExecuteRequest } from "./events.js";
import type { MessageRequest } from "./events.js";
import type { FeedItem } from "./execution-list.js";
import type { ExecutionNode } from "./events.js";
