/** How long to wait before the next try: exponential, with full jitter. Pure. */

export const CAP_MS = 30_000;
export const RETRY_MS = 1_000;
const LEAST_MS = 20;
/** An edge asks for two minutes at most. */
const MOST_MS = 120_000;

/** A time that an edge, or something in front of one, asks to wait between connections: neither never nor for ever.
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
