/** What people say to a running agent, taken from an edge. */
import { backoffMs, pause } from "./backoff.js";
import { executionPath } from "./edge.js";
import { ExecutionEnded, isTemporary } from "./errors.js";
import { randomHex } from "./ids.js";

/**
 * @import { Edge } from "./edge.js"
 *
 * @typedef {object} UserMessage what a person said
 * @property {string} messageId
 * @property {string} by
 * @property {"queue" | "interrupt"} mode
 * @property {number} sentAt milliseconds since the epoch
 * @property {string} [text]
 * @property {any} [data]
 */

const WAIT_SECONDS = 25;
const LATE_MS = 10_000;
const RETRY_FIRST_MS = 200;
const RETRY_MOST_MS = 5_000;

/** The messages that wait, or the first that comes; null if none can come any more. An answer that is lost is asked for
 * again by the same id, and has the same messages.
 * @param {Edge} edge @param {string} executionId @param {Record<string, string>} attempt headers of a worker's attempt
 * @param {AbortSignal} signal @returns {Promise<UserMessage[] | null>} */
export async function takeMessages(edge, executionId, attempt, signal) {
  const path = `${executionPath(executionId)}/messages/take`;
  const headers = { "Content-Type": "application/json", ...attempt };
  const body = JSON.stringify({ takeId: randomHex(8), waitSeconds: WAIT_SECONDS });
  for (let failures = 0; !signal.aborted; failures += 1) {
    try {
      const timeoutMs = WAIT_SECONDS * 1000 + LATE_MS;
      return (await edge.request("POST", path, { body, headers, signal, timeoutMs })).messages;
    } catch (error) {
      if (signal.aborted || error instanceof ExecutionEnded) return null;
      if (!isTemporary(error)) throw error;
      await pause((error.retryAfterMs ?? 0) + backoffMs(failures, RETRY_FIRST_MS, RETRY_MOST_MS), signal);
    }
  }
  return null;
}
