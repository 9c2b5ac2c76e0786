/**
 * The fold: makes an execution's state from its events, in order. Same rules as `broker/executions/fold.py`: the
 * state is the JSON that `GET /api/agent/executions/{id}` answers. Memory is bounded.
 */

/**
 * @import * as wire from "./events.js"
 * @import { ExecutionState } from "./events.js"
 */
import { Spending } from "./spending.js";
import { Items, Text } from "./undo.js";

export const MAX_THOUGHTS = 200;
export const MAX_TOOLS = 500;
export const MAX_MESSAGES = 200;
export const MAX_OTHERS = 200;

const CUSTOM = /^custom:[a-z0-9_.-]{1,64}$/;
const WITHOUT_EFFECT = new Set(["timeout", "sandbox:violation", "model:call"]);
/** Terminal event type → state after it. @type {Readonly<Record<string, wire.State>>} */
const TERMINAL_STATE_OF = Object.freeze({
  "execution:complete": "completed",
  "execution:error": "failed",
  "execution:cancelled": "cancelled",
});
/** The states after which no event follows. @type {ReadonlySet<wire.State>} */
export const TERMINAL_STATES = new Set(Object.values(TERMINAL_STATE_OF));

/** A part and its text, which are joined when the state is read. @template P */
class TextPart {
  /** @type {P | null} */
  #joined = null;

  /** @param {P} part @param {Text} text */
  constructor(part, text) {
    this.part = part;
    this.text = text;
  }

  /** @param {number} seq @param {string} chunk */
  add(seq, chunk) {
    this.#joined = null;
    this.text.add(seq, chunk);
  }

  /** @param {number} after */
  undo(after) {
    this.#joined = null;
    this.text.undo(after);
  }

  /** The part with its text; the same object until the text changes. @param {(part: P, text: Text) => P} put */
  joined(put) {
    this.#joined ??= Object.freeze(put(this.part, this.text));
    return this.#joined;
  }
}

