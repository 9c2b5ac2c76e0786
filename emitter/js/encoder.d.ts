export class Encoder {
    /** @param {EncoderOptions} options */
    constructor(options: EncoderOptions);
    /** What is to be queued for an event: nothing yet, or several parts. Raises `InvalidEvent` and `PayloadTooLarge` for
     * what is not mended. @param {string} type @param {any} data @param {Speaker} [speaker] @returns {Item[]} */
    items(type: string, data: any, speaker?: Speaker): Item[];
    /** One whole event. @param {string} type @param {any} data @param {Speaker} [speaker] @returns {Item} */
    item(type: string, data: any, speaker?: Speaker): Item;
    /** Halves of characters that wait, of one message or of all. @param {string} [messageId] @returns {Item[]} */
    halves(messageId?: string): Item[];
    /** Shorter forms of an event that may be too large for an edge; null: it must not be cut. @param {Spoken} spoken
     * @param {number} limit of the edge, bytes @param {number} tries @returns {Spoken[] | null} */
    shorten(spoken: Spoken, limit: number, tries: number): Spoken[] | null;
    #private;
}
export type EncoderOptions = {
    /**
     * who speaks
     */
    agent?: string | undefined;
    /**
     * the call in which the agent works
     */
    parentId?: string | undefined;
    requestId?: string | undefined;
    /**
     * raise `InvalidEvent` and `PayloadTooLarge` for events that would be mended
     */
    strict?: boolean | undefined;
    /**
     * of an encoded event; smaller where an edge says so
     */
    maxEventBytes?: number | undefined;
};
export type Made = {
    type: string;
    data: Record<string, any>;
};
import type { Speaker } from "./event-methods.js";
import type { Item } from "./queue.js";
import type { Spoken } from "./queue.js";
