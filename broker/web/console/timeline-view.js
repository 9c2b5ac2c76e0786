/**
 * The timeline: a row for each span, its bar on one axis of time. A grid for keyboards and screen readers, of which the
 * page holds only the rows in view.
 */

import { h, setAttribute } from "./dom.js";
import { icon } from "./icons.js";
import { Overview } from "./timeline-overview.js";
import { TimelineRow } from "./timeline-row.js";
import { TimeWindow } from "./time-scale.js";
import { MAX_PRINTED, showRest } from "./virtual-list.js";

/** As in timeline.css. */
const ROW_PX = 26;
const SPARE_ROWS = 6;
const PX_PER_TICK = 90;
/** A label of the axis. */
const TICK_PX = 40;
const ZOOM = 1.6;

let numbers = 0;

export class TimelineView {
  /** `onSelect(span, isByKey)`: a row was chosen. `label`: its accessible name; `domain`: a window that another timeline
   * shares. */
  constructor({ label = "Timeline", onSelect, domain = new TimeWindow() }) {
    this._id = `timeline-${(numbers += 1)}`;
    this._onSelect = onSelect;
    this.domain = domain;
    this._spans = [];
    this._origin = 0;
    this._active = -1;
    this._rows = new Map();
    this._label = label;
    this._build();
    this._spare = [];
    this._sizes = new ResizeObserver(() => this._measure());
    this._sizes.observe(this._ticks);
    this._sizes.observe(this._scroller);
    this._isPrinting = false;
    this._print = { before: () => this._drawForPaper(true), after: () => this._drawForPaper(false) };
    addEventListener("beforeprint", this._print.before);
    addEventListener("afterprint", this._print.after);
  }

  end() {
    this._sizes.disconnect();
    this._overview.end();
    removeEventListener("beforeprint", this._print.before);
    removeEventListener("afterprint", this._print.after);
  }

  /** Show these spans. `origin`: when it began; `now`: until when it lasts, or lasted; `isLive`: it goes on. */
  show(spans, { origin, now, isLive }) {
    const wasAtEnd = isLive && this._isAtEnd();
    this._origin = origin;
    this._now = now;
    this._spans = spans;
    this.domain.total = Math.max(1, now - origin, this.domain.least ?? 0);
    this.node.style.setProperty("--rows", String(Math.max(1, spans.length)));
    this._canvas.style.height = `${spans.length * ROW_PX}px`;
    setAttribute(this._grid, "aria-rowcount", String(spans.length + 1));
    this._empty.hidden = spans.length > 0;
    if (wasAtEnd) this._scroller.scrollTop = this._scroller.scrollHeight;
    this._overview.show(spans, origin, now);
    this._draw();
  }

  focus() {
    this._scroller.focus({ preventScroll: true });
  }

  redraw() {
    this._overview.draw();
    this._draw();
  }

  // --- the page ---

  _build() {
    this._ticks = h("div", { class: "timeline-ticks", "aria-hidden": "true" });
    this._lines = h("div", { class: "timeline-track" });
    this._behind = h("div", { class: "timeline-lines", "aria-hidden": "true" }, this._lines);
    this._canvas = h("div", { class: "timeline-canvas", role: "rowgroup" });
    const header = (name, text) => h("span", { class: name, role: "columnheader" }, text);
    this._head = h(
      "div",
      { class: "timeline-head", role: "row", "aria-rowindex": "1" },
      header("timeline-what", "What"),
      header("unseen", "Began"),
      h("span", { class: "timeline-track", role: "columnheader", "aria-label": "State" }, this._ticks),
      header("timeline-time", "Took"),
    );
    this._scroller = h(
      "div",
      {
        class: "timeline-scroller",
        role: "grid",
        tabindex: "0",
        "aria-label": this._label,
        "aria-describedby": `${this._id}-hint`,
        onkeydown: (event) => this._key(event),
        onclick: (event) => this._click(event),
        ondblclick: (event) => this._zoomTo(this._indexAt(event)),
      },
      h("div", { role: "rowgroup", class: "timeline-sticky" }, this._head),
      this._canvas,
    );
    this._grid = this._scroller;
    this._scroller.addEventListener("scroll", () => this._drawRows(), { passive: true });
    this._scroller.addEventListener("wheel", (event) => this._wheel(event), { passive: false });
    this._overview = new Overview(this.domain, () => this._changed());
    this._empty = h("p", { class: "timeline-empty muted" }, "Nothing to show yet.");
    const button = (label, name, act) =>
      h(
        "button",
        { type: "button", class: "button quiet small square", "aria-label": label, title: label, onclick: act },
        icon(name),
      );
    this._rest = h("p", { class: "rows-rest muted", hidden: true });
    this._reset = h("button", { type: "button", class: "button quiet small", onclick: () => this._fit() }, "Whole run");
    this.node = h(
      "section",
      { class: "timeline", "aria-label": this._label },
      h(
        "div",
        { class: "timeline-bar" },
        this._overview.node,
        button("Zoom out (−)", "minus", () => this._zoom(1 / ZOOM)),
        button("Zoom in (+)", "add", () => this._zoom(ZOOM)),
        this._reset,
      ),
      h("div", { class: "timeline-frame" }, this._behind, this._scroller, this._empty),
      this._rest,
      h(
        "p",
        { class: "unseen", id: `${this._id}-hint` },
        "Arrows up and down move, Enter shows the row in the story, plus and minus zoom, left and right move in time, 0 shows the whole run.",
      ),
    );
  }

  // --- drawing ---

  _draw() {
    this._drawRows(true);
    this._drawAxis();
    this._reset.disabled = !this.domain.isZoomed;
  }

