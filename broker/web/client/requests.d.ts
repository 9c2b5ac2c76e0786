/**
 * What a page asks of one execution: start, cancel, answer. Nothing here raises: what went wrong is part of what the
 * page shows. No framework in here.
 *
 * @import { RuncastClient } from "./api.js"
 * @import { ExecuteRequest } from "./events.js"
 */
/**
 * @typedef {object} RequestState
 * @property {string | null} executionId
 * @property {boolean} isStarting
 * @property {Error | null} error of the last request
 * @property {string | null} [startedId] the last that was started, of which an edge said that it is queued
 */
/** Whatever was started before stays known. @type {Readonly<RequestState>} */
export const NOTHING_ASKED: Readonly<RequestState>;
/** The requests about the execution that a page shows, one at a time. */
export class Requests {
    /** @param {(change: Partial<RequestState>) => void} change is told what is different now */
    constructor(change: (change: Partial<RequestState>) => void);
    /** It is this one from now on, and not one that is being started. @param {string | null} executionId */
    follow(executionId: string | null): void;
    /**
     * The new execution's id; null if there is none. Of several starts at once the page shows the last.
     *
     * @param {RuncastClient} client
     * @param {ExecuteRequest} request
     */
    start(client: RuncastClient, request: ExecuteRequest): Promise<string | null>;
    /**
     * Whether it will be cancelled. That it is over already is no error.
     *
     * @param {RuncastClient} client
     * @param {string} [reason]
     */
    cancel(client: RuncastClient, reason?: string): Promise<boolean>;
    /**
     * Whether this was the answer that counts.
     *
     * @param {RuncastClient} client
     * @param {string} inputId
     * @param {unknown} value
     */
    answer(client: RuncastClient, inputId: string, value: unknown): Promise<boolean>;
    #private;
}
export type RequestState = {
    executionId: string | null;
    isStarting: boolean;
    /**
     * of the last request
     */
    error: Error | null;
    /**
     * the last that was started, of which an edge said that it is queued
     */
    startedId?: string | null | undefined;
};
import type { RuncastClient } from "./api.js";
import type { ExecuteRequest } from "./events.js";
