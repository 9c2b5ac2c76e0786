/** Characters of one frame. An edge's events are far smaller; what is not an edge must not fill the memory. */
export const MAX_FRAME: number;
/** Give it the bytes of one response with `feed`; a frame that the end of the response cuts is dropped, as it must. */
export class EventStreamParser {
    /** @param {ParserCallbacks} callbacks */
    constructor(callbacks: ParserCallbacks);
    /** The last event id, as the format has it: of the last frame that carried one. */
    lastEventId: string;
    /** Take the next bytes, cut anywhere. Throws for a frame over `MAX_FRAME`. @param {Uint8Array} bytes */
    feed(bytes: Uint8Array): void;
    #private;
}
export type Frame = {
    /**
     * the frame's own `id:`, undefined when it had none
     */
    id: string | undefined;
    /**
     * `message` when the frame names none
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
