/** @typedef {Extract<FromTab, {kind: "open"}>} Open */
/** Made when a tab opens a stream; `onLeft` is called when it has left. */
export class Tab {
    /** @param {MessagePort} port @param {Open} open @param {Hub} hub @param {() => void} onLeft */
    constructor(port: MessagePort, open: Open, hub: Hub, onLeft: () => void);
    isJoined: boolean;
    token: string | null;
    isFromNow: boolean;
    /** After which event it is. */
    cursor: string | null;
    /** Aborted when it has left. */
    get gone(): AbortSignal;
    get isGone(): boolean;
    get isCatchingUp(): boolean;
    /** Whether the stream by which it catches up has shown all that was. */
    get isLive(): boolean;
    ping(): void;
    refuse(): void;
    leave(): void;
    /** @param {StreamControl | null} open @param {{event: any, size: number}[]} missed @param {Status} status
     * @param {boolean} isLive */
    join(open: StreamControl | null, missed: {
        event: any;
        size: number;
    }[], status: Status, isLive: boolean): void;
    /** @param {any} event @param {number} size */
    event(event: any, size: number): void;
    /** @param {string} id */
    moveTo(id: string): void;
    /** @param {StreamControl} control */
    control(control: StreamControl): void;
    /** @param {Status} status */
    status({ phase, reconnects, retryAt, connectedAt, error, lastEventId }: Status): void;
    catchUp(): void;
    /** A newer token than this one; undefined if the tab does not say. @param {string | null} than
     * @returns {Promise<string | null | undefined>} */
    askToken(than: string | null): Promise<string | null | undefined>;
    #private;
}
export type Open = Extract<FromTab, {
    kind: "open";
}>;
import type { StreamControl } from "./events.js";
import type { Status } from "./stream.js";
import type { Hub } from "./hubs.js";
import type { FromTab } from "./shared.js";
