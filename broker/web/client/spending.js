/**
 * The budget of an execution as its log has it. Same rules as `broker/executions/spending.py`.
 */

/**
 * @import * as wire from "./events.js"
 */

const MOST = 1e15;
/** @type {Readonly<Required<wire.Spent>>} */
const NOTHING = { totalTokens: 0, costUsd: 0, toolCalls: 0, seconds: 0 };

/** The limits, and what is spent: by earlier attempts, and by this one since. */
export class Spending {
  /** @type {wire.Budget} */
  #limit = {};
  #before = NOTHING;
  #own = NOTHING;
  /** @type {number | null} */
  #startedAt = null;

  /** @param {wire.ExecutionQueued} data */
  queued({ budget }) {
    this.#limit = budget ?? this.#limit;
  }

  /** @param {wire.ExecutionStarted} data */
  started({ budget, startedAt }) {
    if (budget) {
      this.#limit = budget.limit;
      this.#before = { ...NOTHING, ...budget.spent };
      this.#own = NOTHING;
    }
    this.#startedAt = startedAt;
  }

  called() {
    this.#own = { ...this.#own, toolCalls: this.#own.toolCalls + 1 };
  }

  /** Totals of the attempt. Lower ones than before count nothing. @param {wire.Usage} data */
  used({ totalTokens, costUsd }) {
    const tokens = Math.max(this.#own.totalTokens, totalTokens);
    this.#own = { ...this.#own, totalTokens: tokens, costUsd: Math.max(this.#own.costUsd, costUsd ?? 0) };
  }

  /** The notice has what the record had then. @param {wire.BudgetNotice} data */
  reached({ limit, spent }) {
    const missing = spent - this.#spent()[limit];
    if (missing > 0 && limit !== "seconds")
      this.#before = { ...this.#before, [limit]: amountOf(limit, this.#before[limit] + missing) };
  }

  /** An attempt has ended, or the execution. @param {number} ts */
  ended(ts) {
    if (this.#startedAt === null) return;
    const seconds = this.#before.seconds + Math.max(0, ts - this.#startedAt) / 1000;
    this.#before = { ...this.#spent(), seconds: rounded(bounded(seconds), 1e3) };
    this.#own = NOTHING;
    this.#startedAt = null;
  }

  /** Null without a limit. @returns {wire.BudgetState | null} */
  state() {
    return Object.keys(this.#limit).length ? { limit: this.#limit, spent: this.#spent() } : null;
  }

  /** @returns {Required<wire.Spent>} */
  #spent() {
    return {
      totalTokens: amountOf("totalTokens", this.#before.totalTokens + this.#own.totalTokens),
      costUsd: rounded(bounded(this.#before.costUsd + this.#own.costUsd), 1e9),
      toolCalls: amountOf("toolCalls", this.#before.toolCalls + this.#own.toolCalls),
      seconds: bounded(this.#before.seconds),
    };
  }
}

/** Tokens and calls are whole. @param {string} limit @param {number} value */
function amountOf(limit, value) {
  return limit === "costUsd" ? bounded(value) : Math.round(bounded(value));
}

/** Events may have any numbers. @param {number} value */
function bounded(value) {
  return Math.min(Math.max(value, -MOST), MOST);
}

/** @param {number} value @param {number} parts */
function rounded(value, parts) {
  return Math.round(value * parts) / parts;
}
