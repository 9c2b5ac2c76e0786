/**
 * @typedef {object} FeedExtras What the feed tells beyond the list; of what happened before it was open, the state does.
 * @property {number | null} progress percent
 * @property {string | null} activity what it does now, in its own words
 * @property {readonly wire.InputRequired[]} openInputs
 *
 * @typedef {wire.ExecutionSummary & FeedExtras} FeedItem
 */
export const LIMIT: 50;
/** Executions by id, moved on by the feed's events. Pure. */
export class ExecutionList {
    /** @param {number} limit the oldest beyond it are left out */
    constructor(limit?: number);
    /**
     * What the edge lists counts. Events that came in since it was asked have to be applied again.
     *
     * @param {readonly wire.ExecutionSummary[]} summaries
     */
    replace(summaries: readonly wire.ExecutionSummary[]): void;
    /** Those under way of which only the state tells how far they are. */
    unknown(): string[];
    /**
     * What the state of one tells; null: nothing. Events that came in since it was asked have to be applied again.
     *
     * @param {string} executionId
     * @param {wire.ExecutionState | null} state
     */
    learn(executionId: string, state: wire.ExecutionState | null): void;
    /** Some events were lost: what they said is in the states. */
    forget(): void;
    /**
     * Take an event of the feed. Whether the list has to be read again to know all about its execution.
     *
     * @param {wire.StreamEvent} event
     * @returns {boolean}
     */
    apply(event: wire.StreamEvent): boolean;
    items(): FeedItem[];
    #private;
}
/**
 * What the feed tells beyond the list; of what happened before it was open, the state does.
 */
export type FeedExtras = {
    /**
     * percent
     */
    progress: number | null;
    /**
     * what it does now, in its own words
     */
    activity: string | null;
    openInputs: readonly wire.InputRequired[];
};
export type FeedItem = wire.ExecutionSummary & FeedExtras;
import type * as wire from "./events.js";
