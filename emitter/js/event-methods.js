/**
 * The catalogue as methods: one for each type that an agent emits, and what is made of several of them.
 *
 * Each returns a promise: of a call that nobody awaits, a refusal is not an unhandled rejection, but `emitter.error`.
 *
 * @import * as wire from "./events.js"
 */
import { words } from "./catalogue.js";
import { RuncastError, describe } from "./errors.js";
import { plus, usageOf } from "./usage.js";

/**
 * @typedef {object} Speaker who speaks, where it is not the emitter's own agent
 * @property {string} [agent] a sub-agent
 * @property {string} [parentId] the call in which it works
 */
/** @template T @template {keyof T} K @typedef {Omit<T, K> & Partial<Pick<T, K>>} Optional */

/** Characters of a chunk of `text`. */
const TEXT_CHUNK = 4096;

export class EventMethods {
  #started = 0;
  /** @type {string | null} */
  #messageId = null;
  #numbers = { m: 0, c: 0 };
  #spent = usageOf(null);
  /** Which attempt of the execution this is; from 1. */
  attempt = 1;

  /** Queue an event. Waits only while the queue is full. @param {string} _type @param {object} _data
   * @param {Speaker} [_speaker] @returns {Promise<void>} */
  emit(_type, _data, _speaker) {
    throw new Error("abstract");
  }

  /** Queue the last event, and wait until the log has it. @param {string} _type @param {object} _data
   * @returns {Promise<void>} */
  _terminal(_type, _data) {
    throw new Error("abstract");
  }

  /** An id that is unique in this execution. @param {"message" | "call"} kind */
  newId(kind) {
    const letter = kind === "message" ? "m" : "c";
    return `${letter}${Math.max(1, this.attempt)}_${(this.#numbers[letter] += 1)}`;
  }

  /** An event of your own, `custom:<name>`; the name of a-z 0-9 _ . -, at most 64. @param {string} name
   * @param {Record<string, unknown>} data @param {Speaker} [speaker] */
  custom(name, data, speaker) {
    return this.emit("custom:" + words(name), data, speaker);
  }

  // --- the execution ---

