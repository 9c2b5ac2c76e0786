/**
 * Whether a watched execution is under way, and why it failed. Pure.
 *
 * @import { ExecutionState } from "./events.js"
 * @import { Status } from "./stream.js"
 */
import { TERMINAL_STATES } from "./fold.js";

/** The error of each failed state, so that it stays the same object. @type {WeakMap<object, ExecutionFailed>} */
const failures = new WeakMap();

/** The agent failed, as opposed to a request or a stream. */
export class ExecutionFailed extends Error {
  /** @param {string} executionId @param {string} message @param {string | null} [code] such as `worker_lost` */
  constructor(executionId, message, code = null) {
    super(message);
    this.name = "ExecutionFailed";
    this.executionId = executionId;
    this.code = code;
  }
}

/** Whether the execution is under way, as far as is known. One that was just started here is, before its first event.
 * @param {Status} status @param {ExecutionState | null} state @param {boolean} isStarted */
export function isUnderWay({ phase }, state, isStarted) {
  if (phase === "failed") return false;
  return state === null ? isStarted && phase !== "ended" : !TERMINAL_STATES.has(state.status);
}

/** The error of a stream or an agent that failed. An error after which the stream reconnects is not a failure.
 * @param {Status} status @param {ExecutionState | null} state @returns {Error | null} */
export function failureOf({ phase, error }, state) {
  if (phase === "failed") return error;
  if (!state?.error) return null;
  const known = failures.get(state.error);
  if (known) return known;
  const failed = new ExecutionFailed(state.executionId, state.error.error, state.error.code);
  failures.set(state.error, failed);
  return failed;
}
