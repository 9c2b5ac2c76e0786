/** Whether it goes on, as far as its viewer knows: of one that was just started that is so before anything came.
 * @param {Status} status @param {ExecutionState | null} state @param {boolean} isStarted */
export function isUnderWay({ phase }: Status, state: ExecutionState | null, isStarted: boolean): boolean;
/** Why there is nothing to be seen, or the agent failed. What a stream gets over by itself is no failure.
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