  /** Begin: the first event of an execution that no worker runs.
   * @param {Optional<wire.ExecutionStarted, "startedAt" | "attempt">} data */
  executionStarted(data) {
    this.#started = Date.now();
    return this.emit("execution:started", { startedAt: this.#started, attempt: Math.max(1, this.attempt), ...data });
  }

  /** Terminal; resolves when the log has it. `duration` in seconds, by default since `executionStarted`.
   * @param {Partial<wire.ExecutionComplete>} [data] */
  executionComplete(data = {}) {
    const duration = this.#started === 0 ? 0 : (Date.now() - this.#started) / 1000;
    return this._terminal("execution:complete", { result: null, duration, ...data });
  }

  /** Terminal. `error` may be anything that was thrown. @param {{error: unknown, code?: string}} data */
  executionError(data) {
    const { error, ...rest } = typeof data === "object" && data !== null && "error" in data ? data : { error: data };
    return this._terminal("execution:error", { error: typeof error === "string" ? error : describe(error), ...rest });
  }

  /** Terminal. No error if the execution was cancelled before. @param {{reason?: string}} [data] */
  executionCancelled(data = {}) {
    return this._terminal("execution:cancelled", data);
  }

  // --- plan, phases, thoughts, text ---

  /** `phases` are {id, name}, or [id, name]. @param {{goal: string, phases: readonly (wire.Phase | [string, string])[]}} plan
   * @param {Speaker} [speaker] */
  planCreated(plan, speaker) {
    return this.emit("plan:created", { plan }, speaker);
  }

  /** @param {wire.PhaseStart} data @param {Speaker} [speaker] */
  phaseStart(data, speaker) {
    return this.emit("phase:start", data, speaker);
  }

  /** @param {wire.PhaseComplete} data @param {Speaker} [speaker] */
  phaseComplete(data, speaker) {
    return this.emit("phase:complete", data, speaker);
  }

  /** A whole thought. @param {wire.Thinking} data @param {Speaker} [speaker] */
  thinking(data, speaker) {
    return this.emit("thinking", data, speaker);
  }

  /** @param {wire.ThinkingDelta} data @param {Speaker} [speaker] */
  thinkingDelta(data, speaker) {
    return this.emit("thinking:delta", data, speaker);
  }

  /** @param {wire.MessageDelta} data @param {Speaker} [speaker] */
  messageDelta(data, speaker) {
    return this.emit("message:delta", data, speaker);
  }

  /** @param {wire.MessageComplete} data @param {Speaker} [speaker] */
  messageComplete(data, speaker) {
    return this.emit("message:complete", data, speaker);
  }

  /** Stream text: chunks of the current message, which `endText` or the end of the execution completes.
   * @param {string} chunk @param {Speaker} [speaker] @returns {Promise<void>} */
  text(chunk, speaker) {
    const whole = typeof chunk === "string" ? chunk : words(chunk);
    if (whole === "") return Promise.resolve();
    const messageId = (this.#messageId ??= this.newId("message"));
    let last = Promise.resolve();
    for (const delta of cutText(whole)) last = this.emit("message:delta", { messageId, delta }, speaker);
    return last;
  }

  /** Complete the current message, if there is one; the next `text` begins another. @returns {Promise<void>} */
  endText() {
    const messageId = this.#messageId;
    this.#messageId = null;
    return messageId === null ? Promise.resolve() : this.emit("message:complete", { messageId });
  }

  // --- tools ---

  /** @param {Optional<wire.ToolStart, "params">} data @param {Speaker} [speaker] */
  toolStart(data, speaker) {
    return this.emit("tool:start", { ...data, params: data?.params ?? {} }, speaker);
  }

  /** @param {wire.ToolProgress} data @param {Speaker} [speaker] */
  toolProgress(data, speaker) {
    return this.emit("tool:progress", data, speaker);
  }

  /** `duration` in seconds. @param {wire.ToolComplete} data @param {Speaker} [speaker] */
  toolComplete(data, speaker) {
    return this.emit("tool:complete", data, speaker);
  }

  /** `error` may be anything that was thrown. @param {Omit<wire.ToolError, "error"> & {error: unknown}} data
   * @param {Speaker} [speaker] */
  toolError(data, speaker) {
    const error = data?.error;
    return this.emit("tool:error", { ...data, error: typeof error === "string" ? error : describe(error) }, speaker);
  }

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
  async tool(name, params, fn, { callId = this.newId("call"), ...speaker } = {}) {
    const call = { callId, toolName: name };
    const began = Date.now();
    const seconds = () => (Date.now() - began) / 1000;
    await this.toolStart({ ...call, params }, speaker);
    /** @type {Awaited<T>} */
    let result;
    try {
      const progress = (/** @type {Omit<wire.ToolProgress, "callId">} */ data) =>
        this.toolProgress({ callId, ...data }, speaker);
      result = await fn({ callId, progress });
    } catch (error) {
      // A refusal of the log is no failure of the tool.
      if (!(error instanceof RuncastError) || error.name === "AbortError")
        await this.toolError({ ...call, error, duration: seconds() }, speaker).catch(() => {});
      throw error;
    }
    await this.toolComplete({ ...call, result: result ?? null, duration: seconds() }, speaker);
    return result;
  }

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
  async phase(id, name, fn, { index, ...speaker } = {}) {
    const began = Date.now();
    await this.phaseStart({ phaseId: id, phaseName: name || id, phaseIndex: index }, speaker);
    const result = await fn();
    await this.phaseComplete({ phaseId: id, phaseName: name || id, duration: (Date.now() - began) / 1000 }, speaker);
    return result;
  }

  // --- how it goes ---

  /** @param {wire.Status} data @param {Speaker} [speaker] */
  status(data, speaker) {
    return this.emit("status", data, speaker);
  }

  /** `progress` from 0 to 100. @param {wire.Progress} data @param {Speaker} [speaker] */
  progress(data, speaker) {
    return this.emit("progress", data, speaker);
  }

  /** @param {wire.SpecialistActivated} data @param {Speaker} [speaker] */
  specialistActivated(data, speaker) {
    return this.emit("specialist:activated", data, speaker);
  }

  /** @param {wire.SpecialistComplete} data @param {Speaker} [speaker] */
  specialistComplete(data, speaker) {
    return this.emit("specialist:complete", data, speaker);
  }

  /** @param {wire.PartialResult} data @param {Speaker} [speaker] */
  partialResult(data, speaker) {
    return this.emit("partial:result", data, speaker);
  }

  /** @param {Optional<wire.Synthesis, "specialistsComplete" | "specialistsPending">} data @param {Speaker} [speaker] */
  synthesis(data, speaker) {
    return this.emit("synthesis", { specialistsComplete: [], specialistsPending: [], ...data }, speaker);
  }

  /** A file or document, whole or (`append`, `last`) in chunks that share the id; one of `text`, `data` and `url`.
   * @param {wire.Artifact} data @param {Speaker} [speaker] */
  artifact(data, speaker) {
    return this.emit("artifact", data, speaker);
  }

  /**
   * Running totals of the execution; `totalTokens` is by default the sum. `add` is the usage of one more model call, as
   * its API reports it (the AI SDK, OpenAI, Anthropic): the event has the totals of all that was added so far.
   *
   * @param {Partial<wire.UsageTotals> & {add?: unknown}} data @param {Speaker} [speaker]
   */
  usage({ add, ...totals } = {}, speaker) {
    const given = usageOf(totals);
    const usage = add === undefined ? given : (this.#spent = plus(this.#spent, plus(usageOf(add), given)));
    return this.emit("usage", usage, speaker);
  }

  /** One ended call of a model; it is added to `usage`. Times in seconds. @param {wire.ModelCall} data
   * @param {Speaker} [speaker] */
  async modelCall(data, speaker) {
    await this.emit("model:call", data, speaker);
    await this.usage({ add: data }, speaker);
  }

  // --- people, limits ---

  /** A slow step was noticed. @param {wire.Timeout} data @param {Speaker} [speaker] */
  timeout(data, speaker) {
    return this.emit("timeout", data, speaker);
  }

  /** @param {wire.SandboxViolation} data @param {Speaker} [speaker] */
  sandboxViolation(data, speaker) {
    return this.emit("sandbox:violation", data, speaker);
  }
}

/**
 * @typedef {object} ToolCall a call that runs
 * @property {string} callId
 * @property {(data: {progress?: number, message?: string}) => Promise<void>} progress
 */

/** A text in chunks; none ends within a character. @param {string} whole @returns {Generator<string>} */
export function* cutText(whole, size = TEXT_CHUNK) {
  for (let start = 0; start < whole.length;) {
    let end = Math.min(start + size, whole.length);
    const last = whole.charCodeAt(end - 1);
    if (end < whole.length && end - start > 1 && last >= 0xd800 && last <= 0xdbff) end -= 1;
    yield whole.slice(start, end);
    start = end;
  }
}
