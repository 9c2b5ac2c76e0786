/**
 * What a page asks of one execution: start, cancel, answer. Nothing here raises: what went wrong is part of what the
 * page shows. No framework in here.
 *
 * @import { RuncastClient } from "./api.js"
 * @import { ExecuteRequest } from "./events.js"
 */

/**
 * @typedef {object} RequestState
 * @property {string | null} executionId
 * @property {boolean} isStarting
 * @property {Error | null} error of the last request
 * @property {string | null} [startedId] the last that was started, of which an edge said that it is queued
 */

/** Whatever was started before stays known. @type {Readonly<RequestState>} */
export const NOTHING_ASKED = Object.freeze({ executionId: null, isStarting: false, error: null });

/** The requests about the execution that a page shows, one at a time. */
export class Requests {
  #change;
  #starts = 0;
  /** @type {string | null} */
  #executionId = null;

  /** @param {(change: Partial<RequestState>) => void} change is told what is different now */
  constructor(change) {
    this.#change = change;
  }

  /** It is this one from now on, and not one that is being started. @param {string | null} executionId */
  follow(executionId) {
    this.#starts += 1;
    this.#executionId = executionId;
  }

  /**
   * The new execution's id; null if there is none. Of several starts at once the page shows the last.
   *
   * @param {RuncastClient} client
   * @param {ExecuteRequest} request
   */
  async start(client, request) {
    const number = ++this.#starts;
    this.#change({ isStarting: true, error: null });
    const { answer, error } = await outcome(client.execute(request));
    if (number === this.#starts) {
      this.#executionId = answer?.executionId ?? this.#executionId;
      const started = answer === null ? {} : { startedId: answer.executionId };
      this.#change({ isStarting: false, error, executionId: this.#executionId, ...started });
    }
    return answer?.executionId ?? null;
  }

  /**
   * Whether it will be cancelled. That it is over already is no error.
   *
   * @param {RuncastClient} client
   * @param {string} [reason]
   */
  async cancel(client, reason) {
    const executionId = this.#executionId;
    return executionId !== null && this.#ask(client.cancel(executionId, reason), 409);
  }

  /**
   * Whether this was the answer that counts.
   *
   * @param {RuncastClient} client
   * @param {string} inputId
   * @param {unknown} value
   */
  async answer(client, inputId, value) {
    const executionId = this.#executionId;
    return executionId !== null && this.#ask(client.answer(executionId, inputId, value));
  }

  /** @param {Promise<unknown>} request @param {number} [expected] status that is no error */
  async #ask(request, expected) {
    const number = this.#starts;
    this.#change({ error: null });
    const { error } = await outcome(request);
    const isExpected = error !== null && "status" in error && error.status === expected;
    if (error && !isExpected && number === this.#starts) this.#change({ error });
    return error === null;
  }
}

/**
 * @template T
 * @param {Promise<T>} request
 * @returns {Promise<{answer: T | null, error: Error | null}>}
 */
async function outcome(request) {
  try {
    return { answer: await request, error: null };
  } catch (error) {
    return { answer: null, error: error instanceof Error ? error : new Error(String(error)) };
  }
}
