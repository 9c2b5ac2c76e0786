/**
 * Who it is, for tabs to know each other by: of a token its claims (a renewed one has the same); with a cookie, which
 * no script can read, what the application says. Null: nobody knows.
 * @param {string | null} token @param {string} [given]
 */
export function identityOf(token: string | null, given?: string): string | null;
export const PING_MS: 10000;
/** From `start` to `stop`, once, as a `Connection`. Calls `instead`, with the reason, when there is no sharing here. */
export class SharedConnection {
    /** @param {RuncastClient} client @param {Target} target @param {Sequence} sequence @param {Sink} sink
     * @param {(reason: string) => void} instead */
    constructor(client: RuncastClient, target: Target, sequence: Sequence, sink: Sink, instead: (reason: string) => void);
    start(): void;
    stop(): void;
    #private;
}
export type FromTab = {
    kind: "open";
    key: string;
    baseUrl: string;
    target: Target;
    cursor: string | null;
    isFromNow: boolean;
    token: string | null;
    lock: string | null;
} | {
    kind: "ack";
    count: number;
    size: number;
} | {
    kind: "token";
    ask: number;
    token?: string | null;
    failed?: boolean;
} | {
    kind: "pong";
} | {
    kind: "close";
};
export type Item = {
    event: any;
    size: number;
} | {
    place: string;
} | {
    control: StreamControl;
} | {
    change: Partial<Status>;
} | {
    refused: true;
};
export type FromWorker = {
    kind: "items";
    items: Item[];
    size: number;
} | {
    kind: "ask";
    ask: number;
    than: string | null;
} | {
    kind: "ping";
};
import type { RuncastClient } from "./api.js";
import type { Target } from "./stream.js";
import type { Sequence } from "./cursor.js";
import type { Sink } from "./stream.js";
import type { StreamControl } from "./events.js";
import type { Status } from "./stream.js";