  _rowsInView() {
    if (this._isPrinting) return [0, Math.min(this._spans.length, MAX_PRINTED)];
    const { scrollTop, clientHeight } = this._scroller;
    const first = Math.max(0, Math.floor(scrollTop / ROW_PX) - SPARE_ROWS);
    return [first, Math.min(this._spans.length, Math.ceil((scrollTop + clientHeight) / ROW_PX) + SPARE_ROWS)];
  }

  _drawForPaper(isPrinting) {
    this._isPrinting = isPrinting;
    const count = isPrinting ? Math.min(this._spans.length, MAX_PRINTED) : this._spans.length;
    this._canvas.style.height = `${count * ROW_PX}px`;
    showRest(this._rest, this._spans.length - count);
    this._draw();
  }

  /** The rows in view; those that are there already only if they changed. Rows that left the view are used again. */
  _drawRows(haveChanged = false) {
    const [first, last] = this._rowsInView();
    for (const [index, row] of this._rows)
      if (index < first || index >= last) {
        this._rows.delete(index);
        this._spare.push(row);
      }
    for (let index = first; index < last; index += 1) {
      const known = this._rows.get(index);
      if (known && !haveChanged) continue;
      const row = known ?? this._place(index);
      row.show(this._spans[index], this.domain, this._origin, this._now, index === this._active);
    }
    for (const row of this._spare) row.node.remove();
    this._spare = [];
    const isThere = this._rows.has(this._active);
    setAttribute(this._grid, "aria-activedescendant", isThere ? `${this._id}-${this._active}` : null);
  }

  _place(index) {
    const row = this._spare.pop() ?? new TimelineRow();
    row.place(`${this._id}-${index}`, index);
    this._rows.set(index, row);
    if (!row.node.isConnected) this._canvas.append(row.node);
    return row;
  }

  _measure() {
    const { offsetWidth, clientWidth } = this._scroller;
    this._width = this._ticks.clientWidth;
    this._behind.style.setProperty("--scrollbar", `${offsetWidth - clientWidth}px`);
    this._draw();
  }

  _drawAxis() {
    const width = this._width || 600;
    const key = `${this.domain.from} ${this.domain.to} ${width}`;
    if (key === this._axis) return;
    this._axis = key;
    const ticks = this.domain.ticks(Math.max(2, width / PX_PER_TICK));
    const hasRoom = ({ at }) => width * (1 - this.domain.percent(at) / 100) >= TICK_PX;
    const placed = (name, tick, text = "") => {
      const node = h("span", { class: name }, text);
      node.style.setProperty("--at", String(this.domain.percent(tick.at)));
      return node;
    };
    this._ticks.replaceChildren(
      ...ticks.filter((tick) => hasRoom(tick)).map((tick) => placed("tick", tick, tick.label)),
    );
    this._lines.replaceChildren(...ticks.map((tick) => placed("tick-line", tick)));
  }

  _changed() {
    this.redraw();
    this.onZoom?.();
  }

  _isAtEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this._scroller;
    return scrollHeight - scrollTop - clientHeight < ROW_PX * 2;
  }

  // --- actions ---

  _zoom(factor, place) {
    this.domain.zoom(factor, place);
    this._changed();
  }

  _fit() {
    this.domain.reset();
    this._changed();
  }

  /** Zoom to a span, with some time around it. */
  _zoomTo(index) {
    const span = this._spans[index];
    if (!span) return;
    const [from, to] = [span.begin - this._origin, (span.end ?? this._now) - this._origin];
    const margin = Math.max((to - from) * 0.1, 5);
    this.domain.set(from - margin, to + margin);
    this._changed();
  }

  _wheel(event) {
    const track = this._head.querySelector(".timeline-track").getBoundingClientRect();
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      const place = Math.max(0, Math.min(1, (event.clientX - track.left) / track.width));
      this._zoom(Math.exp(-event.deltaY / 300), place);
    } else if (this.domain.isZoomed && Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      event.preventDefault();
      this.domain.pan(event.deltaX / track.width);
      this._changed();
    }
  }

  _key(event) {
    const page = Math.max(1, Math.floor(this._scroller.clientHeight / ROW_PX) - 2);
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    const acts = {
      Enter: () => this._select(this._active, true),
      "+": () => this._zoom(ZOOM),
      "=": () => this._zoom(ZOOM),
      "-": () => this._zoom(1 / ZOOM),
      0: () => this._fit(),
      z: () => this._zoomTo(this._active),
      ArrowLeft: () => this.domain.isZoomed && (this.domain.pan(-0.2), this._changed()),
      ArrowRight: () => this.domain.isZoomed && (this.domain.pan(0.2), this._changed()),
    };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in moves) this._move(moves[event.key]);
    else if (event.key in acts) acts[event.key]();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  _move(by) {
    const last = this._spans.length - 1;
    this._active = Math.max(0, Math.min(last, this._active < 0 && by === 1 ? 0 : this._active + by));
    const [top, height] = [this._active * ROW_PX, this._scroller.clientHeight - this._head.clientHeight];
    const { scrollTop } = this._scroller;
    if (top < scrollTop) this._scroller.scrollTop = top;
    else if (top + ROW_PX > scrollTop + height) this._scroller.scrollTop = top + ROW_PX - height;
    this._draw();
  }

  _indexAt(event) {
    const row = event.target.closest(".timeline-row");
    return row ? Number(row.dataset.index) : -1;
  }

  _click(event) {
    const index = this._indexAt(event);
    if (index >= 0) this._select(index, false);
  }

  _select(index, isByKey) {
    if (!this._spans[index]) return;
    this._active = index;
    this._draw();
    this._onSelect?.(this._spans[index], isByKey);
  }
}
