/**
 * @typedef {(asked: {refresh: boolean}) => string | null | undefined | Promise<string | null | undefined>}
 *   TokenFunction
 * `refresh`: a newer token is needed, as the last one was refused or expires soon. Return nothing to use the cookie.
 */
/**
 * @typedef {object} ClientOptions
 * @property {string} [baseUrl] of the edges; same origin if absent
 * @property {string | TokenFunction} [token] absent: the cookie `runcast_token`
 * @property {typeof fetch} [fetch]
 * @property {{user?: string, org?: string}} [as] whose executions these are: of another user, with scope `admin`, or `org:read` in one's org
 */
/**
 * @typedef {object} RequestOptions
 * @property {unknown} [body] sent as JSON
 * @property {Record<string, string>} [headers]
 * @property {AbortSignal} [signal]
 */
/** @typedef {{than: string | null, token: Promise<string | null>, began: Stamp}} Renewal */
/** Requests and streams of one user. */
export class RuncastClient {
    /** @param {ClientOptions} [options] */
    constructor({ baseUrl, token, fetch, as }?: ClientOptions);
    baseUrl: string;
    as: {
        user?: string;
        org?: string;
    };
    /** Whether the application gave a `fetch` of its own, which a worker cannot call. */
    get hasFetch(): boolean;
    /** Whether a newer token can be requested. */
    get canRefresh(): boolean;
    /** The current token; null: the cookie. @param {{refresh?: boolean}} [asked] @returns {Promise<string | null>} */
    token({ refresh }?: {
        refresh?: boolean;
    }): Promise<string | null>;
    /** A newer token than this one, which was refused or expires soon. The token function is called once for all streams
     * and requests that had it, because a refresh token may be valid for one use only.
     * @param {string | null} than @returns {Promise<string | null>} */
    newerToken(than: string | null): Promise<string | null>;
    /** The URL of a path; absolute if the page's address is known, so that a worker can use it. @param {string} path
     * @param {Record<string, string | number | boolean | null | undefined>} [query] values that are null are left out */
    url(path: string, query?: Record<string, string | number | boolean | null | undefined>): string;
    /**
     * Start an execution. A request without an answer is repeated with the same idempotency key: nothing starts twice.
     * @param {wire.ExecuteRequest} request
     * @param {{idempotencyKey?: string, signal?: AbortSignal}} [options]
     * @returns {Promise<wire.ExecuteResponse>}
     */
    execute(request: wire.ExecuteRequest, { idempotencyKey, signal }?: {
        idempotencyKey?: string;
        signal?: AbortSignal;
    }): Promise<wire.ExecuteResponse>;
    /** The caller's executions, newest first. A page may be short, or empty, and still have a `nextCursor`.
     * @param {{q?: string, agent?: string, state?: wire.State, since?: number, until?: number, parent?: string, limit?: number, cursor?: string}} [query]
     * `q`: words in task, result, error, agent or id; `since` and `until`: when it was created, in ms; `parent`: those
     * that it started
     * @param {{signal?: AbortSignal}} [options] @returns {Promise<wire.ExecutionList>} */
    executions(query?: {
        q?: string;
        agent?: string;
        state?: wire.State;
        since?: number;
        until?: number;
        parent?: string;
        limit?: number;
        cursor?: string;
    }, { signal }?: {
        signal?: AbortSignal;
    }): Promise<wire.ExecutionList>;
    /** The state of an execution. @param {string} executionId @param {{signal?: AbortSignal}} [options]
     * @returns {Promise<wire.ExecutionState>} */
    execution(executionId: string, { signal }?: {
        signal?: AbortSignal;
    }): Promise<wire.ExecutionState>;
    /** A link that shows this execution, and nothing else, to whoever has it; a day, unless it says otherwise.
     * @param {string} executionId @param {{expiresInSeconds?: number}} [body] @returns {Promise<wire.ShareResponse>} */
    share(executionId: string, body?: {
        expiresInSeconds?: number;
    }): Promise<wire.ShareResponse>;
    /** The links to an execution that still work. @param {string} executionId @returns {Promise<wire.ShareList>} */
    shares(executionId: string): Promise<wire.ShareList>;
    /** End a link, and the streams that were opened with it. @param {string} executionId @param {string} shareId
     * @returns {Promise<void>} */
    revokeShare(executionId: string, shareId: string): Promise<void>;
    /** What an execution was started with, and by whom: without credentials. @param {string} executionId
     * @param {{signal?: AbortSignal}} [options] @returns {Promise<wire.AcceptedRequest>} */
    acceptedRequest(executionId: string, { signal }?: {
        signal?: AbortSignal;
    }): Promise<wire.AcceptedRequest>;
    /** The states of an execution and of all that it started. @param {string} executionId
     * @param {{signal?: AbortSignal}} [options] @returns {Promise<wire.ExecutionNode>} */
    tree(executionId: string, { signal }?: {
        signal?: AbortSignal;
    }): Promise<wire.ExecutionNode>;
    /** A page of the log. @param {string} executionId
     * @param {{after?: string, limit?: number, compact?: boolean}} [query]
     * @returns {Promise<wire.EventPage>} */
    events(executionId: string, query?: {
        after?: string;
        limit?: number;
        compact?: boolean;
    }): Promise<wire.EventPage>;
    /** The whole log as NDJSON, a `LoggedEvent` on each line. @param {string} executionId
     * @returns {Promise<ReadableStream<string>>} */
    exportEvents(executionId: string): Promise<ReadableStream<string>>;
    /** Cancel an execution. Repeating this has no effect. @param {string} executionId @param {string} [reason]
     * @returns {Promise<wire.CancelResponse>} */
    cancel(executionId: string, reason?: string): Promise<wire.CancelResponse>;
    /** Answer an `input:required`. The first answer counts; a later one is refused with 409. @param {string} executionId
     * @param {string} inputId @param {unknown} value @returns {Promise<wire.InputResponse>} */
    answer(executionId: string, inputId: string, value: unknown): Promise<wire.InputResponse>;
    /** Decline to answer an `input:required`: an approval is refused, and the agent hears of any other. @param {string}
     * executionId @param {string} inputId @returns {Promise<wire.InputResponse>} */
    decline(executionId: string, inputId: string): Promise<wire.InputResponse>;
    /** Say something to the running agent. A request without an answer is repeated with the same `messageId`: the agent
     * hears it once. @param {string} executionId @param {string | wire.MessageRequest} message a text, or more
     * @returns {Promise<wire.MessageResponse>} */
    sendMessage(executionId: string, message: string | wire.MessageRequest): Promise<wire.MessageResponse>;
    /** What people have said to the agent, and whether it takes more. @param {string} executionId
     * @returns {Promise<wire.MessageList>} */
    messages(executionId: string): Promise<wire.MessageList>;
    /** Withdraw a message that the agent has not taken; otherwise it is refused with 409. Repeating this has no effect.
     * @param {string} executionId @param {string} messageId @returns {Promise<wire.MessageResponse>} */
    withdrawMessage(executionId: string, messageId: string): Promise<wire.MessageResponse>;
    /** The agents of the live workers. @returns {Promise<wire.AgentList>} */
    agents(): Promise<wire.AgentList>;
    /** A ticket that opens one stream: of this execution, or the feed. @param {string} [executionId]
     * @param {{signal?: AbortSignal}} [options] @returns {Promise<wire.TicketResponse>} */
    ticket(executionId?: string, { signal }?: {
        signal?: AbortSignal;
    }): Promise<wire.TicketResponse>;
    /** @param {Omit<StreamOptions, "client">} [options] */
    stream(options?: Omit<StreamOptions, "client">): AgentStream;
    /** The stream of an execution, and the state folded from it. @param {string} executionId
     * @param {WatchOptions} [options] */
    watch(executionId: string, options?: WatchOptions): ExecutionWatch;
    /** Send a request; if its token is refused, repeat it with a newer one. Raises `RuncastError` unless it succeeds.
     * @param {string} method @param {string} path @param {RequestOptions} [options] */
    request(method: string, path: string, options?: RequestOptions): Promise<Response>;
    /** Send one request with this token, or with the cookie if it is null. Raises `RuncastError` without an answer.
     * @param {string} url @param {RequestInit & {token: string | null}} init @returns {Promise<Response>} */
    send(url: string, { token, ...init }: RequestInit & {
        token: string | null;
    }): Promise<Response>;
    #private;
}
/**
 * `refresh`: a newer token is needed, as the last one was refused or expires soon. Return nothing to use the cookie.
 */
export type TokenFunction = (asked: {
    refresh: boolean;
}) => string | null | undefined | Promise<string | null | undefined>;
export type ClientOptions = {
    /**
     * of the edges; same origin if absent
     */
    baseUrl?: string | undefined;
    /**
     * absent: the cookie `runcast_token`
     */
    token?: string | TokenFunction | undefined;
    fetch?: typeof fetch | undefined;
    /**
     * whose executions these are: of another user, with scope `admin`, or `org:read` in one's org
     */
    as?: {
        user?: string;
        org?: string;
    } | undefined;
};
export type RequestOptions = {
    /**
     * sent as JSON
     */
    body?: unknown;
    headers?: Record<string, string> | undefined;
    signal?: AbortSignal | undefined;
};
export type Renewal = {
    than: string | null;
    token: Promise<string | null>;
    began: Stamp;
};
import type * as wire from "./events.js";
import type { StreamOptions } from "./stream.js";
import { AgentStream } from "./stream.js";
import type { WatchOptions } from "./watch.js";
import { ExecutionWatch } from "./watch.js";
import type { Stamp } from "./clock.js";
