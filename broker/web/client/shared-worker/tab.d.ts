/** Created when a tab opens a stream; `onGone` is called when it has left. */
export class Tab {
    /** @param {MessagePort} port @param {Open} open @param {SharedStream} stream @param {() => void} onGone */
    constructor(port: MessagePort, open: Open, stream: SharedStream, onGone: () => void);
    isJoined: boolean;
    token: string | null;
    isFromNow: boolean;
    /** The id of the last event that was sent to the tab. */
    cursor: string | null;
    /** Aborted when the tab has left. */
    get gone(): AbortSignal;
    get isGone(): boolean;
    get isCatchingUp(): boolean;
    /** Whether the stream that catches up is live. */
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
    /** A newer token than this one; undefined if the tab does not answer or has none. @param {string | null} than
     * @returns {Promise<string | null | undefined>} */
    requestToken(than: string | null): Promise<string | null | undefined>;
    #private;
}
import type { StreamControl } from "../events.js";
import type { Status } from "../stream.js";
import type { Open } from "./messages.js";
import type { SharedStream } from "./shared-streams.js";
