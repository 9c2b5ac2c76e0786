/** Handlers of events for the story: each adds an item or changes one. */

import { BUDGET_LABELS, amount } from "./format.js";
import { settle, streamed } from "./streamed-text.js";

/** The handler of an event type; null if the story does not show it. */
export function handlerOf(type) {
  return NOT_IN_STORY.has(type) ? null : (HANDLERS[type] ?? other);
}

/** Totals, which the head of the page shows. */
const NOT_IN_STORY = new Set(["usage"]);

/** Kinds of items that a lost attempt leaves as they are. */
const LASTING = new Set(["attempt", "child", "said"]);

/** A value that should be a text, as a text. */
export const textOf = (value) => (typeof value === "string" ? value : (JSON.stringify(value) ?? ""));

/** Handlers by event type; `this` is the story. */
const HANDLERS = {
  "execution:queued"(event, data) {
    this.agent = data.agent ?? null;
    const detail = data.agent ? `for ${data.agent}` : "";
    waits(this, event, this.add("mark", event, { mark: "queued", title: "Queued", detail }));
  },

  "execution:started"(event, data) {
    this.attempt = data.attempt ?? this.attempt;
    this.agent ??= event.agent ?? null;
    waits(this, event, null);
    const title = this.attempt > 1 ? `Attempt ${this.attempt} started` : "Started";
    this.add("mark", event, { mark: "started", title, detail: "" });
  },

  "execution:superseded"(event, data) {
    const lost = this.items.filter((item) => item.seq > data.fromSeq && !item.isVoid && !LASTING.has(item.kind));
    for (const item of lost) {
      Object.assign(item, { isVoid: true, voidedAt: event.ts });
      this.changed.add(item);
    }
    for (const item of this.said.values())
      if (item.state === "taken") {
        item.state = "queued"; // the next attempt takes it again
        this.touch(item);
      }
    this.startAttempt();
    this.attemptEnds.set(this.attempt, event.ts);
    const fields = { lost: this.attempt, next: data.attempt, count: lost.length };
    waits(this, event, this.add("attempt", event, fields));
    this.attempt = data.attempt;
  },

  "plan:created"(event, data) {
    this.add("plan", event, { goal: textOf(data.plan?.goal ?? ""), phases: data.plan?.phases ?? [] });
  },

  "phase:start"(event, data) {
    this.phase = data.phaseId;
    const item = this.add("phase", event, {
      phaseId: data.phaseId,
      name: textOf(data.phaseName),
      status: "running",
      duration: null,
    });
    this.index(this.phases, data.phaseId, item);
  },

  "phase:complete"(event, data) {
    const item = this.phases.get(data.phaseId);
    if (this.phase === data.phaseId) this.phase = null;
    if (!item) return;
    Object.assign(item, { status: "complete", duration: data.duration ?? (event.ts - item.at) / 1000 });
    item.endedAt = event.ts;
    this.touch(item);
  },

  thinking(event, data) {
    if (data.visible === false) return;
    this.add("thought", event, { text: textOf(data.thought) });
  },

  "thinking:delta"(event, data) {
    streamed(this, "thought", event, data);
  },

  "message:delta"(event, data) {
    streamed(this, "text", event, data);
  },

  "message:complete"(event, data) {
    const known = this.texts.get(`text ${data.messageId}`);
    if (!known && !data.text) return;
    const item = known ?? this.add("text", event, { text: "" });
    if (typeof data.text === "string") settle(this, item, data.text);
    Object.assign(item, { isComplete: true, usage: data.usage ?? null });
    this.grow(item);
  },

  "tool:start"(event, data) {
    const fields = {
      name: textOf(data.toolName),
      params: data.params,
      status: "running",
      progress: null,
      message: null,
    };
    this.index(this.calls, data.callId, this.add("tool", event, fields));
  },

  "tool:progress"(event, data) {
    const item = this.calls.get(data.callId);
    if (!item) return;
    item.progress = data.progress ?? item.progress;
    item.message = data.message ?? item.message;
    this.touch(item);
  },

  "tool:complete"(event, data) {
    const item = callOf(this, event, data);
    Object.assign(item, { status: "complete", result: data.result, duration: data.duration, endedAt: event.ts });
    this.grow(item);
  },

  "tool:error"(event, data) {
    const item = callOf(this, event, data);
    Object.assign(item, { status: "error", error: textOf(data.error), duration: data.duration, endedAt: event.ts });
    this.grow(item);
  },

  status(event, data) {
    const activity = textOf(data.message || data.status);
    if (this.activity === activity) return;
    this.activity = activity;
    this.add("note", event, { tone: "plain", title: activity, detail: "" });
  },

  progress(event, data) {
    const member = this.team?.members.get(data.specialist);
    if (!member) return;
    Object.assign(member, { progress: data.progress, action: data.currentAction ?? member.action });
    this.touch(this.team);
  },

  "specialist:activated"(event, data) {
    const isOver = this.team && [...this.team.members.values()].every((member) => member.status === "complete");
    if (!this.team || isOver) this.team = this.add("team", event, { members: new Map(), synthesis: null });
    this.team.members.set(data.specialist, newMember(data, event));
    this.touch(this.team);
  },

  "specialist:complete"(event, data) {
    const member = this.team?.members.get(data.specialist);
    if (!member) return;
    Object.assign(member, { status: "complete", summary: data.summary ?? null, endedAt: event.ts });
    this.touch(this.team);
  },

  "partial:result"(event, data) {
    this.add("result", event, { value: data.result, specialist: data.specialist ?? null });
  },

  synthesis(event, data) {
    if (this.team) {
      this.team.synthesis = data;
      this.touch(this.team);
    } else {
      this.add("note", event, { tone: "plain", title: textOf(data.message), detail: "" });
    }
  },

  artifact(event, data) {
    const known = this.texts.get(`artifact ${data.artifactId}`);
    if (known && data.append) {
      known.text = (known.text ?? "") + (data.text ?? "");
      Object.assign(known, {
        data: data.data ?? known.data,
        url: data.url ?? known.url,
        isComplete: data.last === true,
      });
      this.grow(known);
      return;
    }
    const { artifactId, name = null, mediaType, url = null } = data;
    const fields = {
      artifactId,
      name,
      mediaType,
      url,
      text: data.text ?? null,
      data: data.data,
      isComplete: data.last === true,
    };
    this.index(this.texts, `artifact ${artifactId}`, this.add("artifact", event, fields));
  },

  "input:required"(event, data) {
    const { inputId, prompt, kind, options = null, expiresAt = null } = data;
    const fields = { inputId, prompt: textOf(prompt), form: kind, options, expiresAt, answer: null };
    this.index(this.inputs, inputId, this.add("input", event, fields));
  },

  "input:received"(event, data) {
    const item = this.inputs.get(data.inputId);
    if (!item) return;
    item.answer = { by: data.by, value: data.value, declined: data.declined === true, at: event.ts };
    this.grow(item);
  },

  "user:message"(event, data) {
    const fields = { by: textOf(data.by), mode: data.mode, text: data.text ?? null, value: data.data, state: "queued" };
    this.index(this.said, data.messageId, this.add("said", { ...event, agent: undefined }, fields));
  },

  "user:message:taken"(event, data) {
    for (const id of data.messageIds ?? []) stated(this, id, "taken");
  },

  "user:message:dropped"(event, data) {
    stated(this, data.messageId, data.reason === "withdrawn" ? "withdrawn" : "ended");
  },

  "child:started"(event, data) {
    const { executionId, agent, key = null, detached = false } = data;
    const fields = { executionId, agent, task: textOf(data.task), childKey: key, detached, status: "running" };
    this.index(this.children, executionId, this.add("child", event, { ...fields, summary: null, usage: null }));
  },

  "child:ended"(event, data) {
    const { executionId } = data;
    const begun = { executionId, agent: null, task: "", childKey: null, detached: false };
    const item = this.children.get(executionId) ?? this.add("child", event, begun);
    const usage = data.usage ?? null;
    Object.assign(item, { status: data.state, summary: data.summary ?? null, usage, endedAt: event.ts });
    this.touch(item);
  },

  timeout(event, data) {
    const stops = data.action === "stopping";
    const detail = stops ? "The execution stops." : "The execution goes on.";
    this.add("note", event, { tone: stops ? "bad" : "warn", label: "Slow step", title: textOf(data.message), detail });
  },

  budget(event, data) {
    const stops = data.action === "stopping";
    const detail = stops ? "The execution stops." : "The execution goes on.";
    const spent = `${amount(data.limit, data.spent)} of ${amount(data.limit, data.max)}`;
    const title = `${BUDGET_LABELS[data.limit] ?? textOf(data.limit)}: ${spent}`;
    this.add("note", event, { tone: stops ? "bad" : "warn", label: "Budget", title, detail });
  },

  "model:call"(event, data) {
    const tokens = `${data.inputTokens} tokens in, ${data.outputTokens} out, ${data.duration} s`;
    const detail = data.error ? `${textOf(data.error)} (${tokens})` : tokens;
    this.add("note", event, {
      tone: data.error ? "bad" : "plain",
      label: "Model call",
      title: textOf(data.model),
      detail,
      seconds: data.duration,
    });
  },

  "sandbox:violation"(event, data) {
    const fields = { tone: "bad", label: "Sandbox violation", title: textOf(data.rule), detail: textOf(data.detail) };
    this.add("note", event, fields);
  },

  "execution:complete"(event, data) {
    end(this, event, { state: "completed", result: data.result, duration: data.duration });
  },

  "execution:error"(event, data) {
    end(this, event, { state: "failed", error: textOf(data.error), code: data.code ?? null });
  },

  "execution:cancelled"(event, data) {
    end(this, event, { state: "cancelled", reason: data.reason ?? null, by: data.by ?? null });
  },
};

