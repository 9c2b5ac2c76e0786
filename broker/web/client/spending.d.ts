/** The limits, and what is spent: by earlier attempts, and by this one since. */
export class Spending {
    /** @param {wire.ExecutionQueued} data */
    queued({ budget }: wire.ExecutionQueued): void;
    /** @param {wire.ExecutionStarted} data */
    started({ budget, startedAt }: wire.ExecutionStarted): void;
    called(): void;
    /** Totals of the attempt. Lower ones than before count nothing. @param {wire.Usage} data */
    used({ totalTokens, costUsd }: wire.Usage): void;
    /** The notice has what the record had then. @param {wire.BudgetNotice} data */
    reached({ limit, spent }: wire.BudgetNotice): void;
    /** An attempt has ended, or the execution. @param {number} ts */
    ended(ts: number): void;
    /** Null without a limit. @returns {wire.BudgetState | null} */
    state(): wire.BudgetState | null;
    #private;
}
import type * as wire from "./events.js";
