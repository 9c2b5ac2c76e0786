/**
 * Streams of the AI SDK (`ai` 6 and 7) as events of an execution: text, reasoning, tool calls, files, sources, usage.
 *
 * Nothing is imported from `ai`: what is read of it is the `fullStream` of a result, and the messages of its response.
 */
import { describe } from "./errors.js";

/**
 * @import { AgentEmitter } from "./agent-emitter.js"
 *
 * @typedef {{fullStream: AsyncIterable<any>, response?: PromiseLike<any>, responseMessages?: PromiseLike<any[]>}} Streamed what `streamText` returns, and
 *   `agent.stream(…)` promises
 * @typedef {{stream: (input: any) => Streamed | PromiseLike<Streamed>}} StreamingAgent a `ToolLoopAgent`, for example
 * @typedef {(input: {messages: any[], abortSignal: AbortSignal}) => Streamed | PromiseLike<Streamed>} Start one more
 *   call of `streamText`, with these messages: `(input) => streamText({ model, tools, ...input })`
 *
 * @typedef {object} PipeOptions
 * @property {string} [task] also begins the execution with this task, and ends it with the text as its result
 * @property {string} [prompt] of an agent or a function
 * @property {readonly any[]} [messages] of an agent or a function, instead of a prompt
 * @property {(request: ApprovalRequest) => string} [question] what a person is asked before a tool runs
 * @property {number} [expiresIn] seconds until a tool that nobody approves is denied
 *
 * @typedef {object} ApprovalRequest
 * @property {string} approvalId
 * @property {string} callId
 * @property {string} toolName
 * @property {unknown} params
 *
 * @typedef {object} Piped
 * @property {string} text of the last step
 * @property {string} finishReason of the last step; "" if the stream said none
 * @property {{inputTokens: number, outputTokens: number, totalTokens: number}} usage of all steps
 * @property {ApprovalRequest[]} approvals tool calls that wait for a person's approval; with an agent or a function they
 *   were asked for, and there are none
 */

const MAX_APPROVALS = 100;

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
export async function pipe(source, emitter, { task, ...options } = {}) {
  if (task === undefined) return await piped(source, emitter, options);
  return await ended(source, emitter, task, options);
}

/** @param {any} source @param {AgentEmitter} emitter @param {string} task @param {PipeOptions} options
 * @returns {Promise<Piped>} */
async function ended(source, emitter, task, options) {
  /** @type {Piped | undefined} */
  let found;
  await emitter.run(task, async () => {
    found = await piped(source, emitter, options);
    return found.text;
  });
  return /** @type {Piped} */ (found);
}

/** @param {any} source @param {AgentEmitter} emitter @param {PipeOptions} options */
async function piped(source, emitter, options) {
  const pipeline = new Pipeline(emitter);
  try {
    const start = startOf(source);
    if (start === null) await pipeline.read(await source);
    else await rounds(start, pipeline, emitter, options);
    return pipeline.piped;
  } catch (error) {
    await pipeline.interrupt();
    throw emitter.cancelled ? emitter.signal.reason : error;
  }
}

/** How a run is started and goes on; null of a result that is on its way. @param {any} source @returns {Start | null} */
function startOf(source) {
  if (typeof source === "function") return source;
  return typeof source?.stream === "function" ? (input) => source.stream(input) : null;
}

/** Run until no tool waits for approval. @param {Start} start @param {Pipeline} pipeline @param {AgentEmitter} emitter
 * @param {PipeOptions} options */
async function rounds(start, pipeline, emitter, { prompt, messages, question = questionOf, expiresIn }) {
  const said = messages === undefined ? [{ role: "user", content: prompt ?? "" }] : [...messages];
  for (let asked = 0; ;) {
    const result = await start({ messages: [...said], abortSignal: emitter.signal });
    await pipeline.read(result);
    const requests = pipeline.approvals;
    if (requests.length === 0) return;
    if ((asked += requests.length) > MAX_APPROVALS)
      throw new Error(`more than ${MAX_APPROVALS} tool calls wanted approval`);
    const answers = await Promise.all(requests.map((request) => approval(request, emitter, question, expiresIn)));
    said.push(...(await messagesOf(result)), { role: "tool", content: answers });
    pipeline.approvals = [];
  }
}

/** What all steps of a run have said, for its next call. @param {Streamed} result @returns {Promise<any[]>} */
async function messagesOf(result) {
  return (await result.responseMessages) ?? (await result.response)?.messages ?? [];
}

/** @param {ApprovalRequest} request */
function questionOf({ toolName, params }) {
  return `Run ${toolName} with ${JSON.stringify(params)?.slice(0, 500) ?? "no parameters"}?`;
}

/** @param {ApprovalRequest} request @param {AgentEmitter} emitter @param {(request: ApprovalRequest) => string} question
 * @param {number} [expiresIn] */
async function approval(request, emitter, question, expiresIn) {
  let approved = false;
  /** @type {string | undefined} */
  let reason;
  try {
    approved = (await emitter.ask(question(request), { kind: "approval", expiresIn })) === true;
  } catch (error) {
    if (!(error instanceof Error && error.name === "InputExpired")) throw error;
    reason = "nobody answered in time";
  }
  return { type: "tool-approval-response", approvalId: request.approvalId, approved, ...(reason && { reason }) };
}

/** What one execution says, over all streams of its run. */
class Pipeline {
  #emitter;
  /** Message ids by the stream's own, which each step may use again. @type {Map<string, string>} */
  #ids = new Map();
  /** Calls without a result: their names, and when they began. @type {Map<string, {toolName: string, began: number}>} */
  #open = new Map();
  #stepBegan = Date.now();
  #firstToken = 0;
  #text = "";
  #finishReason = "";
  #usage = { inputTokens: 0, outputTokens: 0, totalTokens: 0 };
  /** @type {ApprovalRequest[]} */
  approvals = [];

