/** @typedef {{event: any, size: number}} Kept `size`: characters of its JSON */
export class RecentEvents {
    /** @param {string | null} base @param {boolean} [isCompact] whether neighbouring deltas may be one event */
    constructor(base: string | null, isCompact?: boolean);
    /** The id of the last event, or the one before the first. */
    get last(): any;
    /** @param {any} event @param {number} size */
    push(event: any, size: number): void;
    /** The stream's cursor moved without an event. @param {string} id */
    moveTo(id: string): void;
    /** Forget everything: another history begins, or there is a gap before the next event. */
    clear(): void;
    /** Whether exactly this id is kept, so that every event after it is known. @param {string} id */
    has(id: string): boolean;
    /** Whether the ordinal of an id lies within the kept range, and not within an event. @param {string} id */
    spans(id: string): boolean;
    /** The events after an id. @param {string} id for which `has` or `spans` is true */
    after(id: string): Kept[];
    #private;
}
/**
 * `size`: characters of its JSON
 */
export type Kept = {
    event: any;
    size: number;
};
