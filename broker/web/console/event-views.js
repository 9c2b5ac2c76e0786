/** The events of one execution in three views: the story, the timeline above it, and the raw events. */

import { h, setText } from "./dom.js";
import { Filter } from "./filter.js";
import { plural } from "./format.js";
import { EventRing, rawRow, wordsOf as rawWordsOf } from "./raw-events.js";
import { rowView } from "./rows.js";
import { spansOf } from "./spans.js";
import { Story, wordsOf } from "./story.js";
import { TimelineView } from "./timeline-view.js";
import { Toolbar } from "./toolbar.js";
import { VirtualList } from "./virtual-list.js";

/** Spans of a long story are made again after a pause of so many times what that took. */
const REST = 8;
const FOUND_MS = 1_600;

export class EventViews {
  /** `context`: what rows need (`rowView`), without `isOpen` and `toggleAttempt`; `head`: a node above the story;
   * `onView(view)` when another view is chosen. */
  constructor({ clock, context, head, announce, view, onView }) {
    this._clock = clock;
    this._announce = announce;
    this._onView = onView;
    this._opened = new Set();
    this._words = new WeakMap();
    this._isFrozen = false;
    this._restsUntil = 0;
    this.view = view;
    this.restart();
    this._context = {
      ...context,
      clock,
      startedAt: () => this.story.startedAt,
      isEnded: () => this.story.state !== null,
      isOpen: (attempt) => this._opened.has(attempt),
      toggleAttempt: (attempt) => this._toggleAttempt(attempt),
      toTop: () => this._rows.readFromStart(),
    };
    this._filter = new Filter(() => this._drawAgain());
    this.toolbar = new Toolbar(this._filter.box, {
      onView: (chosen) => this.show(chosen),
      onFreeze: () => this.toggleFreeze(),
    });
    this._timeline = new TimelineView({ onSelect: (span, isByKey) => this._showSpan(span, isByKey) });
    this._rows = new VirtualList((item) => rowView(item, this._context), {
      label: "Story",
      empty: "No events yet.",
      head,
    });
    this._rawRows = new VirtualList((item) => rawRow(item), {
      label: "Raw events",
      empty: "No events.",
      className: "raw-rows",
    });
    this._frozen = h("p", { class: "frozen", hidden: true, role: "status" });
    this.nodes = [
      this.toolbar.node,
      this._filter.row,
      this._timeline.node,
      this._rows.node,
      this._rawRows.node,
      this._frozen,
    ];
    this._showView();
  }

  end() {
    clearTimeout(this._later);
    this._timeline.end();
    this._rows.end();
    this._rawRows.end();
  }

  // --- events ---

  take(event, size) {
    this.story.apply(event, size);
    this.ring.add(event, size);
  }

  /** Another history begins. */
  restart() {
    this.story = new Story();
    this.ring = new EventRing();
    this._frozenAt = 0;
    this._isOther = true;
  }

  // --- actions ---

  show(view) {
    if (view === this.view) return;
    this.view = view;
    this._showView();
    this._drawAgain();
    this._onView(view);
  }

  toggleFreeze() {
    this._isFrozen = !this._isFrozen;
    this._frozenAt = this.story.count;
    this._announce(this._isFrozen ? "The view is frozen. The agent goes on." : "The view follows again.");
    this._drawAgain();
  }

  follow() {
    (this.view === "raw" ? this._rawRows : this._rows).follow();
  }

  focusFilter() {
    this._filter.focus();
  }

  toTop() {
    if (this.view === "raw") this.show("story");
    this._rows.readFromStart();
  }

  showArtifact(artifactId) {
    const item = this.story.items.findLast((each) => each.kind === "artifact" && each.artifactId === artifactId);
    if (item) this._reveal(item.key);
  }

  // --- drawing ---

  /** Once per frame at most. `isRunning`: it has begun and not ended; `openedAt`: when the page first had a connection;
   * `isSettled`: the history is there. */
  draw(now, { isRunning, openedAt, isSettled }) {
    this._now = now;
    this._isRunning = isRunning;
    this._openedAt = openedAt;
    this.toolbar.showFrozen(this._isFrozen, isRunning || this._isFrozen);
    this.toolbar.showCount(this.ring.count);
    this._drawRows(this._isOther);
    this._isOther = false;
    if (isSettled) this._beginAtStart();
  }

