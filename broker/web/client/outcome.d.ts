/** Whether the execution is under way, as far as is known. One that was just started here is, before its first event.
 * @param {Status} status @param {ExecutionState | null} state @param {boolean} isStarted */
export function isUnderWay({ phase }: Status, state: ExecutionState | null, isStarted: boolean): boolean;
/** The error of a stream or an agent that failed. An error after which the stream reconnects is not a failure.
 * @param {Status} status @param {ExecutionState | null} state @returns {Error | null} */
export function failureOf({ phase, error }: Status, state: ExecutionState | null): Error | null;
/** The agent failed, as opposed to a request or a stream. */
export class ExecutionFailed extends Error {
    /** @param {string} executionId @param {string} message @param {string | null} [code] such as `worker_lost` */
    constructor(executionId: string, message: string, code?: string | null);
    executionId: string;
    code: string | null;
}
import type { Status } from "./stream.js";
import type { ExecutionState } from "./events.js";
