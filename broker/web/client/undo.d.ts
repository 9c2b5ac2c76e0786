/**
 * Values that can be undone to an earlier ordinal of their log, as `execution:superseded` requires. Same rules as
 * `broker/executions/undo.py`: both must keep and drop the same.
 */
/** Characters (code points) kept of one message, thought or artifact. */
export const MAX_TEXT: 262144;
/** Text that arrives in chunks, up to `MAX_TEXT` characters. */
export class Text {
    get truncated(): boolean;
    /** @param {number} seq @param {string} chunk */
    add(seq: number, chunk: string): void;
    /** @param {number} after */
    undo(after: number): void;
    toString(): string;
    #private;
}
/** Parts by id, in order of appearance; beyond `limit` the oldest are dropped. @template T */
export class Items<T> {
    /** @param {number} limit */
    constructor(limit: number);
    /** @param {string} id @returns {T | null} */
    get(id: string): T | null;
    /** @param {number} seq @param {string} id @param {T} value */
    set(seq: number, id: string, value: T): void;
    /** @param {number} after */
    undo(after: number): void;
    /** The same array until a part changes. @returns {readonly T[]} */
    values(): readonly T[];
    #private;
}
