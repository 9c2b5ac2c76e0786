/** An error of this client's own making. @param {string} slug @param {string} detail @param {unknown} [cause] */
export function clientError(slug: string, detail: string, cause?: unknown): RuncastError;
/** What an answer that is no success says (RFC 9457, or whatever a proxy made of it). @param {Response} response */
export function errorOf(response: Response): Promise<RuncastError>;
/** The error that a problem (RFC 9457) stands for. @param {unknown} body @param {number} status @param {string} reason
 * @param {string} requestId @param {number | null} wait */
export function problemError(body: unknown, status: number, reason: string, requestId: string, wait: number | null): RuncastError;
/** RFC 9110, section 10.2.3: seconds, or a date. @param {string | null} text @param {number} now */
export function retryAfterMs(text: string | null, now: number): number | null;
/** Why a request to an edge failed, or a stream cannot go on. */
export class RuncastError extends Error {
    /**
     * @param {string} message
     * @param {RuncastErrorFields} [fields]
     */
    constructor(message: string, fields?: RuncastErrorFields);
    /** HTTP status; 0 when there was no answer. */
    status: number;
    /** Kind of the problem, as `urn:runcast:problem:…` of the edge or of this client. */
    type: string;
    title: string;
    detail: string;
    /** Under which the edge's log has more, or null. */
    requestId: string | null;
    /** How long the edge asks to wait, or null. */
    retryAfterMs: number | null;
    /** The answer's members beyond the standard ones are here too. @type {unknown} */
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
