/** Why a job is interrupted, and not by a person: by its limit, the end of its worker, or another worker. */
export class Cut extends RuncastError {
    /** @param {"limit" | "stopping" | "lost"} kind @param {string} message */
    constructor(kind: "limit" | "stopping" | "lost", message: string);
    kind: "limit" | "stopping" | "lost";
}
/** @typedef {{kind: "cancel" | "limit" | "stopping" | "lost", message: string, reason: string | null}} Cause */
export class HeldJob {
    /** @param {any} claimed as the edge described it @param {Renewing} renewing */
    constructor(claimed: any, renewing: Renewing);
    /** @type {Cause | null} */
    cause: Cause | null;
    ref: {
        executionId: any;
        attempt: any;
        fence: any;
    };
    /** @type {string} */
    executionId: string;
    /** @type {number} */
    attempt: number;
    /** @type {string} */
    agent: string;
    /** @type {string} */
    task: string;
    /** @type {Record<string, any>} */
    params: Record<string, any>;
    /** @type {Record<string, any>} */
    metadata: Record<string, any>;
    /** @type {string | null} */
    conversationId: string | null;
    /** @type {string | undefined} */
    requestId: string | undefined;
    /** @type {{user: string, org: string}} */
    owner: {
        user: string;
        org: string;
    };
    /** @type {number} */
    leaseSeconds: number;
    /** @type {number | null} */
    timeLimit: number | null;
    /** @type {number} */
    failed: number;
    /** What its emitter gets. @returns {JobHold} */
    get hold(): JobHold;
    get heldRef(): {
        waitingFor: string[];
        executionId: any;
        attempt: any;
        fence: any;
    };
    /** Whether it waits for a person. */
    get isWaiting(): boolean;
    /** Interrupt the agent. @param {Cut} cut */
    cut(cut: Cut): void;
    /** What the edge says of it; whether that is news. @param {any} found */
    renewed({ state, cancel, why, answers }: any): boolean;
    begin(): void;
    close(): void;
    /** @param {string} [inputId] whose answer somebody waits for */
    need(inputId?: string): () => void;
    /** Wait until an earlier answer would be known, for as long as edges are away. */
    live(): Promise<undefined>;
    #private;
}
export type Renewing = {
    /**
     * there is one more question to renew with, or one less
     */
    changed: () => void;
    /**
     * at once
     */
    renew: (job: HeldJob) => Promise<boolean>;
};
export type Cause = {
    kind: "cancel" | "limit" | "stopping" | "lost";
    message: string;
    reason: string | null;
};
import { RuncastError } from "./errors.js";
import type { JobHold } from "./log-watch.js";
