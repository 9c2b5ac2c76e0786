/** The time before the next attempt: exponential backoff with full jitter. Pure. */

export const CAP_MS = 30_000;
export const RETRY_MS = 1_000;
const LEAST_MS = 20;
/** No edge sends more than two minutes. */
const MOST_MS = 120_000;

/** A `retry:` time from an edge or a proxy, within bounds.
 * @param {number} milliseconds */
export function boundedRetry(milliseconds) {
  return Math.max(LEAST_MS, Math.min(milliseconds, MOST_MS));
}

/**
 * @param {number} failures in a row before this wait, from 0
 * @param {number} baseMs of the first wait; the edge's `retry:`
 * @param {() => number} [random] in [0, 1)
 */
export function backoffMs(failures, baseMs, random = Math.random) {
  return random() * Math.min(CAP_MS, baseMs * 2 ** Math.min(failures, 20));
}