  tick(now) {
    this._now = now;
    this._rows.tick();
    if (this._isRunning && !this._isFrozen) this._drawTimeline();
  }

  /** Another filter or view. */
  _drawAgain() {
    this.toolbar.showFrozen(this._isFrozen, this._isRunning || this._isFrozen);
    this._drawRows(true);
  }

  _drawRows(isOther) {
    this._frozen.hidden = !this._isFrozen;
    const news = plural(this.story.count - this._frozenAt, "new event");
    if (this._isFrozen) setText(this._frozen, `The view is frozen; the agent goes on. ${news} since.`);
    if (this._isFrozen && !isOther) return;
    const changed = this.story.takeChanges();
    for (const item of changed) this._words.delete(item);
    if (this.view === "raw") this._rawRows.show(this._rawItems(), undefined, isOther);
    else this._rows.show(this._items(), (item) => changed.has(item), isOther);
    if (this.view === "raw" && changed.size) this._stale = true;
    else if (this._stale) this._refresh();
    this._drawTimeline(isOther);
  }

  /** Update rows that changed while the raw events were shown. */
  _refresh() {
    this._stale = false;
    this._rows.show(this._items(), () => true);
  }

  /** At once, or a moment later when the story is long. */
  _drawTimeline(isOther = false) {
    if (this.view !== "timeline" || this.story.startedAt === null) return;
    const begun = performance.now();
    if (begun < this._restsUntil && !isOther) {
      this._later ??= setTimeout(() => {
        this._later = null;
        this._drawTimeline();
      }, this._restsUntil - begun);
      return;
    }
    const { startedAt, endedAt } = this.story;
    const passes = (item) => this._filter.passesItem(item, (each) => this._wordsOf(each));
    const spans = spansOf(this.story, this._filter.isOn ? passes : undefined);
    const now = endedAt ?? Math.max(this._clock.now(), startedAt);
    this._timeline.show(spans, { origin: startedAt, now, isLive: endedAt === null });
    const done = performance.now();
    this._restsUntil = done + (done - begun) * REST;
  }

  /** An execution that was over when it was opened is shown from its beginning. */
  _beginAtStart() {
    if (this._isPlaced || !this.story.items.length) return;
    this._isPlaced = true;
    if (this._wasOver()) this._rows.readFromStart();
  }

  _wasOver() {
    return this.story.endedAt !== null && this.story.endedAt < (this._openedAt ?? Date.now()) - 1_000;
  }

  _items() {
    const { items } = this.story;
    if (!this._filter.isOn && !items.some((item) => item.isVoid)) return items;
    return items.filter(
      (item) =>
        (!item.isVoid || this._opened.has(item.attempt)) &&
        this._filter.passesItem(item, (each) => this._wordsOf(each)),
    );
  }

  _rawItems() {
    if (!this._filter.isOn) return this.ring.items;
    return this.ring.items.filter((item) => this._filter.passesEvent(item.event.type, () => rawWordsOf(item)));
  }

  _wordsOf(item) {
    if (!this._words.has(item)) this._words.set(item, wordsOf(item));
    return this._words.get(item);
  }

  _showView() {
    const isRaw = this.view === "raw";
    this.toolbar.showView(this.view);
    this._timeline.node.hidden = this.view !== "timeline";
    this._rows.node.hidden = isRaw;
    this._rawRows.node.hidden = !isRaw;
  }

  _toggleAttempt(attempt) {
    if (!this._opened.delete(attempt)) this._opened.add(attempt);
    this._drawAgain();
  }

  // --- a row of the story ---

  _showSpan({ item, shownAt }, isByKey) {
    if (item.isVoid && !this._opened.has(item.attempt)) this._toggleAttempt(item.attempt);
    this._reveal(shownAt, isByKey);
  }

  _reveal(key, isFocused = false) {
    if (this.view === "raw") this.show("story");
    const node = this._rows.reveal(key);
    if (!node) return;
    if (isFocused) {
      node.tabIndex = -1;
      node.focus({ preventScroll: true });
    }
    node.classList.add("is-found");
    setTimeout(() => node.classList.remove("is-found"), FOUND_MS);
  }
}
