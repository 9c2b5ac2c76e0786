/**
 * The story of one execution: items made from its events, in order. Pure: no page, no clock.
 *
 * The client's fold (`watch.getSnapshot().state`) has the current state. The story has the course: when each item
 * came, in which phase, and the items of lost attempts. Items change in place; `takeChanges` returns the changed ones.
 */

import { handlerOf, textOf } from "./event-handlers.js";
import { offset } from "./format.js";

/** Limits of what is kept: items, their characters, and steps of one specialist. Beyond them the oldest are dropped. */
const MAX_ITEMS = 12_000;
const MAX_CHARACTERS = 48_000_000;
const MAX_STEPS = 200;

export class Story {
  constructor() {
    this.items = [];
    this.dropped = 0;
    this.count = 0;
    this.attempt = 1;
    /** When the attempts ended that others replaced, by their numbers. */
    this.attemptEnds = new Map();
    this.startedAt = null;
    this.agent = null;
    this.state = null;
    this.endedAt = null;
    /** Waits for a worker: `{from, until, key}`, with the key of the item with which it began. */
    this.waits = [];
    this._characters = 0;
    this._shownTime = null;
    /** Rows of an agent besides texts and thoughts: a text that goes on after one is another row. */
    this._breaks = new Map();
    this.changed = new Set();
    /** What people said to the agent, which belongs to no attempt. */
    this.said = new Map();
    this.children = new Map();
    this.startAttempt();
  }

  /** Apply the next event; `size`: characters of its JSON. */
  apply(event, size = 0) {
    this.count += 1;
    this._size = size;
    this._at = event.ts;
    this.startedAt ??= event.ts;
    const handler = handlerOf(event.type);
    handler?.call(this, event, event.data ?? {});
  }

  /** The items that changed since the last call. */
  takeChanges() {
    const { changed } = this;
    this.changed = new Set();
    return changed;
  }

  // --- for event handlers ---

  /** Another attempt begins, with ids of its own. */
  startAttempt() {
    this.calls = new Map();
    this.texts = new Map();
    this.phases = new Map();
    this.phase = null;
    this.team = null;
    this.inputs = new Map();
    this.activity = null;
  }

  add(kind, event, fields) {
    const item = {
      key: event.id,
      seq: Number(event.id.slice(event.id.indexOf("-") + 1)),
      kind,
      at: event.ts,
      agent: event.agent ?? null,
      phase: this.phase,
      attempt: this.attempt,
      isVoid: false,
      until: event.ts,
      isNewTime: this._isNewTime(event.ts),
      size: this._size,
      ...fields,
    };
    const speaker = item.agent ?? "";
    if (kind !== "text" && kind !== "thought") this._breaks.set(speaker, this.breaksOf(speaker) + 1);
    item.breaks = this.breaksOf(speaker);
    const member = this._memberOf(event, item);
    if (member) this._addStep(member, item);
    else this._append(item);
    this._characters += item.size;
    return item;
  }

  /** Whether the time of the item differs from that of the item before it: only then it is shown. */
  _isNewTime(ts) {
    const time = offset(ts - this.startedAt);
    const isNew = time !== this._shownTime;
    this._shownTime = time;
    return isNew;
  }

  breaksOf(agent) {
    return this._breaks.get(agent ?? "") ?? 0;
  }

  /** Leave these items out: what they said stands in another one. */
  remove(items) {
    const gone = new Set(items);
    for (const list of [this.items, ...this._stepsOf(items)]) {
      const kept = list.filter((item) => !gone.has(item));
      list.splice(0, list.length, ...kept);
    }
    for (const item of items) this._characters -= item.size;
  }

  _stepsOf(items) {
    const teams = new Set(items.map((item) => item.team).filter(Boolean));
    return [...teams].flatMap((team) => [...team.members.values()].map((member) => member.steps));
  }

  _append(item) {
    this.items.push(item);
    while (this.items.length > MAX_ITEMS || (this._characters > MAX_CHARACTERS && this.items.length > 1)) {
      this._drop(this.items.shift());
    }
  }

  _drop(item) {
    this._characters -= item.size;
    this.dropped += 1;
    if (item.indexed?.map.get(item.indexed.id) === item) item.indexed.map.delete(item.indexed.id);
  }

  /** Make the item known by an id that later events of this attempt use. */
  index(map, id, item) {
    item.indexed = { map, id };
    map.set(id, item);
  }

  _addStep(member, item) {
    member.steps.push(item);
    item.team = this.team;
    if (member.steps.length > MAX_STEPS) this._characters -= member.steps.shift().size;
    this.touch(this.team);
  }

  /** Take over what the tree says of children: their states now, and their own children. Returns whether it is news. */
  followTree({ children }) {
    let isNews = false;
    for (const node of children) {
      const item = this.children.get(node.executionId);
      const shown = JSON.stringify([node.state, node.children]);
      if (!item || item.shown === shown) continue;
      Object.assign(item, { shown, live: node.state, below: node.children });
      this.touch(item);
      isNews = true;
    }
    return isNews;
  }

  /** The item changed. */
  touch(item) {
    item.until = this._at ?? item.until;
    this.changed.add(item.team ?? item);
  }

  /** The item changed, and holds the data of this event, too. */
  grow(item) {
    item.size += this._size;
    this._characters += this._size;
    this.touch(item);
  }

  /** The specialist of an item: named by the event, or its agent. */
  _memberOf(event, item) {
    if (!this.team || item.kind === "team" || item.kind === "end") return null;
    return this.team.members.get(event.data?.specialist) ?? this.team.members.get(event.agent) ?? null;
  }
}

/** The text of an item for the filter, in lower case. */
export function wordsOf(item) {
  const parts = [
    item.kind,
    item.name,
    item.title,
    item.detail,
    item.task,
    item.summary,
    item.childKey,
    item.executionId,
    item.text,
    item.goal,
    item.prompt,
    item.error,
  ];
  const values = [item.params, item.result, item.value, item.answer?.value].filter((value) => value !== undefined);
  const members = item.members
    ? [...item.members.values()].flatMap((member) => [member.name, member.task, member.summary])
    : [];
  return [...parts, ...members, ...values.map((value) => textOf(value).slice(0, 20_000))]
    .filter(Boolean)
    .join("\n")
    .toLowerCase();
}
