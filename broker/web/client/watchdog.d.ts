/** @typedef {"silence" | "sleep" | "offline"} Stall why a connection is taken for dead */
/** Runs from its creation until `stop` or its report: it calls `onStall` at most once. */
export class Watchdog {
    /** @param {(stall: Stall) => void} onStall */
    constructor(onStall: (stall: Stall) => void);
    /** @param {number} milliseconds between heartbeats, from `stream:open` */
    set heartbeatMs(milliseconds: number);
    /** Bytes arrived. */
    received(): void;
    stop(): void;
    #private;
}
/**
 * why a connection is taken for dead
 */
export type Stall = "silence" | "sleep" | "offline";