/** `apply` takes the events in order; `state()` is the state after them. */
export class Fold {
  /** Handlers by event type. @type {Readonly<Record<string, (fold: Fold, seq: number, data: any) => void>>} */
  static #handlers = Object.freeze({
    "execution:queued": (fold, seq, data) => fold.#queued(seq, data),
    "execution:started": (fold, seq, data) => fold.#started(seq, data),
    "execution:superseded": (fold, seq, data) => fold.#superseded(seq, data),
    "plan:created": (fold, seq, data) => fold.#fact(seq, "plan", planOf(data.plan)),
    "phase:start": (fold, seq, data) => fold.#phaseStart(seq, data),
    "phase:complete": (fold, seq, data) => fold.#phaseComplete(seq, data),
    thinking: (fold, seq, data) => fold.#thinking(seq, data),
    "thinking:delta": (fold, seq, data) => fold.#thinkingDelta(seq, data),
    "message:delta": (fold, seq, data) => fold.#messageDelta(seq, data),
    "message:complete": (fold, seq, data) => fold.#messageComplete(seq, data),
    "tool:start": (fold, seq, data) => fold.#toolStart(seq, data),
    "tool:progress": (fold, seq, data) => fold.#toolProgress(seq, data),
    "tool:complete": (fold, seq, data) => fold.#toolComplete(seq, data),
    "tool:error": (fold, seq, data) => fold.#toolError(seq, data),
    status: (fold, seq, data) => fold.#fact(seq, "activity", { status: data.status, message: data.message }),
    progress: (fold, seq, data) => fold.#progress(seq, data),
    "specialist:activated": (fold, seq, data) => fold.#specialistActivated(seq, data),
    "specialist:complete": (fold, seq, data) => fold.#specialistComplete(seq, data),
    "partial:result": (fold, seq, data) => fold.#partialResult(seq, data),
    synthesis: (fold, seq, data) => fold.#fact(seq, "synthesis", synthesisOf(data)),
    artifact: (fold, seq, data) => fold.#artifact(seq, data),
    usage: (fold, seq, data) => fold.#usage(seq, data),
    "child:started": (fold, seq, data) => fold.#childStarted(seq, data),
    "child:ended": (fold, seq, data) => fold.#childEnded(seq, data),
    budget: (fold, seq, data) => fold.#spending.reached(data),
    "input:required": (fold, seq, data) => fold.#inputRequired(seq, data),
    "input:received": (fold, seq, data) => fold.#inputReceived(seq, data),
    "user:message": (fold, seq, data) => fold.#userMessage(seq, data),
    "user:message:taken": (fold, seq, data) => fold.#userMessagesTaken(seq, data),
    "user:message:dropped": (fold, seq, data) => fold.#userMessageDropped(seq, data),
  });

  #executionId;
  #cursor = "0-0";
  #seq = 0;
  /** @type {wire.State | null} */
  #status = null;
  /** @type {string | null} */
  #task = null;
  /** @type {string | null} */
  #agent = null;
  #attempt = 1;
  #spending = new Spending();
  /** The call whose sub-agent emitted the current event. @type {string | null} */
  #parentId = null;
  /** @type {Partial<ExecutionState> | null} */
  #end = null;
  /** @type {Items<any>} */
  #facts = new Items(MAX_OTHERS);
  /** @type {Items<wire.PhaseState>} */
  #phases = new Items(MAX_OTHERS);
  /** @type {Items<wire.ToolState>} */
  #tools = new Items(MAX_TOOLS);
  /** @type {Items<TextPart<wire.ThoughtState>>} */
  #thoughts = new Items(MAX_THOUGHTS);
  /** @type {Items<TextPart<wire.MessageState>>} */
  #messages = new Items(MAX_MESSAGES);
  /** @type {Items<wire.SpecialistState>} */
  #specialists = new Items(MAX_OTHERS);
  /** @type {Items<wire.PartialState>} */
  #partials = new Items(MAX_OTHERS);
  /** @type {Items<wire.ChildState>} */
  #children = new Items(MAX_OTHERS);
  /** What the children that have ended used. @type {wire.Usage | null} */
  #childrenUsage = null;
  /** What the execution itself used, by one name. @type {Items<wire.Usage>} */
  #ownUsage = new Items(1);
  /** @type {Items<TextPart<wire.ArtifactState>>} */
  #artifacts = new Items(MAX_OTHERS);
  /** Inputs; null if answered. @type {Items<{id: string, input: wire.InputRequired | null}>} */
  #inputs = new Items(MAX_OTHERS);
  /** @type {Items<wire.UserMessageState>} */
  #userMessages = new Items(MAX_OTHERS);
  /** When the current event was emitted. */
  #ts = 0;
  /** @type {ExecutionState | null} */
  #state = null;

  /** @param {string} [executionId] */
  constructor(executionId = "") {
    this.#executionId = executionId;
  }

  /**
   * Apply the next event. A repeated one changes nothing; one of an unknown type only moves the cursor. Returns whether
   * the state may have changed.
   * @param {wire.StreamEvent} event
   */
  apply(event) {
    const seq = Number(event.id.slice(event.id.indexOf("-") + 1));
    if (!(seq > this.#seq)) return false;
    this.#state = null;
    this.#seq = seq;
    this.#cursor = event.id;
    const type = event.type;
    const handler = Fold.#handlers[type];
    const end = TERMINAL_STATE_OF[type];
    if (handler === undefined && end === undefined && !WITHOUT_EFFECT.has(type) && !CUSTOM.test(type)) return true;
    this.#executionId = event.executionId;
    this.#status ??= "running"; // a trimmed log begins without execution:queued
    const data = /** @type {any} */ (event.data ?? {});
    if (end !== undefined) this.#finish(seq, end, event.ts, type, data);
    else {
      this.#parentId = event.agent !== undefined && event.parentId !== undefined ? event.parentId : null;
      this.#ts = event.ts;
      handler?.(this, seq, data);
    }
    return true;
  }

  /** Whether no event has been applied. */
  get isEmpty() {
    return this.#status === null;
  }

  /** @returns {ExecutionState} */
  state() {
    this.#state ??= Object.freeze(this.#build());
    return this.#state;
  }

  /** @returns {ExecutionState} */
  #build() {
    const messages = joinedAll(this.#messages, withText);
    return {
      executionId: this.#executionId,
      status: this.#status ?? "queued",
      cursor: this.#cursor,
      task: this.#task,
      agent: this.#agent,
      params: null,
      attempt: this.#attempt,
      startedAt: this.#facts.get("startedAt"),
      endedAt: null,
      duration: null,
      activity: this.#facts.get("activity"),
      progress: this.#facts.get("progress"),
      plan: this.#facts.get("plan"),
      phases: this.#allPhases(),
      tools: this.#tools.values(),
      thinking: joinedAll(this.#thoughts, withThought),
      messages,
      text: messages.map((message) => (message.parentId === null ? message.text : "")).join(""),
      specialists: this.#specialists.values(),
      synthesis: this.#facts.get("synthesis"),
      partialResults: this.#partials.values(),
      artifacts: joinedAll(this.#artifacts, (part, text) => (part.text === null ? part : withText(part, text))),
      children: this.#children.values(),
      usage: this.#facts.get("usage"),
      budget: this.#spending.state(),
      openInputs: this.#end === null ? this.#openInputs() : [],
      userMessages: this.#userMessages.values(),
      result: null,
      error: null,
      cancelled: null,
      ...this.#end,
    };
  }

  // the execution as a whole

  /** @param {number} _seq @param {wire.ExecutionQueued} data */
  #queued(_seq, data) {
    this.#status = "queued";
    this.#task = data.task;
    this.#agent = data.agent;
    this.#spending.queued(data);
  }

  /** @param {number} seq @param {wire.ExecutionStarted} data */
  #started(seq, data) {
    this.#status = "running";
    this.#task = data.task;
    this.#attempt = data.attempt;
    this.#facts.set(seq, "startedAt", data.startedAt);
    this.#spending.started(data);
  }

  /** @param {number} seq @param {wire.ExecutionSuperseded} data */
  #superseded(seq, data) {
    this.#attempt = data.attempt;
    this.#spending.ended(this.#ts);
    const plain = [this.#facts, this.#phases, this.#tools, this.#specialists, this.#partials];
    for (const items of plain) items.undo(data.fromSeq);
    const answered = this.#inputs.values().filter(({ input }) => input === null);
    this.#inputs.undo(data.fromSeq);
    for (const each of answered)
      // answers stay valid for the next attempt
      if (this.#inputs.get(each.id)?.input !== null) this.#inputs.set(seq, each.id, each);
    for (const items of [this.#thoughts, this.#messages, this.#artifacts]) {
      items.undo(data.fromSeq);
      for (const part of items.values()) part.undo(data.fromSeq);
    }
    for (const message of this.#userMessages.values()) // the next attempt takes them again
      if (message.state === "taken") this.#setUserMessage(seq, { ...message, state: "queued" });
    this.#ownUsage.undo(data.fromSeq);
    if (this.#childrenUsage !== null) this.#setTotal(seq);
    this.#status = "queued"; // until a worker starts the next attempt
  }

  /** @param {number} seq @param {wire.State} status @param {number} ts @param {string} type @param {any} data */
  #finish(seq, status, ts, type, data) {
    this.#status = status;
    this.#end = { endedAt: ts };
    this.#spending.ended(ts);
    if (type === "execution:complete")
      Object.assign(this.#end, { result: data.result ?? null, duration: data.duration });
    else if (type === "execution:error") this.#end.error = { error: data.error, code: data.code ?? null, stack: null };
    else this.#end.cancelled = { reason: data.reason ?? null, by: data.by ?? null };
    this.#close(seq);
  }

  /** After the terminal event every part that has not ended is interrupted. @param {number} seq */
  #close(seq) {
    const status = /** @type {const} */ ("interrupted");
    for (const phase of this.#phases.values())
      if (phase.status === "running") this.#phases.set(seq, phase.id, Object.freeze({ ...phase, status }));
    for (const tool of this.#tools.values()) if (tool.status === "running") this.#setTool(seq, { ...tool, status });
    for (const each of this.#specialists.values())
      if (each.status === "active") this.#setSpecialist(seq, { ...each, status });
    for (const message of this.#userMessages.values())
      if (message.state === "queued") this.#setUserMessage(seq, { ...message, state: "dropped", reason: "ended" });
    for (const child of this.#children.values())
      if (child.status === "running") this.#setChild(seq, { ...child, status: child.detached ? "detached" : status });
    this.#closeTexts(seq);
  }

  /** After a success, messages and artifacts without an end count as complete.
   * @param {number} seq */
  #closeTexts(seq) {
    const outcome = this.#status === "completed" ? { complete: true } : { interrupted: true };
    for (const { part, text } of this.#messages.values())
      if (!part.complete) this.#messages.set(seq, part.messageId, new TextPart({ ...part, ...outcome }, text));
    for (const { part, text } of this.#artifacts.values())
      if (!part.complete) this.#artifacts.set(seq, part.artifactId, new TextPart({ ...part, ...outcome }, text));
  }

  /** @param {number} seq @param {string} name @param {unknown} value */
  #fact(seq, name, value) {
    this.#facts.set(seq, name, value);
  }

  // what people say

  /** @param {number} seq @param {wire.UserMessage} data */
  #userMessage(seq, data) {
    const { messageId, by, mode, text = null, data: value = null } = data;
    const message = { messageId, by, mode, text, data: value, sentAt: this.#ts, reason: null };
    this.#setUserMessage(seq, { ...message, state: "queued" });
  }

  /** @param {number} seq @param {wire.UserMessageTaken} data */
  #userMessagesTaken(seq, data) {
    for (const messageId of data.messageIds) {
      const message = this.#userMessages.get(messageId);
      if (message !== null) this.#setUserMessage(seq, { ...message, state: "taken" });
    }
  }

  /** @param {number} seq @param {wire.UserMessageDropped} data */
  #userMessageDropped(seq, data) {
    const message = this.#userMessages.get(data.messageId);
    if (message !== null) this.#setUserMessage(seq, { ...message, state: "dropped", reason: data.reason });
  }

  /** @param {number} seq @param {wire.UserMessageState} message */
  #setUserMessage(seq, message) {
    this.#userMessages.set(seq, message.messageId, Object.freeze(message));
  }

  // plan and phases

  /** @param {number} seq @param {wire.PhaseStart} data */
  #phaseStart(seq, data) {
    const phase = { id: data.phaseId, name: data.phaseName, index: data.phaseIndex ?? null, duration: null };
    this.#phases.set(seq, data.phaseId, Object.freeze({ ...phase, status: "running" }));
  }

  /** @param {number} seq @param {wire.PhaseComplete} data */
  #phaseComplete(seq, data) {
    const index = this.#phases.get(data.phaseId)?.index ?? null;
    const phase = { id: data.phaseId, name: data.phaseName, index, duration: data.duration ?? null };
    this.#phases.set(seq, data.phaseId, Object.freeze({ ...phase, status: "complete" }));
  }

  /** The phases of the plan in its order, started or not; then phases that are not in the plan.
   * @returns {wire.PhaseState[]} */
  #allPhases() {
    const seen = new Map(this.#phases.values().map((phase) => [phase.id, phase]));
    const plan = /** @type {wire.Plan | null} */ (this.#facts.get("plan"));
    const planned = (plan?.phases ?? []).map(({ id, name }, index) => {
      const phase = seen.get(id);
      seen.delete(id);
      return phase ?? { id, name, status: /** @type {const} */ ("pending"), index, duration: null };
    });
    return [...planned, ...seen.values()];
  }

  // thinking and text

  /** @param {number} seq @param {wire.Thinking} data */
  #thinking(seq, data) {
    const text = new Text();
    text.add(seq, data.thought);
    const thought = thoughtPart({ iteration: data.iteration ?? null, visible: data.visible ?? true });
    this.#thoughts.set(seq, `#${seq}`, new TextPart(thought, text));
  }

  /** @param {number} seq @param {wire.ThinkingDelta} data */
  #thinkingDelta(seq, data) {
    const known = this.#thoughts.get(data.messageId);
    if (known !== null) return known.add(seq, data.delta);
    const part = new TextPart(thoughtPart({ messageId: data.messageId }), new Text());
    part.add(seq, data.delta);
    this.#thoughts.set(seq, data.messageId, part);
  }

  /** @param {number} seq @param {wire.MessageDelta} data */
  #messageDelta(seq, data) {
    const known = this.#messages.get(data.messageId);
    if (known !== null) return known.add(seq, data.delta);
    const part = new TextPart(messagePart({ messageId: data.messageId, parentId: this.#parentId }), new Text());
    part.add(seq, data.delta);
    this.#messages.set(seq, data.messageId, part);
  }

  /** A text in the completion replaces the text of the deltas. @param {number} seq
   * @param {wire.MessageComplete} data */
  #messageComplete(seq, data) {
    let text = this.#messages.get(data.messageId)?.text ?? new Text();
    if (typeof data.text === "string" && data.text !== text.toString()) {
      text = new Text();
      text.add(seq, data.text);
    }
    const usage = data.usage ? usageOf(data.usage) : null;
    const message = messagePart({ messageId: data.messageId, complete: true, usage, parentId: this.#parentId });
    this.#messages.set(seq, data.messageId, new TextPart(message, text));
  }

  /** @param {number} seq @param {wire.Artifact} data */
  #artifact(seq, data) {
    const known = data.append ? this.#artifacts.get(data.artifactId) : null;
    const text = known?.text ?? new Text();
    text.add(seq, data.text ?? "");
    const before = known?.part ?? null;
    const hasText = typeof data.text === "string" || typeof before?.text === "string";
    const artifact = {
      artifactId: data.artifactId,
      mediaType: data.mediaType,
      name: data.name || (before?.name ?? null),
      text: hasText ? "" : null,
      data: data.data ?? before?.data ?? null,
      url: data.url || (before?.url ?? null),
      complete: data.last ?? false,
      interrupted: false,
      truncated: false,
    };
    this.#artifacts.set(seq, data.artifactId, new TextPart(artifact, text));
  }

  // tools

  /** @param {number} seq @param {wire.ToolStart} data */
  #toolStart(seq, data) {
    this.#spending.called();
    this.#setTool(seq, { ...toolPart(data), params: data.params ?? null });
  }

  /** @param {number} seq @param {wire.ToolProgress} data */
  #toolProgress(seq, data) {
    const tool = this.#tools.get(data.callId);
    if (tool === null) return;
    const message = data.message || tool.message;
    this.#setTool(seq, { ...tool, progress: data.progress ?? tool.progress, message });
  }

  /** @param {number} seq @param {wire.ToolComplete} data */
  #toolComplete(seq, data) {
    const end = { status: /** @type {const} */ ("complete"), result: data.result ?? null, duration: data.duration };
    this.#setTool(seq, { ...this.#begun(data), ...end });
  }

  /** @param {number} seq @param {wire.ToolError} data */
  #toolError(seq, data) {
    const end = { status: /** @type {const} */ ("error"), error: data.error, duration: data.duration };
    this.#setTool(seq, { ...this.#begun(data), ...end });
  }

  /** The call that ended; its start may have been trimmed from the log.
   * @param {wire.ToolComplete | wire.ToolError} data */
  #begun(data) {
    return this.#tools.get(data.callId) ?? toolPart(data);
  }

  /** @param {number} seq @param {wire.ToolState} tool */
  #setTool(seq, tool) {
    this.#tools.set(seq, tool.callId, Object.freeze(tool));
  }

  // progress, specialists, results, inputs

  /** Progress with a specialist belongs to that specialist; other progress to the execution. @param {number} seq
   * @param {wire.Progress} data */
  #progress(seq, data) {
    const progress = { progress: data.progress, currentAction: data.currentAction ?? null };
    const known = typeof data.specialist === "string" ? this.#specialists.get(data.specialist) : null;
    if (known !== null) return this.#setSpecialist(seq, { ...known, ...progress });
    this.#fact(seq, "progress", { ...progress, specialist: data.specialist ?? null });
  }

  /** @param {number} seq @param {wire.SpecialistActivated} data */
  #specialistActivated(seq, data) {
    const specialist = specialistPart(data.specialist);
    this.#setSpecialist(seq, { ...specialist, task: data.task ?? null, icon: data.icon ?? null });
  }

  /** @param {number} seq @param {wire.SpecialistComplete} data */
  #specialistComplete(seq, data) {
    const begun = this.#specialists.get(data.specialist) ?? specialistPart(data.specialist);
    this.#setSpecialist(seq, { ...begun, status: "complete", summary: data.summary ?? null });
  }

  /** @param {number} seq @param {wire.SpecialistState} specialist */
  #setSpecialist(seq, specialist) {
    this.#specialists.set(seq, specialist.specialist, Object.freeze(specialist));
  }

  /** @param {number} seq @param {wire.PartialResult} data */
  #partialResult(seq, data) {
    const partial = { result: data.result ?? null, specialist: data.specialist ?? null };
    this.#partials.set(seq, `#${seq}`, Object.freeze(partial));
  }

  /** No attempt of this execution voids its children. @param {number} seq @param {wire.ChildStarted} data */
  #childStarted(seq, data) {
    if (this.#children.get(data.executionId) !== null) return;
    const { executionId, agent, task, detached = false } = data;
    this.#setChild(seq, { ...childPart(executionId), agent, task, key: data.key ?? null, detached });
  }

  /** @param {number} seq @param {wire.ChildEnded} data */
  #childEnded(seq, { executionId, state: status, summary, usage: used }) {
    const known = this.#children.get(executionId) ?? childPart(executionId);
    if (known.status !== "running") return;
    const usage = used ? usageOf(used) : null;
    this.#setChild(seq, { ...known, status, summary: summary ?? null, usage });
    if (usage === null) return;
    this.#childrenUsage = addUsage(this.#childrenUsage, usage);
    this.#setTotal(seq);
  }

  /** @param {number} seq @param {wire.ChildState} child */
  #setChild(seq, child) {
    this.#children.set(seq, child.executionId, Object.freeze(child));
  }

  /** @param {number} seq @param {wire.Usage} data */
  #usage(seq, data) {
    this.#ownUsage.set(seq, "usage", usageOf(data));
    this.#setTotal(seq);
    this.#spending.used(data);
  }

  /** The usage of the execution and its children. @param {number} seq */
  #setTotal(seq) {
    const own = this.#ownUsage.get("usage");
    const total = this.#childrenUsage === null ? own : addUsage(own, this.#childrenUsage);
    if (total !== null) this.#fact(seq, "usage", total);
  }

  /** @param {number} seq @param {wire.InputRequired} data */
  #inputRequired(seq, data) {
    const known = this.#inputs.get(data.inputId);
    if (known !== null && known.input === null) return; // answered before; this is a repetition by a later attempt
    this.#inputs.set(seq, data.inputId, { id: data.inputId, input: Object.freeze(inputOf(data)) });
    this.#status = "waiting_input";
  }

  /** @param {number} seq @param {wire.InputReceived} data */
  #inputReceived(seq, data) {
    this.#inputs.set(seq, data.inputId, { id: data.inputId, input: null });
    if (this.#status === "waiting_input" && this.#openInputs().length === 0) this.#status = "running";
  }

  /** @returns {wire.InputRequired[]} */
  #openInputs() {
    return this.#inputs.values().flatMap(({ input }) => (input === null ? [] : [input]));
  }
}

