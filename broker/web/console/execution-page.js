/** The page of one execution: rows from its timeline, the rest from the client's folded state. */

import { Fold } from "/client/fold.js";
import { ExecutionTree } from "/client/tree.js";
import { Actions } from "./actions.js";
import { Banner } from "./connection-status.js";
import { streamCommand } from "./curl.js";
import { Details } from "./details.js";
import { menu } from "./dialog.js";
import { h, setAttribute, setText } from "./dom.js";
import { ExecutionHeader, isBegun } from "./execution-header.js";
import { Filter } from "./filter.js";
import { STATES, isOver, plural, whole } from "./format.js";
import { icon } from "./icons.js";
import { OpenInputs } from "./inputs.js";
import { MessageLine } from "./message-line.js";
import { EventRing, rawRow, wordsOf as rawWordsOf } from "./raw-events.js";
import { rowView } from "./rows.js";
import { line } from "./text.js";
import { Clock } from "./ticker.js";
import { Timeline, wordsOf } from "./timeline.js";
import { VirtualList } from "./virtual-list.js";

/** The state before the first event. */
const EMPTY_STATE = new Fold().state();

export class ExecutionPage {
  /** `page`: `{client, mode, ticker, announce(text), notify(text), back()}`. */
  constructor(page, executionId) {
    this._page = page;
    this._id = executionId;
    this._actions = new Actions(page, executionId);
    this._clock = new Clock();
    this._timeline = new Timeline();
    this._ring = new EventRing();
    this._opened = new Set();
    this._isPaused = false;
    this._isRaw = false;
    this._words = new WeakMap();
    this._announced = { status: null, phase: null };
    this._build();
    this._watch = page.client.watch(executionId, {
      mode: page.mode,
      compact: true,
      onEvent: (event, size) => this._take(event, size),
      onControl: (control) => this._obey(control),
    });
    this._ends = [this._watch.subscribe(() => this._draw()), page.ticker.add((now) => this._tick(now))];
    this._watch.start();
    this._draw();
  }

  end() {
    for (const end of this._ends) end();
    this._tree?.close();
    this._watch.close();
    this._rows.end();
    this._rawRows.end();
  }

  focus() {
    this._head.focus();
  }

