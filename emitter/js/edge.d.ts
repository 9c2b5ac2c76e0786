/** The path of an execution. @param {string} executionId */
export function executionPath(executionId: string): string;
export class Edge {
    /** @param {EdgeOptions} options */
    constructor({ url, token, userId, org, fetch, requestTimeoutMs }: EdgeOptions);
    /** The JSON of a successful answer; null of one without a body. Raises `EdgeUnavailable` without an answer, otherwise
     * what the edge said. @param {string} method @param {string} path @param {RequestOptions} [options]
     * @returns {Promise<any>} */
    request(method: string, path: string, { body, headers, signal, timeoutMs }?: RequestOptions): Promise<any>;
    /** An event stream; null if there is nothing more to read (204). The caller ends it by the signal. @param {string} path
     * @param {Record<string, string>} headers @param {AbortSignal} signal @returns {Promise<Response | null>} */
    open(path: string, headers: Record<string, string>, signal: AbortSignal): Promise<Response | null>;
    #private;
}
/**
 * `refresh`: a newer token is needed, since the last one was refused.
 */
export type TokenFunction = (asked: {
    refresh: boolean;
}) => string | Promise<string>;
export type EdgeOptions = {
    /**
     * of the edges, `https://runcast.example.com`
     */
    url: string;
    token: string | TokenFunction;
    /**
     * whose execution it is, the `sub` of that user's tokens. Absent: the token's own user; any
     * other needs the scope `admin`
     */
    userId?: string | undefined;
    /**
     * of `userId`
     */
    org?: string | undefined;
    fetch?: typeof fetch | undefined;
    /**
     * of one request; the next try follows
     */
    requestTimeoutMs?: number | undefined;
};
export type RequestOptions = {
    body?: string | undefined;
    headers?: Record<string, string> | undefined;
    signal?: AbortSignal | undefined;
    timeoutMs?: number | undefined;
};