// parts, with the fields that the server writes: optional ones only if they are set

/** @template P @param {Items<TextPart<P>>} items @param {(part: P, text: Text) => P} put */
function joinedAll(items, put) {
  return items.values().map((part) => part.joined(put));
}

/** @template {{text: string | null, truncated: boolean}} P @param {P} part @param {Text} text @returns {P} */
function withText(part, text) {
  return { ...part, text: text.toString(), truncated: text.truncated };
}

/** @param {wire.ThoughtState} part @param {Text} text @returns {wire.ThoughtState} */
function withThought(part, text) {
  return { ...part, thought: text.toString(), truncated: text.truncated };
}

/** @param {Partial<wire.ThoughtState>} fields @returns {wire.ThoughtState} */
function thoughtPart(fields) {
  return { thought: "", messageId: null, iteration: null, visible: true, truncated: false, ...fields };
}

/** @param {Partial<wire.MessageState> & {messageId: string}} fields @returns {wire.MessageState} */
function messagePart(fields) {
  return { text: "", complete: false, interrupted: false, usage: null, truncated: false, parentId: null, ...fields };
}

/** @param {{callId: string, toolName: string}} data @returns {wire.ToolState} */
function toolPart({ callId, toolName }) {
  const rest = { params: null, result: null, error: null, duration: null, progress: null, message: null };
  return { callId, toolName, status: "running", ...rest };
}

