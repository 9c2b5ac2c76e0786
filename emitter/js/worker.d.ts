/** A worker for these agents; `run` starts it. @param {WorkerOptions} options */
export function createWorker(options: WorkerOptions): Worker;
/** Raised by an agent: try again, after so many seconds (absent: the usual pause), if attempts are left. */
export class Retry extends Error {
    /** @param {string} [message] @param {{after?: number, cause?: unknown}} [options] */
    constructor(message?: string, { after, cause }?: {
        after?: number;
        cause?: unknown;
    });
    after: number | undefined;
}
/** Raised by an agent: do not try again. */
export class Fatal extends Error {
    /** @param {string} [message] @param {{cause?: unknown}} [options] */
    constructor(message?: string, { cause }?: {
        cause?: unknown;
    });
}
export class Worker {
    /** @param {WorkerOptions} options */
    constructor(options: WorkerOptions);
    name: string;
    /** How many jobs it has. */
    get running(): number;
    /** Claim and run jobs until `stop`, or until the edges refuse this worker: then it raises why. */
    run(): Promise<void>;
    /** Claim no more. Running jobs may finish for `graceSeconds`, and then go to other workers. Resolves when all is done.
     * @param {{graceSeconds?: number}} [options] */
    stop({ graceSeconds }?: {
        graceSeconds?: number;
    }): Promise<void>;
    #private;
}
/**
 * what an agent gets
 */
export type Context = {
    /**
     * which the worker has started, and ends with what the agent returns or raises
     */
    emitter: AgentEmitter;
    task: string;
    params: Record<string, any>;
    metadata: Record<string, any>;
    /**
     * aborted by a cancel, a limit, the end of the worker, or when another worker has the job
     */
    signal: AbortSignal;
    /**
     * asks a person; it holds no place of the worker while it waits
     */
    ask: AgentEmitter["ask"];
    executionId: string;
    conversationId: string | null;
    /**
     * from 1
     */
    attempt: number;
    /**
     * how many attempts before this one have failed
     */
    failed: number;
    /**
     * whose execution it is
     */
    owner: {
        user: string;
        org: string;
    };
};
/**
 * what it returns is the execution's result
 */
export type AgentFunction = (context: Context) => unknown;
export type AgentOptions = {
    run: AgentFunction;
    description?: string | undefined;
    tags?: readonly string[] | undefined;
    /**
     * a JSON Schema of `params`
     */
    inputSchema?: Record<string, unknown> | undefined;
    /**
     * media types
     */
    inputModes?: readonly string[] | undefined;
    outputModes?: readonly string[] | undefined;
    /**
     * 3 by default: lost workers, and failures that are tried again
     */
    maxAttempts?: number | undefined;
    /**
     * of an attempt, seconds
     */
    timeLimit?: number | undefined;
    /**
     * without an event, seconds; waits for people excluded
     */
    idleLimit?: number | undefined;
    /**
     * whether people may talk to it while it runs: it reads `emitter.messages()`
     */
    acceptsMessages?: boolean | undefined;
    /**
     * which errors are tried again; by default those of connections,
     * timeouts and busy servers
     */
    retryOn?: ((error: unknown) => boolean) | undefined;
};
export type OwnOptions = {
    /**
     * by name: 1 to 64 of a-z 0-9 _ . -
     */
    agents: Record<string, AgentFunction | AgentOptions>;
    /**
     * how many jobs it runs at a time; those that wait for a person do not count
     */
    concurrency?: number | undefined;
    /**
     * of this process, unique among those with this token
     */
    name?: string | undefined;
    /**
     * how long `stop` lets running jobs finish, before they go to other workers
     */
    graceSeconds?: number | undefined;
    /**
     * told
     * of agents that failed, and of edges that cannot be reached
     */
    onError?: ((error: unknown, job: {
        executionId: string;
        agent: string;
        attempt: number;
    } | null) => void) | undefined;
};
export type WorkerOptions = Omit<EdgeOptions, "userId" | "org"> & OwnOptions;
import { AgentEmitter } from "./agent-emitter.js";
import type { EdgeOptions } from "./edge.js";
