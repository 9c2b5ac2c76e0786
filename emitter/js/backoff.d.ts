/** After `failures` in a row: `firstMs` doubled as often, and no more than `mostMs`; of that a half or more, by chance.
 * @param {number} failures from 0 @param {number} firstMs @param {number} mostMs @param {() => number} [random] */
export function backoffMs(failures: number, firstMs: number, mostMs: number, random?: () => number): number;
/** Wait. Ends early, without an error, when the signal is aborted. @param {number} ms @param {AbortSignal} [signal]
 * @returns {Promise<void>} */
export function pause(ms: number, signal?: AbortSignal): Promise<void>;
/** Let a timer not keep the process alive, where the runtime can do that. @param {unknown} timer */
export function unref(timer: unknown): void;
