/** One execution, watched: its events become a chronicle, the chronicle rows; the client's fold says how it stands. */

import { Fold } from "/client/fold.js";
import { Actions } from "./actions.js";
import { Approvals } from "./approvals.js";
import { Chronicle, wordsOf } from "./chronicle.js";
import { Banner } from "./connection.js";
import { streamCommand } from "./curl.js";
import { menu } from "./dialog.js";
import { h, setAttribute, setText } from "./dom.js";
import { Filter } from "./filter.js";
import { STATES, isOver, plural, whole } from "./format.js";
import { Clock } from "./frame.js";
import { Headline, isBegun } from "./headline.js";
import { icon } from "./icons.js";
import { Overview } from "./overview.js";
import { EventRing, rawRow, wordsOf as rawWordsOf } from "./raw.js";
import { rowView } from "./rows.js";
import { Tail } from "./tail.js";
import { line } from "./text.js";

/** What is shown of an execution of which nothing is known yet. */
const NOTHING = new Fold().state();

export class Story {
  /** `page`: `{client, mode, ticker, announce(text), notify(text), back()}`. */
  constructor(page, executionId) {
    this._page = page;
    this._id = executionId;
    this._actions = new Actions(page, executionId);
    this._clock = new Clock();
    this._chronicle = new Chronicle();
    this._ring = new EventRing();
    this._opened = new Set();
    this._isPaused = false;
    this._isRaw = false;
    this._words = new WeakMap();
    this._said = { status: null, phase: null };
    this._build();
    this._watch = page.client.watch(executionId, {
      mode: page.mode,
      onEvent: (event, size) => this._take(event, size),
      onControl: (control) => this._obey(control),
    });
    this._ends = [this._watch.subscribe(() => this._draw()), page.ticker.add((now) => this._tick(now))];
    this._watch.start();
    this._draw();
  }

  end() {
    for (const end of this._ends) end();
    this._watch.close();
    this._tail.end();
    this._rawTail.end();
  }

  focus() {
    this._head.focus();
  }

  // --- what keys do ---

  focusFilter() {
    this._filter.focus();
  }

  togglePause() {
    this._isPaused = !this._isPaused;
    this._pauseButton.replaceChildren(
      icon(this._isPaused ? "play" : "pause"),
      h("span", {}, this._isPaused ? "Resume" : "Pause"),
    );
    setAttribute(this._pauseButton, "aria-pressed", String(this._isPaused));
    this._page.announce(this._isPaused ? "Paused: new events are received, but not shown" : "Resumed");
    this._pausedAt = this._chronicle.count;
    this._draw();
  }

  toggleRaw() {
    this._isRaw = !this._isRaw;
    for (const [tab, isRaw] of this._tabs) setAttribute(tab, "aria-pressed", String(isRaw === this._isRaw));
    this._tail.node.hidden = this._isRaw;
    this._rawTail.node.hidden = !this._isRaw;
    this._draw(true);
  }

  follow() {
    (this._isRaw ? this._rawTail : this._tail).follow();
  }

  answer() {
    this._approvals.focus();
  }

  // --- the page ---

  _build() {
    const { page: _, _id: id } = this;
    this._pauseButton = h(
      "button",
      {
        type: "button",
        class: "button pause",
        "aria-pressed": "false",
        title: "Pause the page (p)",
        onclick: () => this.togglePause(),
      },
      icon("pause"),
      h("span", {}, "Pause"),
    );
    this._cancelButton = h(
      "button",
      {
        type: "button",
        class: "button danger",
        title: "Cancel the execution",
        onclick: () => this._actions.askToCancel(this._cancelButton),
      },
      icon("stop"),
      h("span", {}, "Cancel"),
    );
    this._railButton = h(
      "button",
      {
        type: "button",
        class: "button quiet square rail-toggle",
        "aria-label": "Details",
        "aria-expanded": "false",
        onclick: () => this._toggleRail(),
      },
      icon("panel"),
    );
    const more = menu("More", [
      ["Copy as curl", "terminal", () => this._actions.copy(streamCommand(id), "Command copied")],
      ["Copy the id", "copy", () => this._actions.copy(id, "Id copied")],
      ["Export as NDJSON", "download", () => this._actions.exportLog()],
    ]);
    this._head = new Headline(id, this._clock, [this._pauseButton, this._cancelButton, this._railButton, more], () =>
      this._page.back(),
    );
    this._banner = new Banner(this._page.announce);
    this._filter = new Filter(() => this._draw(true));
    this._tail = new Tail((item) => rowView(item, this._rowContext()), { label: "Story", empty: "Nothing yet." });
    this._rawTail = new Tail((item) => rawRow(item), {
      label: "Raw events",
      empty: "No event here.",
      className: "raw-rows",
    });
    this._rawTail.node.hidden = true;
    this._approvals = new Approvals((inputId, value) => this._page.client.answer(id, inputId, value), this._clock);
    this._overview = new Overview(id, {
      onCopy: () => this._actions.copy(id, "Id copied"),
      onArtifact: (artifact) => this._showArtifact(artifact),
    });
    this._paused = h("p", { class: "paused", hidden: true });
    this.node = h(
      "article",
      { class: "story" },
      this._head.node,
      this._banner.node,
      h(
        "div",
        { class: "story-body" },
        h(
          "div",
          { class: "story-column" },
          this._toolbar(),
          this._filter.row,
          this._tail.node,
          this._rawTail.node,
          this._paused,
          this._approvals.node,
        ),
        this._overview.node,
      ),
    );
  }

