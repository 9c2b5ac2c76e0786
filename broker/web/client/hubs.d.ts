/** All hubs of the worker. */
export class Hubs {
    /** A tab has come; what it wants is its first message. @param {MessagePort} port */
    connect(port: MessagePort): void;
    #private;
}
/** One stream, and who follows it. `onOver` is called when no further tab may enter. */
export class Hub {
    /** @param {Open} open @param {(hub: Hub) => void} onOver */
    constructor(open: Open, onOver: (hub: Hub) => void);
    /** A stream of what this hub shows, for one tab or for all. @param {string | null} cursor @param {boolean} isFromNow
     * @param {Pick<import("./stream.js").StreamOptions, "onEvent" | "onControl" | "onStatus">} listeners */
    follow(cursor: string | null, isFromNow: boolean, listeners: Pick<import("./stream.js").StreamOptions, "onEvent" | "onControl" | "onStatus">): AgentStream;
    /** @param {Tab} tab */
    enter(tab: Tab): Promise<void>;
    /** @param {Tab} tab */
    leave(tab: Tab): void;
    /** Let a tab join, or catch up first. @param {Tab} tab */
    seat(tab: Tab): void;
    /** Let a tab join if all after its cursor is known here. `isVetted`: an edge has just taken that cursor.
     * @param {Tab} tab @param {boolean} isVetted */
    join(tab: Tab, isVetted: boolean): boolean;
    #private;
}
import { AgentStream } from "./stream.js";
import { Tab } from "./tab.js";
import type { Open } from "./tab.js";
