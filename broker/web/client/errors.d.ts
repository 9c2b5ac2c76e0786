/** An error that the client itself detected. @param {string} slug @param {string} detail @param {unknown} [cause] */
export function clientError(slug: string, detail: string, cause?: unknown): RuncastError;
/** The error of an unsuccessful answer: a problem (RFC 9457), or any text of a proxy. @param {Response} response */
export function errorOf(response: Response): Promise<RuncastError>;
/** The error of a problem (RFC 9457). @param {unknown} body @param {number} status @param {string} reason
 * @param {string} requestId @param {number | null} wait */
export function problemError(body: unknown, status: number, reason: string, requestId: string, wait: number | null): RuncastError;
/** RFC 9110, section 10.2.3: seconds, or a date. @param {string | null} text @param {number} now */
export function retryAfterMs(text: string | null, now: number): number | null;
/** Why a request to an edge or a stream failed. */
export class RuncastError extends Error {
    /**
     * @param {string} message
     * @param {RuncastErrorFields} [fields]
     */
    constructor(message: string, fields?: RuncastErrorFields);
    /** HTTP status; 0 without an answer. */
    status: number;
    /** Type of the problem, `urn:runcast:problem:…`, from the edge or this client. */
    type: string;
    title: string;
    detail: string;
    /** The id of the request in the edge's log, or null. */
    requestId: string | null;
    /** The edge's `Retry-After`, or null. */
    retryAfterMs: number | null;
    /** The whole body of the answer, with members beyond the standard ones. @type {unknown} */
    body: unknown;
}
export type RuncastErrorFields = {
    status?: number | undefined;
    type?: string | undefined;
    title?: string | undefined;
    detail?: string | undefined;
    requestId?: string | null | undefined;
    retryAfterMs?: number | null | undefined;
    body?: unknown;
    cause?: unknown;
};
