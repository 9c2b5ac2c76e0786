/** @typedef {{wall: number, steady: number}} Stamp a moment by both clocks */
/** The present moment. @returns {Stamp} */
export function stamp(): Stamp;
/** Milliseconds since then, by the clock that advanced further: some platforms stop the steady one in sleep, and the
 * wall clock may be set back. @param {Stamp} then */
export function since(then: Stamp): number;
/** Wait, by both clocks: the wait ends in time although the machine slept. `signal` ends it early.
 * @param {number} milliseconds @param {AbortSignal} signal @param {EventTarget | null} [target]
 * @param {string} [event] of the target, which ends the wait as well; resolves to whether it did */
export function pause(milliseconds: number, signal: AbortSignal, target?: EventTarget | null, event?: string): Promise<boolean>;
/**
 * a moment by both clocks
 */
export type Stamp = {
    wall: number;
    steady: number;
};