/** @param {string} specialist @returns {wire.SpecialistState} */
function specialistPart(specialist) {
  const rest = { task: null, icon: null, summary: null, progress: null, currentAction: null };
  return { specialist, status: "active", ...rest };
}

/** @param {string} executionId @returns {wire.ChildState} */
function childPart(executionId) {
  const rest = { agent: null, task: null, key: null, detached: false, summary: null, usage: null };
  return { executionId, status: "running", ...rest };
}

/** The sum of two; of costs and models what is known. @param {wire.Usage | null} one @param {wire.Usage} other
 * @returns {wire.Usage} */
function addUsage(one, other) {
  if (one === null) return other;
  const sum = (/** @type {"inputTokens" | "outputTokens" | "totalTokens"} */ name) =>
    Math.min(one[name] + other[name], Number.MAX_SAFE_INTEGER);
  const costs = [one.costUsd, other.costUsd].flatMap((cost) => cost ?? []);
  const costUsd = costs.length > 0 ? costs.reduce((total, cost) => total + cost, 0) : undefined;
  const models = new Set([one.model, other.model].flatMap((model) => model ?? []));
  const model = models.size === 1 ? [...models][0] : undefined;
  const tokens = { inputTokens: sum("inputTokens"), outputTokens: sum("outputTokens"), totalTokens: sum("totalTokens") };
  return { ...tokens, ...fieldsSet({ costUsd, model }) };
}

/** @param {wire.Plan} plan @returns {wire.Plan} */
function planOf(plan) {
  return { goal: plan.goal, phases: plan.phases.map(({ id, name }) => ({ id, name })) };
}

/** @param {wire.Usage} data @returns {wire.Usage} */
function usageOf({ inputTokens, outputTokens, totalTokens, costUsd, model }) {
  return { inputTokens, outputTokens, totalTokens, ...fieldsSet({ costUsd, model }) };
}

/** @param {wire.Synthesis} data @returns {wire.Synthesis} */
function synthesisOf({ message, specialistsComplete, specialistsPending }) {
  return { message, specialistsComplete, specialistsPending };
}

/** @param {wire.InputRequired} data @returns {wire.InputRequired} */
function inputOf({ inputId, prompt, kind, options, schema, expiresAt }) {
  return { inputId, prompt, kind, ...fieldsSet({ options, schema, expiresAt }) };
}

/** Fields that are neither undefined nor null. @template {object} T @param {T} fields @returns {Partial<T>} */
function fieldsSet(fields) {
  const entries = Object.entries(fields).filter(([, value]) => value !== undefined && value !== null);
  return /** @type {Partial<T>} */ (Object.fromEntries(entries));
}
