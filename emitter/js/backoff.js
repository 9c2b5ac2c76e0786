/** How long to wait before what failed is tried again. Pure. */

const DOUBLINGS_MAX = 30;

/** After `failures` in a row: `firstMs` doubled as often, and no more than `mostMs`; of that a half or more, by chance.
 * @param {number} failures from 0 @param {number} firstMs @param {number} mostMs @param {() => number} [random] */
export function backoffMs(failures, firstMs, mostMs, random = Math.random) {
  return Math.min(mostMs, firstMs * 2 ** Math.min(failures, DOUBLINGS_MAX)) * (0.5 + random() / 2);
}

/** Wait. Ends early, without an error, when the signal is aborted. @param {number} ms @param {AbortSignal} [signal]
 * @returns {Promise<void>} */
export function pause(ms, signal) {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const end = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal?.addEventListener("abort", end, { once: true });
  });
}

/** Let a timer not keep the process alive, where the runtime can do that. @param {unknown} timer */
export function unref(timer) {
  /** @type {{unref?: () => void}} */ (timer)?.unref?.();
}
