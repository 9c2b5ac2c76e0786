/** What each event does to a chronicle: the item it adds, the item it changes, or nothing. */

/** What an event of this type does to the story, or null for nothing. */
export function handlerOf(type) {
  return NOT_IN_STORY.has(type) ? null : (HANDLERS[type] ?? other);
}

/** Totals, which the head of the page shows. */
const NOT_IN_STORY = new Set(["usage"]);

/** Whatever stands where a text should. */
export const text = (value) => (typeof value === "string" ? value : (JSON.stringify(value) ?? ""));

/** Types of events → what they do to the story; `this` is the chronicle. */
const HANDLERS = {
  "execution:queued"(event, data) {
    this.agent = data.agent ?? null;
    this.add("mark", event, { title: "Queued", detail: data.agent ? `for ${data.agent}` : "" });
  },

  "execution:started"(event, data) {
    this.attempt = data.attempt ?? this.attempt;
    this.agent ??= event.agent ?? null;
    this.add("mark", event, { title: this.attempt > 1 ? `Attempt ${this.attempt} started` : "Started", detail: "" });
  },

  "execution:superseded"(event, data) {
    const lost = this.items.filter((item) => item.seq > data.fromSeq && !item.isVoid && item.kind !== "attempt");
    for (const item of lost) {
      item.isVoid = true;
      this.changed.add(item);
    }
    this.forget();
    this.add("attempt", event, { lost: this.attempt, next: data.attempt, count: lost.length });
    this.attempt = data.attempt;
  },

  "plan:created"(event, data) {
    this.add("plan", event, { goal: text(data.plan?.goal ?? ""), phases: data.plan?.phases ?? [] });
  },

  "phase:start"(event, data) {
    this.phase = data.phaseId;
    const item = this.add("phase", event, {
      phaseId: data.phaseId,
      name: text(data.phaseName),
      status: "running",
      duration: null,
    });
    this.keep(this.phases, data.phaseId, item);
  },

  "phase:complete"(event, data) {
    const item = this.phases.get(data.phaseId);
    if (this.phase === data.phaseId) this.phase = null;
    if (!item) return;
    Object.assign(item, { status: "complete", duration: data.duration ?? (event.ts - item.at) / 1000 });
    this.touch(item);
  },

  thinking(event, data) {
    if (data.visible === false) return;
    this.add("thought", event, { text: text(data.thought) });
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
    if (typeof data.text === "string" && data.text !== item.text) item.text = data.text;
    Object.assign(item, { isComplete: true, usage: data.usage ?? null });
    this.grow(item);
  },

  "tool:start"(event, data) {
    const fields = { name: text(data.toolName), params: data.params, status: "running", progress: null, message: null };
    this.keep(this.calls, data.callId, this.add("tool", event, fields));
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
    Object.assign(item, { status: "complete", result: data.result, duration: data.duration });
    this.grow(item);
  },

  "tool:error"(event, data) {
    const item = callOf(this, event, data);
    Object.assign(item, { status: "error", error: text(data.error), duration: data.duration });
    this.grow(item);
  },

  status(event, data) {
    const said = text(data.message || data.status);
    if (this.activity === said) return;
    this.activity = said;
    this.add("note", event, { tone: "plain", title: said, detail: "" });
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
      this.add("note", event, { tone: "plain", title: text(data.message), detail: "" });
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
    this.keep(this.texts, `artifact ${artifactId}`, this.add("artifact", event, fields));
  },

  "input:required"(event, data) {
    const { inputId, prompt, kind, options = null, expiresAt = null } = data;
    const fields = { inputId, prompt: text(prompt), form: kind, options, expiresAt, answer: null };
    this.keep(this.questions, inputId, this.add("question", event, fields));
  },

  "input:received"(event, data) {
    const item = this.questions.get(data.inputId);
    if (!item) return;
    item.answer = { by: data.by, value: data.value, at: event.ts };
    this.grow(item);
  },

  timeout(event, data) {
    const stops = data.action === "stopping";
    const detail = stops ? "It stops here." : "It goes on.";
    this.add("note", event, { tone: stops ? "bad" : "warn", label: "Slow step", title: text(data.message), detail });
  },

  "model:call"(event, data) {
    const tokens = `${data.inputTokens} tokens in, ${data.outputTokens} out, ${data.duration} s`;
    const detail = data.error ? `${text(data.error)} (${tokens})` : tokens;
    this.add("note", event, { tone: data.error ? "bad" : "plain", label: "Model call", title: text(data.model), detail });
  },

  "sandbox:violation"(event, data) {
    const fields = { tone: "bad", label: "Sandbox violation", title: text(data.rule), detail: text(data.detail) };
    this.add("note", event, fields);
  },

  "execution:complete"(event, data) {
    end(this, event, { state: "completed", result: data.result, duration: data.duration });
  },

  "execution:error"(event, data) {
    end(this, event, { state: "failed", error: text(data.error), code: data.code ?? null });
  },

  "execution:cancelled"(event, data) {
    end(this, event, { state: "cancelled", reason: data.reason ?? null, by: data.by ?? null });
  },
};

/** A type without a handler of its own: a plug-in's, or a newer edge's. */
function other(event, data) {
  this.add("custom", event, { name: event.type.replace(/^custom:/, ""), value: data });
}

function streamed(chronicle, kind, event, data) {
  const id = `${kind} ${data.messageId}`;
  let item = chronicle.texts.get(id);
  if (!item) {
    item = chronicle.add(kind, event, { text: "", messageId: data.messageId, isComplete: false });
    chronicle.keep(chronicle.texts, id, item);
  }
  item.text += data.delta;
  chronicle.grow(item);
}

/** The call that ends; its start may have been trimmed from the log. */
function callOf(chronicle, event, data) {
  const known = chronicle.calls.get(data.callId);
  chronicle.calls.delete(data.callId);
  return (
    known ??
    chronicle.add("tool", event, {
      name: text(data.toolName),
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

function end(chronicle, event, fields) {
  chronicle.state = fields.state;
  for (const item of chronicle.calls.values()) {
    if (item.status === "running") item.status = "open";
    chronicle.touch(item);
  }
  for (const member of chronicle.team?.members.values() ?? [])
    if (member.status === "active") Object.assign(member, { status: "interrupted", endedAt: event.ts });
  for (const item of [...chronicle.phases.values(), ...(chronicle.team ? [chronicle.team] : [])]) chronicle.touch(item);
  for (const item of chronicle.questions.values()) chronicle.touch(item);
  chronicle.add("end", event, { ...fields, at: event.ts, total: event.ts - (chronicle.startedAt ?? event.ts) });
}
