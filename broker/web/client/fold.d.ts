export const MAX_THOUGHTS: 200;
export const MAX_TOOLS: 500;
export const MAX_MESSAGES: 200;
export const MAX_OTHERS: 200;
/** Terminal event type → the state it leaves. @type {Readonly<Record<string, wire.State>>} */
export const TERMINAL_STATES: Readonly<Record<string, wire.State>>;
/** Takes an execution's events in order with `apply`; `state()` is what they come to, and may be asked at any time. */
export class Fold {
    /** What each type of event does. @type {Readonly<Record<string, (fold: Fold, seq: number, data: any) => void>>} */
    static "__#private@#handlers": Readonly<Record<string, (fold: Fold, seq: number, data: any) => void>>;
    /** @param {string} [executionId] */
    constructor(executionId?: string);
    /**
     * Take the next event. One that was taken already changes nothing; one of a type that this version does not know
     * only moves the cursor. Returns whether the state may have changed.
     * @param {wire.StreamEvent} event
     */
    apply(event: wire.StreamEvent): boolean;
    /** Whether nothing is known yet. */
    get isEmpty(): boolean;
    /** @returns {ExecutionState} */
    state(): wire.ExecutionState;
    #private;
}
import type * as wire from "./events.js";
