/** The ordinal of an id; NaN if it is not the id of an event. @param {string} id */
export function ordinal(id: string): number;
export const START: "0-0";
/** Types of which neighbouring events may be one event, with the id of the last. */
export const DELTAS: Set<string>;
/** Takes the ids of a stream in the order of arrival, and decides about each event. */
export class Sequence {
    /**
     * @param {object} options
     * @param {string | null} options.cursor the id after which the stream resumes; null: it starts at its beginning
     * @param {boolean} options.isFiltered whether the stream leaves events out, so that gaps are expected
     * @param {boolean} [options.isCompact] whether neighbouring deltas may arrive as one
     * @param {boolean} options.isFromNow whether a stream without a cursor starts at the end of its log
     */
    constructor({ cursor, isFiltered, isCompact, isFromNow }: {
        cursor: string | null;
        isFiltered: boolean;
        isCompact?: boolean | undefined;
        isFromNow: boolean;
    });
    isFromNow: boolean;
    /** The id after which to resume; null before the first event. @type {string | null} */
    cursor: string | null;
    /** An event arrived. `known`: it was delivered before; `gap`: an event before it is missing. @param {string} id
     * @param {string} type @param {boolean} [isLive] whether it arrived after the replay: no deltas are joined then
     * @returns {"next" | "known" | "gap"} */
    take(id: string, type: string, isLive?: boolean): "next" | "known" | "gap";
    /** The edge moved the cursor without an event. @param {string} id */
    moveTo(id: string): void;
    /** Part of the history is not available (`stream:reset`). @param {string} reason */
    reset(reason: string): void;
    #private;
}
