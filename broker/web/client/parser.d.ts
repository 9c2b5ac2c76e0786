/** Characters of one frame. Events are far smaller; a response that is not from an edge must not fill the memory. */
export const MAX_FRAME: number;
/** Parses one response, given by `feed`. An incomplete frame at its end is dropped, as the format requires. */
export class EventStreamParser {
    /** @param {ParserCallbacks} callbacks */
    constructor(callbacks: ParserCallbacks);
    /** The last event id of the format: from the last frame with an `id:`. */
    lastEventId: string;
    /** Parse the next bytes, split at any place. Throws if a frame is longer than `MAX_FRAME`.
     * @param {Uint8Array} bytes */
    feed(bytes: Uint8Array): void;
    #private;
}
export type Frame = {
    /**
     * the frame's own `id:`, undefined if it has none
     */
    id: string | undefined;
    /**
     * `message` if the frame names none
     */
    event: string;
    data: string;
};
export type ParserCallbacks = {
    /**
     * a frame with data
     */
    onEvent?: ((frame: Frame) => void) | undefined;
    /**
     * a frame with an `id:` but no data, which only moves the last event id
     */
    onId?: ((id: string) => void) | undefined;
    onRetry?: ((milliseconds: number) => void) | undefined;
    onComment?: ((comment: string) => void) | undefined;
};
