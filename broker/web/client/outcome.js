/**
 * What became of an execution that is watched. Pure.
 *
 * @import { ExecutionState } from "./events.js"
 * @import { Status } from "./stream.js"
 */
import { TERMINAL_STATES } from "./fold.js";

const OVER = new Set(Object.values(TERMINAL_STATES));
/** One error for one failure, so that it stays the same object. @type {WeakMap<object, ExecutionFailed>} */
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

/** Whether it goes on, as far as its viewer knows: of one that was just started that is so before anything came.
 * @param {Status} status @param {ExecutionState | null} state @param {boolean} isStarted */
export function isUnderWay({ phase }, state, isStarted) {
  if (phase === "failed") return false;
  return state === null ? isStarted && phase !== "ended" : !OVER.has(state.status);
}

/** Why there is nothing to be seen, or the agent failed. What a stream gets over by itself is no failure.
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
