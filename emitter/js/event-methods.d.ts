/**
 * @typedef {object} ToolCall a call that runs
 * @property {string} callId
 * @property {(data: {progress?: number, message?: string}) => Promise<void>} progress
 */
/** A text in chunks; none ends within a character. @param {string} whole @returns {Generator<string>} */
export function cutText(whole: string, size?: number): Generator<string>;
export class EventMethods {
    /** Which attempt of the execution this is; from 1. */
    attempt: number;
    /** Queue an event. Waits only while the queue is full. @param {string} _type @param {object} _data
     * @param {Speaker} [_speaker] @returns {Promise<void>} */
    emit(_type: string, _data: object, _speaker?: Speaker): Promise<void>;
    /** Queue the last event, and wait until the log has it. @param {string} _type @param {object} _data
     * @returns {Promise<void>} */
    _terminal(_type: string, _data: object): Promise<void>;
    /** An id that is unique in this execution. @param {"message" | "call"} kind */
    newId(kind: "message" | "call"): string;
    /** An event of your own, `custom:<name>`; the name of a-z 0-9 _ . -, at most 64. @param {string} name
     * @param {Record<string, unknown>} data @param {Speaker} [speaker] */
    custom(name: string, data: Record<string, unknown>, speaker?: Speaker): Promise<void>;
    /** Begin: the first event of an execution that no worker runs.
     * @param {Optional<wire.ExecutionStarted, "startedAt" | "attempt">} data */
    executionStarted(data: Optional<wire.ExecutionStarted, "startedAt" | "attempt">): Promise<void>;
    /** Terminal; resolves when the log has it. `duration` in seconds, by default since `executionStarted`.
     * @param {Partial<wire.ExecutionComplete>} [data] */
    executionComplete(data?: Partial<wire.ExecutionComplete>): Promise<void>;
    /** Terminal. `error` may be anything that was thrown. @param {{error: unknown, code?: string}} data */
    executionError(data: {
        error: unknown;
        code?: string;
    }): Promise<void>;
    /** Terminal. No error if the execution was cancelled before. @param {{reason?: string}} [data] */
    executionCancelled(data?: {
        reason?: string;
    }): Promise<void>;
    /** `phases` are {id, name}, or [id, name]. @param {{goal: string, phases: readonly (wire.Phase | [string, string])[]}} plan
     * @param {Speaker} [speaker] */
    planCreated(plan: {
        goal: string;
        phases: readonly (wire.Phase | [string, string])[];
    }, speaker?: Speaker): Promise<void>;
    /** @param {wire.PhaseStart} data @param {Speaker} [speaker] */
    phaseStart(data: wire.PhaseStart, speaker?: Speaker): Promise<void>;
    /** @param {wire.PhaseComplete} data @param {Speaker} [speaker] */
    phaseComplete(data: wire.PhaseComplete, speaker?: Speaker): Promise<void>;
    /** A whole thought. @param {wire.Thinking} data @param {Speaker} [speaker] */
    thinking(data: wire.Thinking, speaker?: Speaker): Promise<void>;
    /** @param {wire.ThinkingDelta} data @param {Speaker} [speaker] */
    thinkingDelta(data: wire.ThinkingDelta, speaker?: Speaker): Promise<void>;
    /** @param {wire.MessageDelta} data @param {Speaker} [speaker] */
    messageDelta(data: wire.MessageDelta, speaker?: Speaker): Promise<void>;
    /** @param {wire.MessageComplete} data @param {Speaker} [speaker] */
    messageComplete(data: wire.MessageComplete, speaker?: Speaker): Promise<void>;
    /** Stream text: chunks of the current message, which `endText` or the end of the execution completes.
     * @param {string} chunk @param {Speaker} [speaker] @returns {Promise<void>} */
    text(chunk: string, speaker?: Speaker): Promise<void>;
    /** Complete the current message, if there is one; the next `text` begins another. @returns {Promise<void>} */
    endText(): Promise<void>;
    /** @param {Optional<wire.ToolStart, "params">} data @param {Speaker} [speaker] */
    toolStart(data: Optional<wire.ToolStart, "params">, speaker?: Speaker): Promise<void>;
    /** @param {wire.ToolProgress} data @param {Speaker} [speaker] */
    toolProgress(data: wire.ToolProgress, speaker?: Speaker): Promise<void>;
    /** `duration` in seconds. @param {wire.ToolComplete} data @param {Speaker} [speaker] */
    toolComplete(data: wire.ToolComplete, speaker?: Speaker): Promise<void>;
    /** `error` may be anything that was thrown. @param {Omit<wire.ToolError, "error"> & {error: unknown}} data
     * @param {Speaker} [speaker] */
    toolError(data: Omit<wire.ToolError, "error"> & {
        error: unknown;
    }, speaker?: Speaker): Promise<void>;
    /**
     * Run a function as a tool: `tool:start`, then `tool:complete` with what it returns, or `tool:error`. Raises what the
     * function raises.
     *
     * @template T
     * @param {string} name
     * @param {unknown} params shown; the function gets them by its own means
     * @param {(call: ToolCall) => T | PromiseLike<T>} fn
     * @param {Speaker & {callId?: string}} [options]
     * @returns {Promise<Awaited<T>>}
     */
    tool<T>(name: string, params: unknown, fn: (call: ToolCall) => T | PromiseLike<T>, { callId, ...speaker }?: Speaker & {
        callId?: string;
    }): Promise<Awaited<T>>;
    /**
     * Run a function as a phase: `phase:start`, and `phase:complete` with the duration if it ends well.
     *
     * @template T
     * @param {string} id
     * @param {string} name
     * @param {() => T | PromiseLike<T>} fn
     * @param {Speaker & {index?: number}} [options]
     * @returns {Promise<Awaited<T>>}
     */
    phase<T>(id: string, name: string, fn: () => T | PromiseLike<T>, { index, ...speaker }?: Speaker & {
        index?: number;
    }): Promise<Awaited<T>>;
    /** @param {wire.Status} data @param {Speaker} [speaker] */
    status(data: wire.Status, speaker?: Speaker): Promise<void>;
    /** `progress` from 0 to 100. @param {wire.Progress} data @param {Speaker} [speaker] */
    progress(data: wire.Progress, speaker?: Speaker): Promise<void>;
    /** @param {wire.SpecialistActivated} data @param {Speaker} [speaker] */
    specialistActivated(data: wire.SpecialistActivated, speaker?: Speaker): Promise<void>;
    /** @param {wire.SpecialistComplete} data @param {Speaker} [speaker] */
    specialistComplete(data: wire.SpecialistComplete, speaker?: Speaker): Promise<void>;
    /** @param {wire.PartialResult} data @param {Speaker} [speaker] */
    partialResult(data: wire.PartialResult, speaker?: Speaker): Promise<void>;
    /** @param {Optional<wire.Synthesis, "specialistsComplete" | "specialistsPending">} data @param {Speaker} [speaker] */
    synthesis(data: Optional<wire.Synthesis, "specialistsComplete" | "specialistsPending">, speaker?: Speaker): Promise<void>;
    /** A file or document, whole or (`append`, `last`) in chunks that share the id; one of `text`, `data` and `url`.
     * @param {wire.Artifact} data @param {Speaker} [speaker] */
    artifact(data: wire.Artifact, speaker?: Speaker): Promise<void>;
    /**
     * Running totals of the execution; `totalTokens` is by default the sum. `add` is the usage of one more model call, as
     * its API reports it (the AI SDK, OpenAI, Anthropic): the event has the totals of all that was added so far.
     *
     * @param {Partial<wire.UsageTotals> & {add?: unknown}} data @param {Speaker} [speaker]
     */
    usage({ add, ...totals }?: Partial<wire.UsageTotals> & {
        add?: unknown;
    }, speaker?: Speaker): Promise<void>;
    /** One ended call of a model; it is added to `usage`. Times in seconds. @param {wire.ModelCall} data
     * @param {Speaker} [speaker] */
    modelCall(data: wire.ModelCall, speaker?: Speaker): Promise<void>;
    /** A slow step was noticed. @param {wire.Timeout} data @param {Speaker} [speaker] */
    timeout(data: wire.Timeout, speaker?: Speaker): Promise<void>;
    /** @param {wire.SandboxViolation} data @param {Speaker} [speaker] */
    sandboxViolation(data: wire.SandboxViolation, speaker?: Speaker): Promise<void>;
    #private;
}
/**
 * a call that runs
 */
export type ToolCall = {
    callId: string;
    progress: (data: {
        progress?: number;
        message?: string;
    }) => Promise<void>;
};
/**
 * who speaks, where it is not the emitter's own agent
 */
export type Speaker = {
    /**
     * a sub-agent
     */
    agent?: string | undefined;
    /**
     * the call in which it works
     */
    parentId?: string | undefined;
};
export type Optional<T, K extends keyof T> = Omit<T, K> & Partial<Pick<T, K>>;
import type * as wire from "./events.js";
