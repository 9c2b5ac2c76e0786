/** The questions that an agent waits for, and the answers that the log has. */
import { Declined, InputExpired } from "./errors.js";

/** After the time of a question is over, the edge closes it: so long is that waited for. */
const EXPIRY_GRACE_MS = 15_000;
const MAX_TIMER_MS = 2 ** 31 - 1;
/** Who answers a question whose time is over. */
const EXPIRED = new Set(["system:expired", "expired"]);

/** @typedef {{over: Promise<void>, end: () => void}} Wait `over` resolves with the answer, and rejects when none can come */

export class Questions {
  /** @type {Map<string, {by?: string, value?: any, declined?: boolean}>} */
  #answers = new Map();
  /** @type {Map<string, Set<(error: Error | null) => void>>} */
  #waiting = new Map();

  /** Whether the log has the answer to a question. @param {string} id */
  has(id) {
    return this.#answers.has(id);
  }

  /** The value of the answer. Raises `InputExpired` if that was that nobody answered, and `Declined`; an approval that
   * was declined is false. @param {string} id @param {string} kind */
  value(id, kind) {
    const { by = "", value, declined = false } = this.#answers.get(id) ?? {};
    if (EXPIRED.has(by)) throw expired(id);
    if (declined && kind !== "approval") throw new Declined(`the answer to input ${id} was declined`);
    return value;
  }

  /** The log has an answer. @param {any} answer */
  heard(answer) {
    this.#answers.set(answer.inputId, answer);
    for (const settle of this.#waiting.get(answer.inputId) ?? []) settle(null);
  }

  /** No answers can come any more. @param {Error} error */
  fail(error) {
    for (const waits of this.#waiting.values()) for (const settle of waits) settle(error);
  }

  /** @param {string} id @param {number | undefined} expiresAt ms since the epoch
   * @param {AbortSignal | undefined} signal @returns {Wait} */
  wait(id, expiresAt, signal) {
    /** @type {(error: Error | null) => void} */
    let settle = () => {};
    const over = new Promise((/** @type {(value: void) => void} */ resolve, reject) => {
      settle = (error) => (error === null ? resolve() : reject(error));
    });
    over.catch(() => {}); // it may be over before anybody waits
    const stop = () => settle(signal?.reason);
    const left = expiresAt === undefined ? MAX_TIMER_MS : expiresAt - Date.now() + EXPIRY_GRACE_MS;
    const timer = left < MAX_TIMER_MS ? setTimeout(() => settle(expired(id)), left) : null;
    const waits = this.#waiting.get(id) ?? new Set();
    this.#waiting.set(id, waits.add(settle));
    if (signal?.aborted) stop();
    signal?.addEventListener("abort", stop, { once: true });
    const end = () => {
      if (timer !== null) clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
      waits.delete(settle);
      if (waits.size === 0) this.#waiting.delete(id);
    };
    return { over, end };
  }
}

/** @param {string} id */
function expired(id) {
  return new InputExpired(`input ${id} was not answered in time`);
}
