export class LogWatch {
    /** @param {Edge} edge @param {string} executionId @param {(event: Heard) => void} onEvent */
    constructor(edge: Edge, executionId: string, onEvent: (event: Heard) => void);
    /** Why the stream cannot be read. @type {Error | null} */
    error: Error | null;
    /** The execution is known: before its first event there is no stream. */
    begin(): void;
    /** Read the stream, once there is one, until the returned function is called. */
    need(): () => void;
    /** Wait until everything that the log has was read. Raises if it cannot be read. @returns {Promise<void>} */
    live(): Promise<void>;
    close(): void;
    #private;
}
export type Heard = {
    type: string;
    data: Record<string, any>;
};
/**
 * what tells an emitter of cancels and answers
 */
export type Watch = {
    begin: () => void;
    close: () => void;
    need: (inputId?: string) => () => void;
    live: () => Promise<unknown>;
};
/**
 * the attempt that a worker runs; the worker renews its lease, and hears of its cancel
 */
export type JobHold = {
    attempt: number;
    fence: number | string;
    /**
     * aborted by the worker
     */
    signal: AbortSignal;
    /**
     * instead of the execution's stream
     */
    watch: (onEvent: (event: Heard) => void) => Watch;
};
import type { Edge } from "./edge.js";
