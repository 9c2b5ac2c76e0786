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
export function RuncastProvider({ client, baseUrl, token, children }: {
    client?: RuncastClient | undefined;
    baseUrl?: string | undefined;
    token?: string | TokenFunction | undefined;
    children?: ReactNode;
}): import("react").FunctionComponentElement<import("react").ProviderProps<RuncastClient | null>>;
/**
 * The provider's client, for everything that is not state: `client.agents()`, `client.exportEvents(id)`, …
 *
 * @returns {RuncastClient}
 */
export function useRuncast(): RuncastClient;
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
export function useAgentSSE(executionId: string | null | undefined, { onEvent, mode, identity, workerUrl, from, cursor }?: SharedWatchOptions & {
    onEvent?: (event: StreamEvent) => void;
}): AgentSSE;
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
 * @property {() => void} reconnect begin again, after the stream has failed
 */
/**
 * The user's executions, live, on one connection however many they are.
 *
 * @param {TransportOptions & {limit?: number, onEvent?: (event: StreamEvent) => void}} [options] `limit`: how many, at
 *   most 200 (50); `onEvent` is told what happens while the component is mounted, but for deltas and `tool:progress`
 * @returns {AgentFeed}
 */
export function useAgentFeed({ onEvent, mode, identity, workerUrl, limit }?: TransportOptions & {
    limit?: number;
    onEvent?: (event: StreamEvent) => void;
}): AgentFeed;
export { ExecutionFailed };
export type AgentSSE = {
    executionId: string | null;
    /**
     * what the execution looks like now; null until something is known of it
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
     * why the stream or the agent has failed; what passes by itself is none
     */
    error: Error | null;
    /**
     * begin again, after the stream has failed
     */
    reconnect: () => void;
};
/**
 * None of the functions raises: what went wrong is `error`.
 */
export type ExecutionControls = {
    /**
     * a task, or all there is to
     * say; the new execution's id. One that is under way goes on, unwatched
     */
    startExecution: (request: string | ExecuteRequest) => Promise<string | null>;
    /**
     * whether it will be cancelled
     */
    cancelExecution: (reason?: string) => Promise<boolean>;
    /**
     * whether this was the answer that counts
     */
    answerInput: (inputId: string, value: unknown) => Promise<boolean>;
    /**
     * show this one; null: none. Nothing is cancelled
     */
    followExecution: (executionId: string | null) => void;
    isStarting: boolean;
    /**
     * from the start until it is over, waiting for people included; of one that was not
     * started here, as soon as that is known
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
     * begin again, after the stream has failed
     */
    reconnect: () => void;
};
import { RuncastClient } from "./index.js";
import type { TokenFunction } from "./api.js";
import type { ReactNode } from "react";
import type { SharedWatchOptions } from "./sharing.js";
import type { StreamEvent } from "./events.js";
import type { TransportOptions } from "./sharing.js";
import { ExecutionFailed } from "./outcome.js";
import type { ExecutionState } from "./events.js";
import type { Status } from "./stream.js";
import type { ExecuteRequest } from "./events.js";
import type { FeedItem } from "./executions.js";
