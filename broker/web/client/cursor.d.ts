/** The ordinal of an id; NaN for what is no id of a log. @param {string} id */
export function ordinal(id: string): number;
export const START: "0-0";
/** Takes the ids of a stream as they come and says what to do with each. */
export class Sequence {
    /**
     * @param {object} options
     * @param {string | null} options.cursor the id after which the stream goes on; null: from its beginning
     * @param {boolean} options.isFiltered whether events are left out on purpose, so that gaps mean nothing
     * @param {boolean} options.isFromNow whether a stream without a cursor begins wherever its log ends
     */
    constructor({ cursor, isFiltered, isFromNow }: {
        cursor: string | null;
        isFiltered: boolean;
        isFromNow: boolean;
    });
    isFromNow: boolean;
    /** After which id to resume; null before the first. @type {string | null} */
    cursor: string | null;
    /** An event came. `known`: it was delivered before; `gap`: something before it is missing. @param {string} id
     * @returns {"next" | "known" | "gap"} */
    take(id: string): "next" | "known" | "gap";
    /** The edge moved the cursor without an event. @param {string} id */
    place(id: string): void;
    /** The edge said that some history cannot be had. @param {string} reason */
    reset(reason: string): void;
    #private;
}
