/** @typedef {{wall: number, steady: number}} Stamp */
/** @returns {Stamp} */
export function stamp(): Stamp;
/** Milliseconds since then, by the clock that went further. @param {Stamp} then */
export function since(then: Stamp): number;
/** Wait, by the wall clock: a machine that slept does not wait on. `cut` ends it early.
 * @param {number} milliseconds @param {AbortSignal} cut @param {EventTarget | null} [target]
 * @param {string} [event] of the target, which ends the wait as well; resolves to whether it did */
export function pause(milliseconds: number, cut: AbortSignal, target?: EventTarget | null, event?: string): Promise<boolean>;
/** @typedef {"silence" | "sleep" | "offline"} Doubt why a connection is not to be trusted any more */
/** Begins with its creation; calls `onDoubt` once at most; `end()` it. */
export class Vigil {
    /** @param {(doubt: Doubt) => void} onDoubt */
    constructor(onDoubt: (doubt: Doubt) => void);
    /** @param {number} milliseconds between heartbeats, as the edge says */
    set beatMs(milliseconds: number);
    /** Something came. */
    heard(): void;
    end(): void;
    #private;
}
export type Stamp = {
    wall: number;
    steady: number;
};
/**
 * why a connection is not to be trusted any more
 */
export type Doubt = "silence" | "sleep" | "offline";
