/**
 * A store of its own, for pages that show several executions at a time.
 *
 * @param {Partial<Limits>} [limits]
 * @returns {UseBoundStore<StoreApi<AgentStore>>}
 */
export function createAgentStore({ maxSteps, maxText }?: Partial<Limits>): UseBoundStore<StoreApi<AgentStore>>;
/**
 * Have a store follow an execution while the component is mounted. The stream is shared with `useAgentSSE`, where both
 * have the same options.
 *
 * @param {string | null | undefined} executionId
 * @param {UseBoundStore<StoreApi<AgentStore>>} [store]
 * @param {FollowOptions} [options]
 */
export function useStoredExecution(executionId: string | null | undefined, store?: UseBoundStore<StoreApi<AgentStore>>, { mode, identity, workerUrl, from, cursor }?: FollowOptions): void;
export const MAX_STEPS: 100;
export const MAX_TEXT: 100000;
/** The store of pages that show one execution at a time. */
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
     * null until something is known of it
     */
    currentExecution: CurrentExecution | null;
    isStarting: boolean;
    isExecuting: boolean;
    /**
     * the last ones
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
     * its last characters, if there are very many
     */
    text: string;
    usage: wire.UsageTotals | null;
    openInputs: readonly wire.InputRequired[];
    /**
     * of the last request, of the stream, or of the agent
     */
    error: Error | null;
    connection: Status;
};
/**
 * None of them raises: what went wrong is `error`.
 */
export type AgentStoreActions = {
    /**
     * show
     * this one, until another is followed or the returned function is called
     */
    followExecution: (client: RuncastClient, executionId: string, options?: FollowOptions) => () => void;
    /**
     * and follow
     * it
     */
    startExecution: (client: RuncastClient, request: wire.ExecuteRequest) => Promise<string | null>;
    cancelExecution: (reason?: string) => Promise<boolean>;
    answerInput: (inputId: string, value: unknown) => Promise<boolean>;
    /**
     * show none; the execution goes on
     */
    clear: () => void;
};
export type AgentStore = AgentStoreState & AgentStoreActions;
/**
 * thoughts and tool calls kept each, characters of text kept
 */
export type Limits = {
    maxSteps: number;
    maxText: number;
};
import type { StoreApi } from "zustand";
import type { UseBoundStore } from "zustand";
import type { SharedWatchOptions } from "./sharing.js";
import type * as wire from "./events.js";
import type { Status } from "./stream.js";
import type { RuncastClient } from "./api.js";
