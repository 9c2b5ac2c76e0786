/**
 * The story of one execution: its events, in order, as items that a person reads. Pure: no page, no clock.
 *
 * The fold of the client (`watch.getSnapshot().state`) says how things stand; this says how it went: what came when, in
 * which phase, and what a lost attempt had done. An item changes in place; `takeChanges` says which did.
 */

const MAX_ITEMS = 12_000;
const MAX_CHARACTERS = 48_000_000;
const MAX_STEPS = 200;
/** Items, and steps of one specialist, that are kept; beyond, the oldest go. */

export class Chronicle {
  constructor() {
    this.items = [];
    this.forgotten = 0;
    this.count = 0;
    this.attempt = 1;
    this.startedAt = null;
    this.agent = null;
    this.state = null;
    this._characters = 0;
    this._second = null;
    this._changed = new Set();
    this._isGrown = false;
    this._forget();
  }

  /** Take the next event, of so many characters; one that adds nothing to the story changes nothing. */
  apply(event, size = 0) {
    this.count += 1;
    this._size = size;
    this.startedAt ??= event.ts;
    const handler = HANDLERS[event.type] ?? (event.type.startsWith("custom:") ? custom : null);
    handler?.call(this, event, event.data ?? {});
  }

  /** What changed since the last call: `{grown, changed}`, whether items came or went, and those that changed. */
  takeChanges() {
    const taken = { grown: this._isGrown, changed: this._changed };
    this._isGrown = false;
    this._changed = new Set();
    return taken;
  }

  /** Items that are still under way, for timers. */
  running() {
    return [...this._calls.values()].filter((item) => item.status === "running");
  }

  // --- how items are made and changed ---

  /** An attempt begins: ids of the one before mean nothing any more. */
  _forget() {
    this._calls = new Map();
    this._texts = new Map();
    this._phases = new Map();
    this._phase = null;
    this._team = null;
    this._questions = new Map();
    this._activity = null;
  }

  _add(kind, event, fields) {
    const item = {
      key: event.id,
      seq: Number(event.id.slice(event.id.indexOf("-") + 1)),
      kind,
      at: event.ts,
      agent: event.agent ?? null,
      phase: this._phase,
      attempt: this.attempt,
      isVoid: false,
      isNewSecond: this._isNewSecond(event.ts),
      size: this._size,
      ...fields,
    };
    const member = this._memberOf(event, item);
    if (member) this._addStep(member, item);
    else this._append(item);
    this._characters += item.size;
    return item;
  }

  /** Whether it is the first in its second: the time of the others need not be repeated. */
  _isNewSecond(ts) {
    const second = Math.floor((ts - this.startedAt) / 1000);
    const isNew = second !== this._second;
    this._second = second;
    return isNew;
  }

  _append(item) {
    this.items.push(item);
    this._isGrown = true;
    while (this.items.length > MAX_ITEMS || (this._characters > MAX_CHARACTERS && this.items.length > 1)) {
      this._drop(this.items.shift());
    }
  }

  _drop(item) {
    this._characters -= item.size;
    this.forgotten += 1;
    if (item.home?.map.get(item.home.id) === item) item.home.map.delete(item.home.id);
  }

  /** Find the item again by an id that events of this attempt use. */
  _keep(map, id, item) {
    item.home = { map, id };
    map.set(id, item);
  }

  _addStep(member, item) {
    member.steps.push(item);
    item.team = this._team;
    if (member.steps.length > MAX_STEPS) this._characters -= member.steps.shift().size;
    this._touch(this._team);
  }

  _touch(item) {
    this._changed.add(item.team ?? item);
  }

  /** The item has taken in an event of its own. */
  _grow(item) {
    item.size += this._size;
    this._characters += this._size;
    this._touch(item);
  }

  /** The specialist that this item belongs to: named by the event, or speaking in it. */
  _memberOf(event, item) {
    if (!this._team || item.kind === "team" || item.kind === "end") return null;
    return this._team.members.get(event.data?.specialist) ?? this._team.members.get(event.agent) ?? null;
  }
}

const text = (value) => (typeof value === "string" ? value : JSON.stringify(value) ?? "");