  // --- actions of keys ---

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
    this._page.announce(this._isPaused ? "Paused. New events are received, but not shown." : "Resumed");
    this._pausedAt = this._timeline.count;
    this._draw();
  }

  toggleRaw() {
    this._isRaw = !this._isRaw;
    for (const [tab, isRaw] of this._tabs) setAttribute(tab, "aria-pressed", String(isRaw === this._isRaw));
    this._rows.node.hidden = this._isRaw;
    this._rawRows.node.hidden = !this._isRaw;
    this._draw(true);
  }

  follow() {
    (this._isRaw ? this._rawRows : this._rows).follow();
  }

  answer() {
    this._inputs.focus();
  }

  write() {
    this._messages.focus();
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
    this._head = new ExecutionHeader(
      id,
      this._clock,
      [this._pauseButton, this._cancelButton, this._railButton, more],
      () => this._page.back(),
    );
    this._banner = new Banner(this._page.announce);
    this._filter = new Filter(() => this._draw(true));
    this._rows = new VirtualList((item) => rowView(item, this._rowContext()), {
      label: "Timeline",
      empty: "No events yet.",
    });
    this._rawRows = new VirtualList((item) => rawRow(item), {
      label: "Raw events",
      empty: "No events.",
      className: "raw-rows",
    });
    this._rawRows.node.hidden = true;
    this._inputs = new OpenInputs(
      (inputId, value) => this._page.client.answer(id, inputId, value),
      (inputId) => this._page.client.decline(id, inputId),
      this._clock,
    );
    this._messages = new MessageLine(this._page, id);
    this._details = new Details(id, {
      onCopy: () => this._actions.copy(id, "Id copied"),
      onArtifact: (artifact) => this._showArtifact(artifact),
    });
    this._paused = h("p", { class: "paused", hidden: true });
    this.node = h(
      "article",
      { class: "execution-page" },
      this._head.node,
      this._banner.node,
      h(
        "div",
        { class: "execution-body" },
        h(
          "div",
          { class: "execution-column" },
          this._toolbar(),
          this._filter.row,
          this._rows.node,
          this._rawRows.node,
          this._paused,
          this._inputs.node,
          this._messages.node,
        ),
        this._details.node,
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
      [tab("Timeline", false), false],
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
      startedAt: () => this._timeline.startedAt,
      isEnded: () => this._timeline.state !== null,
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
    this._timeline.apply(event, size);
    this._ring.add(event, size);
  }

  /** After a reset other than by trimming, another history starts from its beginning. */
  _obey({ type, data }) {
    if (type !== "stream:reset" || data.reason === "trimmed") return;
    this._timeline = new Timeline();
    this._ring = new EventRing();
    this._pausedAt = 0;
    this._draw(true);
  }

  /** Watch the children, once there are some: their logs have what they do between their beginning and their end. */
  _followChildren() {
    if (this._tree || !this._timeline.children.size) return;
    this._tree = new ExecutionTree(this._page.client, this._id, { mode: this._page.mode });
    this._ends.push(
      this._tree.subscribe(() => {
        const { tree } = this._tree.getSnapshot();
        if (tree && this._timeline.followTree(tree)) this._draw();
      }),
    );
    this._tree.start();
  }

  /** At most once per frame. `isOther`: another filter or view. */
  _draw(isOther = false) {
    const { state: known, status } = this._watch.getSnapshot();
    const state = known ?? EMPTY_STATE;
    this._state = state;
    this._status = status;
    this._head.show(state);
    this._banner.show(status, Date.now());
    this._details.show(state, status, this._ring.count);
    this._inputs.show(state.openInputs);
    this._messages.show(state);
    const isUnderWay = isBegun(state) && !isOver(state.status);
    this._cancelButton.hidden = !isUnderWay;
    this._pauseButton.hidden = !isUnderWay && !this._isPaused;
    this.node.classList.toggle("is-missing", !isBegun(state) && status.phase === "failed");
    setText(this._rawCount, this._ring.count ? whole(this._ring.count) : "");
    this._followChildren();
    this._drawRows(isOther);
    if (known !== null) this._announce(state);
  }

  _drawRows(isOther) {
    this._paused.hidden = !this._isPaused;
    if (this._isPaused)
      setText(this._paused, `Paused. ${plural(this._timeline.count - this._pausedAt, "new event")} since.`);
    if (this._isPaused && !isOther) return;
    const changed = this._timeline.takeChanges();
    for (const item of changed) this._words.delete(item);
    if (this._isRaw) this._rawRows.show(this._rawItems(), undefined, isOther);
    else this._rows.show(this._items(), (item) => changed.has(item), isOther);
    if (this._isRaw && changed.size) this._stale = true;
    else if (this._stale) this._refresh();
    this._beginAtStart();
  }

  /** Update rows that changed while the raw events were shown. */
  _refresh() {
    this._stale = false;
    this._rows.show(this._items(), () => true);
  }

  /** An execution that was over when it was opened is shown from its beginning. */
  _beginAtStart() {
    if (
      this._isPlaced ||
      !this._timeline.items.length ||
      this._status.phase === "replaying" ||
      this._status.phase === "connecting"
    )
      return;
    this._isPlaced = true;
    const opened = this._status.connectedAt ?? Date.now();
    if (this._timeline.state && this._state.endedAt && this._state.endedAt < opened - 1_000) this._rows.readFromStart();
  }

  _items() {
    const { items } = this._timeline;
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
    this._inputs.tick();
    this._rows.tick();
    this._banner.show(this._status, now);
  }

  /** To the live region: states, inputs and phases only. */
  _announce(state) {
    const phase = state.phases.findLast?.((each) => each.status === "running")?.name ?? null;
    const before = this._announced;
    this._announced = { status: state.status, phase, inputs: state.openInputs.length };
    if (before.status === null) return;
    if (state.status !== before.status) this._page.announce(STATES[state.status]);
    else if (state.openInputs.length > before.inputs)
      this._page.announce(`Input needed: ${line(state.openInputs.at(-1).prompt, 200)}`);
    else if (phase !== before.phase && phase) this._page.announce(`Phase ${line(phase, 80)}`);
  }

  // --- actions ---

  _toggleRail() {
    const isOpen = this.node.classList.toggle("has-rail");
    setAttribute(this._railButton, "aria-expanded", String(isOpen));
  }

  _showArtifact(artifactId) {
    if (this._isRaw) this.toggleRaw();
    const item = this._timeline.items.findLast((each) => each.kind === "artifact" && each.artifactId === artifactId);
    if (item) this._rows.reveal(item.key);
  }
}
