/**
 * Requests of a page about one execution: start, cancel, answer, messages. No function raises: an error is part of the
 * state that the page shows. This module uses no framework.
 *
 * @import { RuncastClient } from "./api.js"
 * @import { ExecuteRequest, MessageRequest } from "./events.js"
 */
/**
 * @typedef {object} RequestState
 * @property {string | null} executionId
 * @property {boolean} isStarting
 * @property {Error | null} error of the last request
 * @property {string | null} [startedId] the last execution that was started here and that an edge has accepted
 */
/** Without `startedId`, so that a reset keeps it. @type {Readonly<RequestState>} */
export const NO_REQUEST: Readonly<RequestState>;
/** The requests about the execution that a page shows, one at a time. */
export class Requests {
    /** @param {(change: Partial<RequestState>) => void} change called with the fields that changed */
    constructor(change: (change: Partial<RequestState>) => void);
    /** Show this execution, and ignore the answer of a start that is under way. @param {string | null} executionId */
    follow(executionId: string | null): void;
    /**
     * The new execution's id; null if the start failed. With several starts at once, the page shows the last one.
     *
     * @param {RuncastClient} client
     * @param {ExecuteRequest} request
     */
    start(client: RuncastClient, request: ExecuteRequest): Promise<string | null>;
    /**
     * Whether the execution will be cancelled. It is no error if it is over already.
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
    /**
     * Whether the message waits for the agent.
     *
     * @param {RuncastClient} client
     * @param {string | MessageRequest} message
     */
    say(client: RuncastClient, message: string | MessageRequest): Promise<boolean>;
    /**
     * Whether the agent will not take the message.
     *
     * @param {RuncastClient} client
     * @param {string} messageId
     */
    withdraw(client: RuncastClient, messageId: string): Promise<boolean>;
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
     * the last execution that was started here and that an edge has accepted
     */
    startedId?: string | null | undefined;
};
import type { RuncastClient } from "./api.js";
import type { ExecuteRequest } from "./events.js";
import type { MessageRequest } from "./events.js";
