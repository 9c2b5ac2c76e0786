/** @typedef {Extract<FromTab, {kind: "open"}>} Open */
/** All hubs of the worker. */
export class Hubs {
    /** A tab has come; what it wants is its first message. @param {MessagePort} port */
    connect(port: MessagePort): void;
    #private;
}
export type Open = Extract<FromTab, {
    kind: "open";
}>;
import type { FromTab } from "./shared.js";
