/** Time that goes on while a machine sleeps: both clocks of the platform, and a wait that a sleep does not lengthen. */

const TICK_MS = 1_000;

/** @typedef {{wall: number, steady: number}} Stamp a moment by both clocks */

/** The present moment. @returns {Stamp} */
export function stamp() {
  return { wall: Date.now(), steady: performance.now() };
}

/** Milliseconds since then, by the clock that advanced further: some platforms stop the steady one in sleep, and the
 * wall clock may be set back. @param {Stamp} then */
export function since(then) {
  return Math.max(Date.now() - then.wall, performance.now() - then.steady);
}

/** Wait, by both clocks: the wait ends in time although the machine slept. `signal` ends it early.
 * @param {number} milliseconds @param {AbortSignal} signal @param {EventTarget | null} [target]
 * @param {string} [event] of the target, which ends the wait as well; resolves to whether it did */
export function pause(milliseconds, signal, target = null, event = "") {
  const began = stamp();
  return new Promise((/** @type {(value: boolean) => void} */ resolve) => {
    /** @type {ReturnType<typeof setTimeout>} */
    let timer;
    /** @param {boolean} isWoken */
    const done = (isWoken) => {
      clearTimeout(timer);
      signal.removeEventListener("abort", stop);
      target?.removeEventListener(event, wake);
      resolve(isWoken);
    };
    const stop = () => done(false);
    const wake = () => done(true);
    const check = () => {
      const left = milliseconds - since(began);
      if (left <= 0 || signal.aborted) return done(false);
      timer = setTimeout(check, Math.min(left, TICK_MS));
    };
    signal.addEventListener("abort", stop);
    target?.addEventListener(event, wake);
    check();
  });
}
