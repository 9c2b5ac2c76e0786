/**
 * Pipe a result of the AI SDK into an execution, to its end.
 *
 * Of an agent, or of a function that calls `streamText`, tools that need approval are asked for (`emitter.ask`), and the
 * run goes on with the answers; it is aborted by `emitter.signal`. A result that is already on its way should have that
 * as its `abortSignal`.
 *
 * Raises what the stream failed with, and the reason of `emitter.signal` after a cancel.
 *
 * @param {Streamed | PromiseLike<Streamed> | StreamingAgent | Start} source
 * @param {AgentEmitter} emitter
 * @param {PipeOptions} [options]
 * @returns {Promise<Piped>}
 */
export function pipe(source: Streamed | PromiseLike<Streamed> | StreamingAgent | Start, emitter: AgentEmitter, { task, ...options }?: PipeOptions): Promise<Piped>;
/**
 * what `streamText` returns, and
 *   `agent.stream(…)` promises
 */
export type Streamed = {
    fullStream: AsyncIterable<any>;
    response?: PromiseLike<any>;
    responseMessages?: PromiseLike<any[]>;
};
/**
 * a `ToolLoopAgent`, for example
 */
export type StreamingAgent = {
    stream: (input: any) => Streamed | PromiseLike<Streamed>;
};
/**
 * one more
 *   call of `streamText`, with these messages: `(input) => streamText({ model, tools, ...input })`
 */
export type Start = (input: {
    messages: any[];
    abortSignal: AbortSignal;
}) => Streamed | PromiseLike<Streamed>;
export type PipeOptions = {
    /**
     * also begins the execution with this task, and ends it with the text as its result
     */
    task?: string | undefined;
    /**
     * of an agent or a function
     */
    prompt?: string | undefined;
    /**
     * of an agent or a function, instead of a prompt
     */
    messages?: readonly any[] | undefined;
    /**
     * what a person is asked before a tool runs
     */
    question?: ((request: ApprovalRequest) => string) | undefined;
    /**
     * seconds until a tool that nobody approves is denied
     */
    expiresIn?: number | undefined;
};
export type ApprovalRequest = {
    approvalId: string;
    callId: string;
    toolName: string;
    params: unknown;
};
export type Piped = {
    /**
     * of the last step
     */
    text: string;
    /**
     * of the last step; "" if the stream said none
     */
    finishReason: string;
    /**
     * of all steps
     */
    usage: {
        inputTokens: number;
        outputTokens: number;
        totalTokens: number;
    };
    /**
     * tool calls that wait for a person's approval; with an agent or a function they
     * were asked for, and there are none
     */
    approvals: ApprovalRequest[];
};
import type { AgentEmitter } from "./agent-emitter.js";
