/**
 * @typedef {object} FeedExtras What the list of the edge does not have. It comes from the feed; for the time before the
 *   feed was open, from the execution's state.
 * @property {number | null} progress percent
 * @property {string | null} activity what it does now, in the agent's words
 * @property {readonly wire.InputRequired[]} openInputs
 *
 * @typedef {wire.ExecutionSummary & FeedExtras} FeedItem
 *
 * @typedef {object} Answers The inputs of one execution that were answered, in any attempt.
 * @property {Set<string>} inputIds
 * @property {boolean} isComplete whether the list has seen the execution from its beginning
 */
export const LIMIT: 50;
/** Executions by id. */
export class ExecutionList {
    /** @param {number} limit only the newest are kept */
    constructor(limit?: number);
    /**
     * Replace the items by the edge's list. Apply the events that arrived since it was requested again.
     *
     * @param {readonly wire.ExecutionSummary[]} summaries
     */
    replace(summaries: readonly wire.ExecutionSummary[]): void;
    /** The ids of active executions whose extras are not known. Their states have them. */
    needingState(): string[];
    /**
     * Take the extras from an execution's state. Apply the events that arrived since it was requested again.
     *
     * @param {string} executionId
     * @param {wire.ExecutionState | null} state null: it could not be read
     */
    applyState(executionId: string, state: wire.ExecutionState | null): void;
    /** Events of the feed were lost: the states must be read again. */
    eventsLost(): void;
    /**
     * Apply an event of the feed. Returns whether the list must be read again to be complete.
     *
     * @param {wire.StreamEvent} event
     * @returns {boolean}
     */
    apply(event: wire.StreamEvent): boolean;
    /** The items, newest first. */
    items(): FeedItem[];
    #private;
}
/**
 * What the list of the edge does not have. It comes from the feed; for the time before the
 *   feed was open, from the execution's state.
 */
export type FeedExtras = {
    /**
     * percent
     */
    progress: number | null;
    /**
     * what it does now, in the agent's words
     */
    activity: string | null;
    openInputs: readonly wire.InputRequired[];
};
export type FeedItem = wire.ExecutionSummary & FeedExtras;
/**
 * The inputs of one execution that were answered, in any attempt.
 */
export type Answers = {
    inputIds: Set<string>;
    /**
     * whether the list has seen the execution from its beginning
     */
    isComplete: boolean;
};
import type * as wire from "./events.js";
