/**
 * @typedef {(asked: {refresh: boolean}) => string | null | undefined | Promise<string | null | undefined>} TokenFunction
 * `refresh` asks for a newer token than the last one: it was refused, or expires soon. Nothing, where a cookie is used.
 */
/**
 * @typedef {object} ClientOptions
 * @property {string} [baseUrl] of the edges; same origin if absent
 * @property {string | TokenFunction} [token] absent: the cookie `runcast_token`
 * @property {typeof fetch} [fetch]
 */
/**
 * @typedef {object} RequestOptions
 * @property {unknown} [body] sent as JSON
 * @property {Record<string, string>} [headers]
 * @property {AbortSignal} [signal]
 */
/** @typedef {{than: string | null, token: Promise<string | null>, began: Stamp}} Renewal */
/** A user's way to the edges. */
export class RuncastClient {
    /** @param {ClientOptions} [options] */
    constructor({ baseUrl, token, fetch }?: ClientOptions);
    baseUrl: string;
    /** Whether requests go a way of their own, on which no worker can send them. */
    get hasFetch(): boolean;
    /** Whether there is somebody to ask for a newer token. */
    get canRefresh(): boolean;
    /** The token to send now; null: the cookie. @param {{refresh?: boolean}} [asked] @returns {Promise<string | null>} */
    token({ refresh }?: {
        refresh?: boolean;
    }): Promise<string | null>;
    /** A newer token than this one, which was refused or expires soon. The application is asked once, however many streams
     * and requests had it: a token that renews another may be good for one time only.
     * @param {string | null} than @returns {Promise<string | null>} */
    newerToken(than: string | null): Promise<string | null>;
    /** Absolute where that can be known, so that a worker can use it. @param {string} path
     * @param {Record<string, string | number | null | undefined>} [query] what is null is left out */
    url(path: string, query?: Record<string, string | number | null | undefined>): string;
    /**
     * Start an execution. A connection that breaks on the way is tried again, and starts nothing twice.
     * @param {wire.ExecuteRequest} request
     * @param {{idempotencyKey?: string, signal?: AbortSignal}} [options]
     * @returns {Promise<wire.ExecuteResponse>}
     */
    execute(request: wire.ExecuteRequest, { idempotencyKey, signal }?: {
        idempotencyKey?: string;
        signal?: AbortSignal;
    }): Promise<wire.ExecuteResponse>;
    /** The caller's executions, newest first. @param {{state?: wire.State, limit?: number, cursor?: string}} [query]
     * @param {{signal?: AbortSignal}} [options] @returns {Promise<wire.ExecutionList>} */
    executions(query?: {
        state?: wire.State;
        limit?: number;
        cursor?: string;
    }, { signal }?: {
        signal?: AbortSignal;
    }): Promise<wire.ExecutionList>;
    /** The folded state. @param {string} executionId @param {{signal?: AbortSignal}} [options]
     * @returns {Promise<wire.ExecutionState>} */
    execution(executionId: string, { signal }?: {
        signal?: AbortSignal;
    }): Promise<wire.ExecutionState>;
    /** A page of the log. @param {string} executionId @param {{after?: string, limit?: number}} [query]
     * @returns {Promise<wire.EventPage>} */
    events(executionId: string, query?: {
        after?: string;
        limit?: number;
    }): Promise<wire.EventPage>;
    /** The whole log as NDJSON, a `LoggedEvent` on each line. @param {string} executionId
     * @returns {Promise<ReadableStream<string>>} */
    exportEvents(executionId: string): Promise<ReadableStream<string>>;
    /** Ask it to stop; asking again changes nothing. @param {string} executionId @param {string} [reason]
     * @returns {Promise<wire.CancelResponse>} */
    cancel(executionId: string, reason?: string): Promise<wire.CancelResponse>;
    /** Answer an `input:required`; the first answer wins, and a later one is refused with 409. @param {string} executionId
     * @param {string} inputId @param {unknown} value @returns {Promise<wire.InputResponse>} */
    answer(executionId: string, inputId: string, value: unknown): Promise<wire.InputResponse>;
    /** The agents that live workers announce. @returns {Promise<wire.AgentList>} */
    agents(): Promise<wire.AgentList>;
    /** A ticket that opens one stream: of this execution, or the feed. @param {string} [executionId]
     * @param {{signal?: AbortSignal}} [options] @returns {Promise<wire.TicketResponse>} */
    ticket(executionId?: string, { signal }?: {
        signal?: AbortSignal;
    }): Promise<wire.TicketResponse>;
    /** @param {Omit<StreamOptions, "client">} [options] */
    stream(options?: Omit<StreamOptions, "client">): AgentStream;
    /** An execution's stream and the state it comes to. @param {string} executionId @param {WatchOptions} [options] */
    watch(executionId: string, options?: WatchOptions): ExecutionWatch;
    /** Send a request, once more with a newer token if the first is refused. Raises `RuncastError` unless it succeeds.
     * @param {string} method @param {string} path @param {RequestOptions} [options] */
    request(method: string, path: string, options?: RequestOptions): Promise<Response>;
    /** One request as it is, with this token or, without, the cookie. Raises `RuncastError` when there is no answer.
     * @param {string} url @param {RequestInit & {token: string | null}} init @returns {Promise<Response>} */
    send(url: string, { token, ...init }: RequestInit & {
        token: string | null;
    }): Promise<Response>;
    #private;
}
/**
 * `refresh` asks for a newer token than the last one: it was refused, or expires soon. Nothing, where a cookie is used.
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
import type { Stamp } from "./vigil.js";
