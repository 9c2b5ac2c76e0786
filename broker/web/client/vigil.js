/**
 * Watches over one open connection: is it silent for too long, has the machine slept, did the network go away?
 *
 * Silence is measured by the wall clock too, which alone goes on while a laptop sleeps.
 */
const TICK_MS = 1_000;
/** A tick so late means that the machine slept, or that the page's timers are throttled. */
const JUMP_MS = 5_000;
const SILENT_BEATS = 2.5;
const SILENT_BEATS_AFTER_SLEEP = 1.25;
/** How long an edge may take to answer, before it said how often its heart beats. */
const OPENING_MS = 20_000;

/** @typedef {"silence" | "sleep" | "offline"} Doubt why a connection is not to be trusted any more */

/** Begins with its creation; calls `onDoubt` once at most; `end()` it. */
export class Vigil {
  #onDoubt;
  #beatMs = 0;
  #heard = stamp();
  #ticked = stamp();
  #timer;

  /** @param {(doubt: Doubt) => void} onDoubt */
  constructor(onDoubt) {
    this.#onDoubt = onDoubt;
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
    globalThis.addEventListener?.("offline", this.#offline);
  }

  /** @param {number} milliseconds between heartbeats, as the edge says */
  set beatMs(milliseconds) {
    this.#beatMs = milliseconds;
  }

  /** Something came. */
  heard() {
    this.#heard = stamp();
  }

  end() {
    clearInterval(this.#timer);
    globalThis.removeEventListener?.("offline", this.#offline);
  }

  #offline = () => this.#doubt("offline");

  #tick() {
    const jumped = since(this.#ticked) > TICK_MS + JUMP_MS;
    this.#ticked = stamp();
    const silent = since(this.#heard);
    if (jumped && silent > SILENT_BEATS_AFTER_SLEEP * this.#beatMs) this.#doubt("sleep");
    else if (silent > (this.#beatMs === 0 ? OPENING_MS : SILENT_BEATS * this.#beatMs)) this.#doubt("silence");
  }

  /** @param {Doubt} doubt */
  #doubt(doubt) {
    this.end();
    this.#onDoubt(doubt);
  }
}

/** @typedef {{wall: number, steady: number}} Stamp */

/** @returns {Stamp} */
export function stamp() {
  return { wall: Date.now(), steady: performance.now() };
}

/** Milliseconds since then, by the clock that went further. @param {Stamp} then */
export function since(then) {
  return Math.max(Date.now() - then.wall, performance.now() - then.steady);
}

/** Wait, by the wall clock: a machine that slept does not wait on. `cut` ends it early.
 * @param {number} milliseconds @param {AbortSignal} cut @param {EventTarget | null} [target]
 * @param {string} [event] of the target, which ends the wait as well; resolves to whether it did */
export function pause(milliseconds, cut, target = null, event = "") {
  const began = stamp();
  return new Promise((/** @type {(value: boolean) => void} */ resolve) => {
    /** @type {ReturnType<typeof setTimeout>} */
    let timer;
    /** @param {boolean} early */
    const done = (early) => {
      clearTimeout(timer);
      cut.removeEventListener("abort", stop);
      target?.removeEventListener(event, wake);
      resolve(early);
    };
    const stop = () => done(false);
    const wake = () => done(true);
    const look = () => {
      const left = milliseconds - since(began);
      if (left <= 0 || cut.aborted) return done(false);
      timer = setTimeout(look, Math.min(left, TICK_MS));
    };
    cut.addEventListener("abort", stop);
    target?.addEventListener(event, wake);
    look();
  });
}