/** What each event does to the story; `this` is the chronicle. */
const HANDLERS = {
  "execution:queued"(event, data) {
    this.agent = data.agent ?? null;
    this._add("mark", event, { title: "Queued", detail: data.agent ? `for ${data.agent}` : "" });
  },

  "execution:started"(event, data) {
    this.attempt = data.attempt ?? this.attempt;
    this.agent ??= event.agent ?? null;
    this._add("mark", event, { title: this.attempt > 1 ? `Attempt ${this.attempt} started` : "Started", detail: "" });
  },

  "execution:superseded"(event, data) {
    const lost = this.items.filter((item) => item.seq > data.fromSeq && !item.isVoid && item.kind !== "attempt");
    for (const item of lost) {
      item.isVoid = true;
      this._changed.add(item);
    }
    this._forget();
    this._add("attempt", event, { lost: this.attempt, next: data.attempt, count: lost.length });
    this.attempt = data.attempt;
  },

  "plan:created"(event, data) {
    this._add("plan", event, { goal: text(data.plan?.goal ?? ""), phases: data.plan?.phases ?? [] });
  },

  "phase:start"(event, data) {
    this._phase = data.phaseId;
    const item = this._add("phase", event, { phaseId: data.phaseId, name: text(data.phaseName), status: "running", duration: null });
    this._keep(this._phases, data.phaseId, item);
  },

  "phase:complete"(event, data) {
    const item = this._phases.get(data.phaseId);
    if (this._phase === data.phaseId) this._phase = null;
    if (!item) return;
    Object.assign(item, { status: "complete", duration: data.duration ?? (event.ts - item.at) / 1000 });
    this._touch(item);
  },

  thinking(event, data) {
    if (data.visible === false) return;
    this._add("thought", event, { text: text(data.thought) });
  },

  "thinking:delta"(event, data) {
    streamed(this, "thought", event, data);
  },

  "message:delta"(event, data) {
    streamed(this, "text", event, data);
  },

  "message:complete"(event, data) {
    const known = this._texts.get(`text ${data.messageId}`);
    if (!known && !data.text) return;
    const item = known ?? this._add("text", event, { text: "" });
    if (typeof data.text === "string" && data.text !== item.text) item.text = data.text;
    Object.assign(item, { isComplete: true, usage: data.usage ?? null });
    this._grow(item);
  },

  "tool:start"(event, data) {
    const fields = { name: text(data.toolName), params: data.params, status: "running", progress: null, message: null };
    this._keep(this._calls, data.callId, this._add("tool", event, fields));
  },

  "tool:progress"(event, data) {
    const item = this._calls.get(data.callId);
    if (!item) return;
    item.progress = data.progress ?? item.progress;
    item.message = data.message ?? item.message;
    this._touch(item);
  },

  "tool:complete"(event, data) {
    const item = callOf(this, event, data);
    Object.assign(item, { status: "complete", result: data.result, duration: data.duration });
    this._grow(item);
  },

  "tool:error"(event, data) {
    const item = callOf(this, event, data);
    Object.assign(item, { status: "error", error: text(data.error), duration: data.duration });
    this._grow(item);
  },

  status(event, data) {
    const said = text(data.message || data.status);
    if (this._activity === said) return;
    this._activity = said;
    this._add("note", event, { tone: "plain", title: said, detail: "" });
  },

  progress(event, data) {
    const member = this._team?.members.get(data.specialist);
    if (!member) return;
    Object.assign(member, { progress: data.progress, action: data.currentAction ?? member.action });
    this._touch(this._team);
  },

  "specialist:activated"(event, data) {
    const isOver = this._team && [...this._team.members.values()].every((member) => member.status === "complete");
    if (!this._team || isOver) this._team = this._add("team", event, { members: new Map(), synthesis: null });
    this._team.members.set(data.specialist, newMember(data, event));
    this._touch(this._team);
  },

  "specialist:complete"(event, data) {
    const member = this._team?.members.get(data.specialist);
    if (!member) return;
    Object.assign(member, { status: "complete", summary: data.summary ?? null, endedAt: event.ts });
    this._touch(this._team);
  },

  "partial:result"(event, data) {
    this._add("result", event, { value: data.result, specialist: data.specialist ?? null });
  },

  synthesis(event, data) {
    if (this._team) {
      this._team.synthesis = data;
      this._touch(this._team);
    } else {
      this._add("note", event, { tone: "plain", title: text(data.message), detail: "" });
    }
  },

  artifact(event, data) {
    const known = this._texts.get(`artifact ${data.artifactId}`);
    if (known && data.append) {
      known.text = (known.text ?? "") + (data.text ?? "");
      Object.assign(known, { data: data.data ?? known.data, url: data.url ?? known.url, isComplete: data.last === true });
      this._grow(known);
      return;
    }
    const { artifactId, name = null, mediaType, url = null } = data;
    const fields = { artifactId, name, mediaType, url, text: data.text ?? null, data: data.data, isComplete: data.last === true };
    this._keep(this._texts, `artifact ${artifactId}`, this._add("artifact", event, fields));
  },

  "input:required"(event, data) {
    const { inputId, prompt, kind, options = null, expiresAt = null } = data;
    const fields = { inputId, prompt: text(prompt), form: kind, options, expiresAt, answer: null };
    this._keep(this._questions, inputId, this._add("question", event, fields));
  },

  "input:received"(event, data) {
    const item = this._questions.get(data.inputId);
    if (!item) return;
    item.answer = { by: data.by, value: data.value, at: event.ts };
    this._grow(item);
  },

  timeout(event, data) {
    const stops = data.action === "stopping";
    const detail = stops ? "It stops here." : "It goes on.";
    this._add("note", event, { tone: stops ? "bad" : "warn", label: "Slow step", title: text(data.message), detail });
  },

  "sandbox:violation"(event, data) {
    const fields = { tone: "bad", label: "Sandbox violation", title: text(data.rule), detail: text(data.detail) };
    this._add("note", event, fields);
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

function custom(event, data) {
  this._add("custom", event, { name: event.type.slice("custom:".length), value: data });
}

function streamed(chronicle, kind, event, data) {
  const id = `${kind} ${data.messageId}`;
  let item = chronicle._texts.get(id);
  if (!item) {
    item = chronicle._add(kind, event, { text: "", messageId: data.messageId, isComplete: false });
    chronicle._keep(chronicle._texts, id, item);
  }
  item.text += data.delta;
  chronicle._grow(item);
}

/** The call that ends; its start may have been trimmed from the log. */
function callOf(chronicle, event, data) {
  const known = chronicle._calls.get(data.callId);
  chronicle._calls.delete(data.callId);
  return known ?? chronicle._add("tool", event, { name: text(data.toolName), params: undefined, status: "running", progress: null, message: null });
}

function newMember(data, event) {
  const { specialist, task = null, icon = null } = data;
  return { name: specialist, task, icon, status: "active", progress: null, action: null, summary: null, at: event.ts, endedAt: null, steps: [] };
}

function end(chronicle, event, fields) {
  chronicle.state = fields.state;
  for (const item of chronicle._calls.values()) {
    if (item.status === "running") item.status = "open";
    chronicle._touch(item);
  }
  for (const item of [...chronicle._phases.values(), ...(chronicle._team ? [chronicle._team] : [])]) chronicle._touch(item);
  for (const item of chronicle._questions.values()) chronicle._touch(item);
  chronicle._add("end", event, { ...fields, at: event.ts, total: event.ts - (chronicle.startedAt ?? event.ts) });
}

/** The words of an item that a search looks at, in lower case. */
export function wordsOf(item) {
  const parts = [item.kind, item.name, item.title, item.detail, item.text, item.goal, item.prompt, item.error];
  const values = [item.params, item.result, item.value, item.answer?.value].filter((value) => value !== undefined);
  const members = item.members ? [...item.members.values()].flatMap((member) => [member.name, member.task, member.summary]) : [];
  return [...parts, ...members, ...values.map((value) => text(value).slice(0, 20_000))].filter(Boolean).join("\n").toLowerCase();
}
