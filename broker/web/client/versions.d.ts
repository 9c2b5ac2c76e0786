/**
 * Values that can go back to an earlier ordinal of their log: what `execution:superseded` asks of the fold. The twin of
 * `broker/executions/undo.py`; what one keeps or forgets, the other must too.
 */
/** Characters (code points) kept of one message, thought or artifact. */
export const MAX_TEXT: 262144;
/** Text that arrives in chunks, up to `MAX_TEXT` characters. */
export class Text {
    get truncated(): boolean;
    /** @param {number} seq @param {string} chunk */
    add(seq: number, chunk: string): void;
    /** @param {number} after */
    void(after: number): void;
    toString(): string;
    #private;
}
/** Parts by id, in the order they appeared; beyond `limit` the oldest go. @template T */
export class Items<T> {
    /** @param {number} limit */
    constructor(limit: number);
    /** @param {string} id @returns {T | null} */
    get(id: string): T | null;
    /** @param {number} seq @param {string} id @param {T} value */
    set(seq: number, id: string, value: T): void;
    /** @param {number} after */
    void(after: number): void;
    /** The same array until something changes. @returns {readonly T[]} */
    values(): readonly T[];
    #private;
}