  /** @param {AgentEmitter} emitter */
  constructor(emitter) {
    this.#emitter = emitter;
  }

  /** @returns {Piped} */
  get piped() {
    return { text: this.#text, finishReason: this.#finishReason, usage: this.#usage, approvals: this.approvals };
  }

  /** Read a stream to its end. Raises its error. @param {any} result */
  async read(result) {
    const stream = result?.fullStream ?? result?.stream;
    if (typeof stream?.[Symbol.asyncIterator] !== "function")
      throw new TypeError("pipe: this is no result of streamText, no agent and no function");
    for await (const part of stream) await this.#part(part);
  }

  /** Close the calls that are open. */
  async interrupt() {
    for (const callId of [...this.#open.keys()]) await this.#close(callId, "interrupted").catch(() => {});
  }

  /** @param {any} part */
  async #part(part) {
    const emitter = this.#emitter;
    switch (part.type) {
      case "start-step":
        this.#stepBegan = Date.now();
        this.#firstToken = 0;
        this.#text = "";
        return this.#ids.clear();
      case "text-delta":
        this.#firstToken ||= Date.now();
        this.#text += part.text;
        return await emitter.messageDelta({ messageId: this.#id("m", part.id), delta: part.text });
      case "text-end":
        if (this.#ids.has("m" + part.id)) await emitter.messageComplete({ messageId: this.#id("m", part.id) });
        this.#ids.delete("m" + part.id);
        return;
      case "reasoning-delta":
        this.#firstToken ||= Date.now();
        return await emitter.thinkingDelta({ messageId: this.#id("r", part.id), delta: part.text });
      case "tool-call":
        this.#open.set(part.toolCallId, { toolName: part.toolName, began: Date.now() });
        return await emitter.toolStart({ callId: part.toolCallId, toolName: part.toolName, params: part.input });
      case "tool-result":
        if (part.preliminary)
          return await emitter.toolProgress({ callId: part.toolCallId, message: short(part.output) });
        return await emitter.toolComplete({ ...this.#closed(part), result: part.output ?? null });
      case "tool-error":
        return await emitter.toolError({ ...this.#closed(part), error: part.error });
      case "tool-output-denied":
        return await emitter.toolError({ ...this.#closed(part), error: "denied" });
      case "tool-approval-request":
        if (part.isAutomatic) return;
        this.approvals.push(requestOf(part));
        return;
      case "tool-approval-response":
        this.approvals = this.approvals.filter(({ approvalId }) => approvalId !== part.approvalId);
        return;
      case "file":
      case "reasoning-file":
        return await this.#file(part.file);
      case "source":
        return await emitter.custom("source", { ...part, type: undefined });
      case "finish-step":
        return await this.#step(part);
      case "finish":
        this.#finishReason = part.finishReason ?? "";
        return;
      case "error":
        throw part.error instanceof Error ? part.error : new Error(describe(part.error));
      case "abort":
        throw emitter.cancelled
          ? emitter.signal.reason
          : new DOMException(part.reason ?? "the stream was aborted", "AbortError");
    }
  }

  /** @param {string} kind @param {string} id of the stream */
  #id(kind, id) {
    const known = this.#ids.get(kind + id);
    if (known !== undefined) return known;
    const made = this.#emitter.newId("message");
    this.#ids.set(kind + id, made);
    return made;
  }

  /** A call that has ended. @param {any} part */
  #closed({ toolCallId, toolName }) {
    const call = this.#open.get(toolCallId);
    this.#open.delete(toolCallId);
    const duration = call === undefined ? 0 : (Date.now() - call.began) / 1000;
    return { callId: toolCallId, toolName: toolName ?? call?.toolName ?? "", duration };
  }

  /** @param {string} callId @param {string} error */
  #close(callId, error) {
    return this.#emitter.toolError({ ...this.#closed({ toolCallId: callId }), error });
  }

  /** @param {any} file */
  #file(file) {
    const { mediaType = "application/octet-stream", base64 = "" } = file ?? {};
    return this.#emitter.artifact({
      artifactId: this.#emitter.newId("message"),
      mediaType,
      url: `data:${mediaType};base64,${base64}`,
      last: true,
    });
  }

  /** @param {any} part */
  async #step({ usage, response, providerMetadata }) {
    const inputTokens = usage?.inputTokens ?? 0;
    const outputTokens = usage?.outputTokens ?? 0;
    this.#usage.inputTokens += inputTokens;
    this.#usage.outputTokens += outputTokens;
    this.#usage.totalTokens += usage?.totalTokens ?? inputTokens + outputTokens;
    const provider = Object.keys(providerMetadata ?? {})[0];
    await this.#emitter.modelCall({
      callId: this.#emitter.newId("call"),
      model: response?.modelId ?? "unknown",
      ...(provider && { provider }),
      inputTokens,
      outputTokens,
      duration: (Date.now() - this.#stepBegan) / 1000,
      ...(this.#firstToken && { firstTokenSeconds: (this.#firstToken - this.#stepBegan) / 1000 }),
    });
  }
}

/** @param {any} part @returns {ApprovalRequest} */
function requestOf({ approvalId, toolCall }) {
  return { approvalId, callId: toolCall.toolCallId, toolName: toolCall.toolName, params: toolCall.input };
}

/** @param {unknown} value */
function short(value) {
  return (typeof value === "string" ? value : (JSON.stringify(value) ?? "")).slice(0, 500);
}
