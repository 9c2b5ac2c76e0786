/** A `retry:` time from an edge or a proxy, within bounds.
 * @param {number} milliseconds */
export function boundedRetry(milliseconds: number): number;
/**
 * @param {number} failures in a row before this wait, from 0
 * @param {number} baseMs of the first wait; the edge's `retry:`
 * @param {() => number} [random] in [0, 1)
 */
export function backoffMs(failures: number, baseMs: number, random?: () => number): number;
/** The time before the next attempt: exponential backoff with full jitter. Pure. */
export const CAP_MS: 30000;
export const RETRY_MS: 1000;
