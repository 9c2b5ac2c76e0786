/** @typedef {{id: string | undefined, event: string, data: string}} Frame without data: its id only moves the cursor */
export class FrameParser {
    /** From the edge's `retry:`. @type {number | null} */
    retryMs: number | null;
    /** The frames that these bytes complete. @param {Uint8Array} bytes @returns {Frame[]} */
    feed(bytes: Uint8Array): Frame[];
    #private;
}
/**
 * without data: its id only moves the cursor
 */
export type Frame = {
    id: string | undefined;
    event: string;
    data: string;
};
