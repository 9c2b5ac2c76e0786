/** @typedef {{event: any, size: number}} Kept */
export class Recent {
    /** @param {string | null} base */
    constructor(base: string | null);
    /** The id of the last event, or before the first. */
    get last(): any;
    /** @param {any} event @param {number} size */
    push(event: any, size: number): void;
    /** Where the stream is, when it moved without an event. @param {string} id */
    place(id: string): void;
    /** What was kept is of another history, or does not join on to what comes. */
    clear(): void;
    /** Whether this very id is among them, so that all after it are known. @param {string} id */
    has(id: string): boolean;
    /** Whether the ordinal of an id lies among them. @param {string} id */
    spans(id: string): boolean;
    /** @param {string} id one that is had or spanned */
    after(id: string): Kept[];
    #private;
}
export type Kept = {
    event: any;
    size: number;
};
