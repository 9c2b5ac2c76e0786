/**
 * Publishes the events of one execution. Close it, end the execution, or use `run` or `await using`.
 *
 * `await emitter.thinking({ thought })` resolves as soon as the event is queued; the queue travels in batches, in order,
 * and each event is in the log exactly once. Terminal events and `flush` resolve when the log has everything. A refusal
 * of the log (`ExecutionEnded`, `Superseded`, `Unauthorized`, …) is raised by the next call.
 */
export class AgentEmitter extends EventMethods {
    /** @param {EmitterOptions} options */
    constructor(options: EmitterOptions);
    executionId: string;
    /** Why the log takes no more events; null as long as it does. */
    get error(): Error | null;
    /** Whether this emitter has ended the execution. */
    get ended(): boolean;
    /** Aborted when the execution is cancelled, ended or taken over elsewhere: give it to `fetch`, and to model SDKs. From
     * its first use on, the execution's stream is read (scope `executions:read`); without that, a cancel is noticed at the
     * next event or renewal. */
    get signal(): AbortSignal;
    /** Whether the execution must stop. */
    get cancelled(): boolean;
    /** Wait until everything emitted so far is in the log. Raises `EdgeUnavailable` after `timeoutMs`; what is queued is
     * still sent. @param {number} [timeoutMs] */
    flush(timeoutMs?: number): Promise<void>;
    /** Flush and close. An execution that was not ended goes on, until its lease is over. Raises `EventsLost` with the
     * number of events that were not confirmed in time. Repeating this has no effect. @param {number} [timeoutMs] */
    close(timeoutMs?: number): Promise<void>;
    /**
     * An execution from its start to its end: `execution:started`, then what the function returns as the result, or its
     * error, or `execution:cancelled` where `signal` was aborted. Closes the emitter, and raises what the function raises.
     *
     * @template T
     * @param {string} task
     * @param {(emitter: this) => T | PromiseLike<T>} fn
     * @returns {Promise<Awaited<T>>}
     */
    run<T>(task: string, fn: (emitter: this) => T | PromiseLike<T>): Promise<Awaited<T>>;
    /**
     * Ask a person, and wait for the answer: true or false of an `approval`, one of the `options` of a `choice`, a text
     * (any JSON if `schema` is `{}`), or an object that fits the `schema` of a `form`. The first answer counts. A later
     * attempt that asks the same gets the earlier answer. Needs the scope `executions:read`.
     *
     * Raises `InputExpired` if nobody answers within `expiresIn` seconds, `Declined` if the person does not want to (an
     * approval is false then), `TooManyInputs` if too many are open, and the reason of `signal` or of `emitter.signal`
     * once that is aborted.
     *
     * @template {InputKind} [K="approval"]
     * @param {string} prompt
     * @param {AskOptions & {kind?: K}} [options]
     * @returns {Promise<K extends "approval" ? boolean : K extends "choice" ? string : K extends "form" ? Record<string, any> : any>}
     */
    ask<K extends InputKind = "approval">(prompt: string, { kind, ...options }?: AskOptions & {
        kind?: K;
    }): Promise<K extends "approval" ? boolean : K extends "choice" ? string : K extends "form" ? Record<string, any> : any>;
    /**
     * What people say to the running agent, in order, each message once per attempt: `for await (const { text } of
     * emitter.messages())`. From the first call on the execution takes messages. Ends with the execution.
     *
     * @returns {AsyncGenerator<UserMessage, void>}
     */
    messages(): AsyncGenerator<UserMessage, void>;
    /** `await using emitter = new AgentEmitter(…)` closes it at the end of the block. */
    [Symbol.asyncDispose](): Promise<void>;
    #private;
}
export { AgentEmitter as AgentSSEEmitter };
export type OwnOptions = {
    /**
     * 1 to 64 of A-Z a-z 0-9 _ -; a new one by default
     */
    executionId?: string | undefined;
    /**
     * how often a silent run says that it is alive: at most a third of the edges'
     * `RUNCAST_UNHELD_LEASE_SECONDS`. 0: never
     */
    renewSeconds?: number | undefined;
    /**
     * bound of `flush` and of terminal events
     */
    flushTimeoutMs?: number | undefined;
    closeTimeoutMs?: number | undefined;
    /**
     * called once, when the log refuses more events
     */
    onError?: ((error: Error) => void) | undefined;
    /**
     * of a worker's attempt
     */
    job?: JobHold | undefined;
};
export type EmitterOptions = EdgeOptions & EncoderOptions & OutboxOptions & OwnOptions;
import { EventMethods } from "./event-methods.js";
import type { InputKind } from "./inputs.js";
import type { AskOptions } from "./inputs.js";
import type { UserMessage } from "./inbox.js";
import type { JobHold } from "./log-watch.js";
import type { EdgeOptions } from "./edge.js";
import type { EncoderOptions } from "./encoder.js";
import type { OutboxOptions } from "./outbox.js";