/** A type without a handler of its own: a plug-in's, or a newer edge's. */
function other(event, data) {
  this.add("custom", event, { name: event.type.replace(/^custom:/, ""), value: data });
}

/** A wait for a worker begins with an item, or ends. */
function waits(story, event, item) {
  const last = story.waits.at(-1);
  if (last && last.until === null) last.until = event.ts;
  if (item) story.waits.push({ from: event.ts, until: null, key: item.key });
}

/** A person's message is in another state. */
function stated(story, id, state) {
  const item = story.said.get(id);
  if (!item) return;
  item.state = state;
  story.touch(item);
}

/** The call that ended; its start may have been trimmed from the log. */
function callOf(story, event, data) {
  const known = story.calls.get(data.callId);
  story.calls.delete(data.callId);
  return (
    known ??
    story.add("tool", event, {
      name: textOf(data.toolName),
      params: undefined,
      status: "running",
      progress: null,
      message: null,
    })
  );
}

function newMember(data, event) {
  const { specialist, task = null, icon = null } = data;
  return {
    name: specialist,
    task,
    icon,
    status: "active",
    progress: null,
    action: null,
    summary: null,
    at: event.ts,
    endedAt: null,
    steps: [],
  };
}

/** The terminal event: parts that have not ended are interrupted, as in the folded state. */
function end(story, event, fields) {
  story.state = fields.state;
  story.endedAt = event.ts;
  waits(story, event, null);
  for (const item of story.calls.values()) {
    if (item.status === "running") item.status = "interrupted";
    story.touch(item);
  }
  for (const member of story.team?.members.values() ?? [])
    if (member.status === "active") Object.assign(member, { status: "interrupted", endedAt: event.ts });
  for (const item of story.phases.values()) {
    if (item.status === "running") item.status = "interrupted";
    story.touch(item);
  }
  for (const item of story.children.values()) {
    if (item.status === "running") item.status = item.detached ? "detached" : "interrupted";
    story.touch(item);
  }
  if (story.team) story.touch(story.team);
  for (const item of story.inputs.values()) story.touch(item);
  story.add("end", event, { ...fields, at: event.ts, total: event.ts - (story.startedAt ?? event.ts) });
}
