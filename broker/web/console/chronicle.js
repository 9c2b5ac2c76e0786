/**
 * The story of one execution: its events, in order, as items that a person reads. Pure: no page, no clock.
 *
 * The fold of the client (`watch.getSnapshot().state`) says how things stand; this says how it went: what came when, in
 * which phase, and what a lost attempt had done. An item changes in place; `takeChanges` says which did.
 */

import { handlerOf, text } from "./happenings.js";

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
    this.changed = new Set();
    this.forget();
  }

  /** Take the next event, of so many characters; one that adds nothing to the story changes nothing. */
  apply(event, size = 0) {
    this.count += 1;
    this._size = size;
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

  // --- how items are made and changed ---

  /** An attempt begins: ids of the one before mean nothing any more. */
  forget() {
    this.calls = new Map();
    this.texts = new Map();
    this.phases = new Map();
    this.phase = null;
    this.team = null;
    this.questions = new Map();
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
  keep(map, id, item) {
    item.home = { map, id };
    map.set(id, item);
  }

  _addStep(member, item) {
    member.steps.push(item);
    item.team = this.team;
    if (member.steps.length > MAX_STEPS) this._characters -= member.steps.shift().size;
    this.touch(this.team);
  }

  touch(item) {
    this.changed.add(item.team ?? item);
  }

  /** The item has taken in an event of its own. */
  grow(item) {
    item.size += this._size;
    this._characters += this._size;
    this.touch(item);
  }

  /** The specialist that this item belongs to: named by the event, or speaking in it. */
  _memberOf(event, item) {
    if (!this.team || item.kind === "team" || item.kind === "end") return null;
    return this.team.members.get(event.data?.specialist) ?? this.team.members.get(event.agent) ?? null;
  }
}

/** The words of an item that a search looks at, in lower case. */
export function wordsOf(item) {
  const parts = [item.kind, item.name, item.title, item.detail, item.text, item.goal, item.prompt, item.error];
  const values = [item.params, item.result, item.value, item.answer?.value].filter((value) => value !== undefined);
  const members = item.members
    ? [...item.members.values()].flatMap((member) => [member.name, member.task, member.summary])
    : [];
  return [...parts, ...members, ...values.map((value) => text(value).slice(0, 20_000))]
    .filter(Boolean)
    .join("\n")
    .toLowerCase();
}