  _toolbar() {
    const tab = (label, isRaw) =>
      h(
        "button",
        {
          type: "button",
          class: "tab",
          "aria-pressed": String(isRaw === this._isRaw),
          onclick: () => isRaw !== this._isRaw && this.toggleRaw(),
        },
        label,
      );
    this._rawCount = h("span", { class: "count numbers" });
    this._tabs = [
      [tab("Story", false), false],
      [tab("Raw events", true), true],
    ];
    this._tabs[1][0].append(this._rawCount);
    return h(
      "div",
      { class: "toolbar" },
      h(
        "div",
        { class: "tabs", role: "group", "aria-label": "View" },
        this._tabs.map(([node]) => node),
      ),
      this._filter.box,
    );
  }

  _rowContext() {
    return {
      clock: this._clock,
      startedAt: () => this._chronicle.startedAt,
      isEnded: () => this._chronicle.state !== null,
      isOpen: (attempt) => this._opened.has(attempt),
      toggleAttempt: (attempt) => {
        if (!this._opened.delete(attempt)) this._opened.add(attempt);
        this._draw(true);
      },
      stack: async () => (await this._page.client.execution(this._id)).error?.stack ?? null,
    };
  }

  // --- events ---

  _take(event, size) {
    this._clock.observe(event.ts);
    this._chronicle.apply(event, size);
    this._ring.add(event, size);
  }

  /** After a reset that is no mere loss, another history is told from its beginning. */
  _obey({ type, data }) {
    if (type !== "stream:reset" || data.reason === "trimmed") return;
    this._chronicle = new Chronicle();
    this._ring = new EventRing();
    this._pausedAt = 0;
    this._draw(true);
  }

  /** Once a frame at most, or (`isOther`) when what passes the filter is another. */
  _draw(isOther = false) {
    const { state: known, status } = this._watch.getSnapshot();
    const state = known ?? NOTHING;
    this._state = state;
    this._status = status;
    this._head.show(state);
    this._banner.show(status, Date.now());
    this._overview.show(state, status, this._ring.count);
    this._approvals.show(state.openInputs);
    const isUnderWay = isBegun(state) && !isOver(state.status);
    this._cancelButton.hidden = !isUnderWay;
    this._pauseButton.hidden = !isUnderWay && !this._isPaused;
    this.node.classList.toggle("is-missing", !isBegun(state) && status.phase === "failed");
    setText(this._rawCount, this._ring.count ? whole(this._ring.count) : "");
    this._drawRows(isOther);
    if (known !== null) this._announce(state);
  }

  _drawRows(isOther) {
    this._paused.hidden = !this._isPaused;
    if (this._isPaused)
      setText(this._paused, `Paused. ${plural(this._chronicle.count - this._pausedAt, "new event")} since.`);
    if (this._isPaused && !isOther) return;
    const changed = this._chronicle.takeChanges();
    for (const item of changed) this._words.delete(item);
    if (this._isRaw) this._rawTail.show(this._rawItems(), undefined, isOther);
    else this._tail.show(this._items(), (item) => changed.has(item), isOther);
    if (this._isRaw && changed.size) this._stale = true;
    else if (this._stale) this._refresh();
    this._beginAtStart();
  }

  /** Rows that changed while the raw events were shown. */
  _refresh() {
    this._stale = false;
    this._tail.show(this._items(), () => true);
  }

  /** A story that was over when it was opened is read from its beginning. */
  _beginAtStart() {
    if (
      this._isPlaced ||
      !this._chronicle.items.length ||
      this._status.phase === "replaying" ||
      this._status.phase === "connecting"
    )
      return;
    this._isPlaced = true;
    const opened = this._status.connectedAt ?? Date.now();
    if (this._chronicle.state && this._state.endedAt && this._state.endedAt < opened - 1_000)
      this._tail.readFromStart();
  }

  _items() {
    const { items } = this._chronicle;
    if (!this._filter.isOn && !items.some((item) => item.isVoid)) return items;
    return items.filter(
      (item) =>
        (!item.isVoid || this._opened.has(item.attempt)) &&
        this._filter.passesItem(item, (each) => this._wordsOf(each)),
    );
  }

  _rawItems() {
    if (!this._filter.isOn) return this._ring.items;
    return this._ring.items.filter((item) => this._filter.passesEvent(item.event.type, () => rawWordsOf(item)));
  }

  _wordsOf(item) {
    if (!this._words.has(item)) this._words.set(item, wordsOf(item));
    return this._words.get(item);
  }

  _tick(now) {
    this._head.tick();
    this._approvals.tick();
    this._tail.tick();
    this._banner.show(this._status, now);
  }

  /** Only what somebody who does not look would ask for. */
  _announce(state) {
    const phase = state.phases.findLast?.((each) => each.status === "running")?.name ?? null;
    const before = this._said;
    this._said = { status: state.status, phase, questions: state.openInputs.length };
    if (before.status === null) return;
    if (state.status !== before.status) this._page.announce(STATES[state.status]);
    else if (state.openInputs.length > before.questions)
      this._page.announce(`A question: ${line(state.openInputs.at(-1).prompt, 200)}`);
    else if (phase !== before.phase && phase) this._page.announce(`Phase ${line(phase, 80)}`);
  }

  // --- actions ---

  _toggleRail() {
    const isOpen = this.node.classList.toggle("has-rail");
    setAttribute(this._railButton, "aria-expanded", String(isOpen));
  }

  _showArtifact(artifactId) {
    if (this._isRaw) this.toggleRaw();
    const item = this._chronicle.items.findLast((each) => each.kind === "artifact" && each.artifactId === artifactId);
    if (item) this._tail.reveal(item.key);
  }
}
