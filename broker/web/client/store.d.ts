/**
 * Create a store, for pages that show several executions at once.
 *
 * @param {Partial<Limits>} [limits]
 * @returns {UseBoundStore<StoreApi<AgentStore>>}
 */
export function createAgentStore({ maxSteps, maxText }?: Partial<Limits>): UseBoundStore<StoreApi<AgentStore>>;
/**
 * Let a store follow an execution while the component is mounted. `useAgentSSE` with the same options shares its
 * stream.
 *
 * @param {string | null | undefined} executionId
 * @param {UseBoundStore<StoreApi<AgentStore>>} [store]
 * @param {FollowOptions} [options]
 */
export function useStoredExecution(executionId: string | null | undefined, store?: UseBoundStore<StoreApi<AgentStore>>, { mode, identity, workerUrl, from, cursor, compact }?: FollowOptions): void;
export const MAX_STEPS: 100;
export const MAX_TEXT: 100000;
/** The default store, for pages that show one execution at a time. */
export const useAgentStore: UseBoundStore<StoreApi<AgentStore>>;
export type FollowOptions = SharedWatchOptions;
export type CurrentExecution = {
    executionId: string;
    status: wire.State;
    task: string | null;
    agent: string | null;
    attempt: number;
    startedAt: number | null;
    endedAt: number | null;
    /**
     * seconds
     */
    duration: number | null;
    result: unknown;
};
export type AgentStoreState = {
    /**
     * null until the first event
     */
    currentExecution: CurrentExecution | null;
    isStarting: boolean;
    isExecuting: boolean;
    /**
     * the last thoughts
     */
    thinkingSteps: readonly wire.ThoughtState[];
    plan: wire.Plan | null;
    phases: readonly wire.PhaseState[];
    progress: wire.ProgressState | null;
    /**
     * the last calls
     */
    tools: readonly wire.ToolState[];
    specialists: readonly wire.SpecialistState[];
    /**
     * the last characters, if it is very long
     */
    text: string;
    usage: wire.UsageTotals | null;
    openInputs: readonly wire.InputRequired[];
    /**
     * what people have said to the agent
     */
    userMessages: readonly wire.UserMessageState[];
    /**
     * of the last request, of the stream, or of the agent
     */
    error: Error | null;
    connection: Status;
};
/**
 * No function raises; errors are in `error`.
 */
export type AgentStoreActions = {
    /**
     * show
     * this execution until another one is followed or the returned function is called
     */
    followExecution: (client: RuncastClient, executionId: string, options?: FollowOptions) => () => void;
    /**
     * start
     * and follow an execution
     */
    startExecution: (client: RuncastClient, request: wire.ExecuteRequest) => Promise<string | null>;
    cancelExecution: (reason?: string) => Promise<boolean>;
    answerInput: (inputId: string, value: unknown) => Promise<boolean>;
    /**
     * whether the message waits for the
     * agent; `userMessages` says what becomes of it
     */
    sendMessage: (message: string | wire.MessageRequest) => Promise<boolean>;
    /**
     * whether the agent will not take it
     */
    withdrawMessage: (messageId: string) => Promise<boolean>;
    /**
     * show no execution; it continues
     */
    clear: () => void;
};
export type AgentStore = AgentStoreState & AgentStoreActions;
/**
 * `maxSteps`: of thoughts, and of calls; `maxText`: characters
 */
export type Limits = {
    maxSteps: number;
    maxText: number;
};
import type { StoreApi } from "zustand";
import type { UseBoundStore } from "zustand";
import type { SharedWatchOptions } from "./ref-count.js";
import type * as wire from "./events.js";
import type { Status } from "./stream.js";
import type { RuncastClient } from "./api.js";
