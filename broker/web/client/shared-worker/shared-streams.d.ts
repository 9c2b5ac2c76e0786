/** All shared streams of the worker, by key: user, edge, whose, path, filter, and whether deltas are joined. */
export class SharedStreams {
    /** A tab has connected; its first message is `open`. @param {MessagePort} port */
    connect(port: MessagePort): void;
    #private;
}
/** One stream and its tabs. `onOver` is called when it takes no further tab. */
export class SharedStream {
    /** @param {Open} open of the first tab @param {(stream: SharedStream) => void} onOver */
    constructor(open: Open, onOver: (stream: SharedStream) => void);
    /** A stream with this target, for one tab or for all. @param {string | null} cursor @param {boolean} isFromNow
     * @param {Pick<StreamOptions, "onEvent" | "onControl" | "onStatus">} listeners */
    newStream(cursor: string | null, isFromNow: boolean, listeners: Pick<StreamOptions, "onEvent" | "onControl" | "onStatus">): AgentStream;
    /** @param {Tab} tab */
    addTab(tab: Tab): Promise<void>;
    /** @param {Tab} tab */
    removeTab(tab: Tab): void;
    /** @param {Tab} tab */
    joinOrCatchUp(tab: Tab): void;
    /** Let a tab join if every event after its cursor is known here; whether it joined.
     * @param {Tab} tab @param {boolean} isVerified whether an edge has just accepted the tab's cursor */
    join(tab: Tab, isVerified: boolean): boolean;
    #private;
}
import type { StreamOptions } from "../stream.js";
import { AgentStream } from "../stream.js";
import { Tab } from "./tab.js";
import type { Open } from "./messages.js";
