/** The error of an unsuccessful answer: a problem (RFC 9457), or any text of a proxy.
 * @param {Response} response @param {string} text its body */
export function errorOf(response: Response, text: string): RuncastError;
/** Whether the same request may succeed later. @param {unknown} error @returns {error is RuncastError} */
export function isTemporary(error: unknown): error is RuncastError;
/** RFC 9110, section 10.2.3: seconds, or a date. @param {string | null} text @param {number} now */
export function retryAfterMs(text: string | null, now: number): number | null;
/** `Type: message` of anything that was thrown, for people to read. @param {unknown} error */
export function describe(error: unknown): string;
/** Base of every error that this package raises on purpose. */
export class RuncastError extends Error {
    /** @param {string} message @param {RefusalFields} [fields] */
    constructor(message: string, fields?: RefusalFields);
    status: number;
    type: string;
    detail: string;
    requestId: string | null;
    retryAfterMs: number | null;
    body: Record<string, any>;
}
/** 401: the token is not accepted. */
export class Unauthorized extends RuncastError {
}
/** 403: the token lacks a scope, or the event is not this caller's to publish. */
export class Forbidden extends RuncastError {
}
/** 404: there is no such execution for this user. Its first event must be `execution:started`. */
export class UnknownExecution extends RuncastError {
}
/** 409: the log is closed. `state` is completed, failed or cancelled. */
export class ExecutionEnded extends RuncastError {
    get state(): string;
}
/** 409: a newer attempt owns the execution; this one must stop. */
export class Superseded extends RuncastError {
    get attempt(): number;
}
/** 409: too many inputs of the execution are open; this one was not opened. */
export class TooManyInputs extends RuncastError {
}
/** 409 for any other reason. */
export class Conflict extends RuncastError {
}
/** 413: what cannot be cut (a question, for example) is larger than the limit. */
export class PayloadTooLarge extends RuncastError {
    get limit(): number;
}
/** An event or argument is not valid; `detail` has the path and the reason. */
export class InvalidEvent extends RuncastError {
}
/** A hook of the edge failed on an event, which was not stored. */
export class HookFailed extends RuncastError {
}
/** Nobody answered the question in time. */
export class InputExpired extends RuncastError {
}
/** The person who was asked does not want to answer. */
export class Declined extends RuncastError {
}
/** No edge answered within the bound. What is queued is still sent. */
export class EdgeUnavailable extends RuncastError {
}
/** The queue was full for too long, or even the line of callers that wait for room was full. The event was dropped. */
export class QueueFull extends RuncastError {
}
/** The emitter was closed before. */
export class EmitterClosed extends RuncastError {
}
/** Closing could not get `count` queued events into the log. */
export class EventsLost extends RuncastError {
    /** @param {number} count @param {unknown} [cause] */
    constructor(count: number, cause?: unknown);
    count: number;
}
/** The reason of `emitter.signal` after a cancel. Its name is that of aborts, as `fetch` and model SDKs expect it. */
export class Cancelled extends RuncastError {
    /** @param {string | null} [reason] as the person gave it @param {string | null} [by] */
    constructor(reason?: string | null, by?: string | null);
    reason: string | null;
    by: string | null;
}
/**
 * what an edge said of a request
 */
export type RefusalFields = {
    /**
     * of HTTP; 0 without an answer
     */
    status?: number | undefined;
    /**
     * `urn:runcast:problem:…`
     */
    type?: string | undefined;
    detail?: string | undefined;
    /**
     * of the request in the edge's log
     */
    requestId?: string | null | undefined;
    retryAfterMs?: number | null | undefined;
    /**
     * the whole problem
     */
    body?: Record<string, any> | undefined;
    cause?: unknown;
};
