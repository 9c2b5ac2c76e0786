export const MAX_THOUGHTS: 200;
export const MAX_TOOLS: 500;
export const MAX_MESSAGES: 200;
export const MAX_OTHERS: 200;
/** The states after which no event follows. @type {ReadonlySet<wire.State>} */
export const TERMINAL_STATES: ReadonlySet<wire.State>;
/** `apply` takes the events in order; `state()` is the state after them. */
export class Fold {
    /** Handlers by event type. @type {Readonly<Record<string, (fold: Fold, seq: number, data: any) => void>>} */
    static "__#private@#handlers": Readonly<Record<string, (fold: Fold, seq: number, data: any) => void>>;
    /** @param {string} [executionId] */
    constructor(executionId?: string);
    /**
     * Apply the next event. A repeated one changes nothing; one of an unknown type only moves the cursor. Returns whether
     * the state may have changed.
     * @param {wire.StreamEvent} event
     */
    apply(event: wire.StreamEvent): boolean;
    /** Whether no event has been applied. */
    get isEmpty(): boolean;
    /** @returns {ExecutionState} */
    state(): wire.ExecutionState;
    #private;
}
import type * as wire from "./events.js";
