/**
 * Requests of a page about one execution: start, cancel, answer, messages. No function raises: an error is part of the
 * state that the page shows. This module uses no framework.
 *
 * @import { RuncastClient } from "./api.js"
 * @import { ExecuteRequest, MessageRequest } from "./events.js"
 */

/**
 * @typedef {object} RequestState
 * @property {string | null} executionId
 * @property {boolean} isStarting
 * @property {Error | null} error of the last request
 * @property {string | null} [startedId] the last execution that was started here and that an edge has accepted
 */

/** Without `startedId`, so that a reset keeps it. @type {Readonly<RequestState>} */
export const NO_REQUEST = Object.freeze({ executionId: null, isStarting: false, error: null });

/** The requests about the execution that a page shows, one at a time. */
export class Requests {
  #change;
  #starts = 0;
  /** @type {string | null} */
  #executionId = null;

  /** @param {(change: Partial<RequestState>) => void} change called with the fields that changed */
  constructor(change) {
    this.#change = change;
  }

  /** Show this execution, and ignore the answer of a start that is under way. @param {string | null} executionId */
  follow(executionId) {
    this.#starts += 1;
    this.#executionId = executionId;
  }

  /**
   * The new execution's id; null if the start failed. With several starts at once, the page shows the last one.
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
   * Whether the execution will be cancelled. It is no error if it is over already.
   *
   * @param {RuncastClient} client
   * @param {string} [reason]
   */
  async cancel(client, reason) {
    const executionId = this.#executionId;
    return executionId !== null && this.#send(client.cancel(executionId, reason), 409);
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
    return executionId !== null && this.#send(client.answer(executionId, inputId, value));
  }

  /**
   * Whether the message waits for the agent.
   *
   * @param {RuncastClient} client
   * @param {string | MessageRequest} message
   */
  async say(client, message) {
    const executionId = this.#executionId;
    return executionId !== null && this.#send(client.sendMessage(executionId, message));
  }

  /**
   * Whether the agent will not take the message.
   *
   * @param {RuncastClient} client
   * @param {string} messageId
   */
  async withdraw(client, messageId) {
    const executionId = this.#executionId;
    return executionId !== null && this.#send(client.withdrawMessage(executionId, messageId));
  }

  /** @param {Promise<unknown>} request @param {number} [expected] HTTP status that is no error */
  async #send(request, expected) {
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
