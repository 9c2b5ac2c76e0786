/** A row of the timeline: what it is, its bar, how long it took. */

import { h, setAttribute, setText } from "./dom.js";
import { duration, offset } from "./format.js";
import { summary } from "./json-view.js";
import { line, visible } from "./text.js";

const KINDS = {
  queue: "Queue",
  attempt: "Attempt",
  phase: "Phase",
  tool: "Tool",
  model: "Model call",
  team: "Specialist",
  child: "Child",
  person: "Person",
  text: "Text",
  thought: "Thought",
  note: "Note",
};
/** What tells calls of one tool apart. */
const detailOf = ({ kind, item }) => (kind === "tool" ? summary(item.params, 60) : "");

const STATUSES = {
  running: "running",
  complete: "",
  error: "failed",
  interrupted: "interrupted",
  waiting: "waiting",
  pending: "pending",
  detached: "goes on",
};

export class TimelineRow {
  constructor() {
    this._name = h("bdi", { class: "timeline-name" });
    this._more = h("bdi", { class: "timeline-more" });
    this._what = h(
      "span",
      { class: "timeline-what", role: "rowheader" },
      h("i", { class: "dot" }),
      this._name,
      this._more,
    );
    this._begin = h("span", { class: "unseen", role: "gridcell" });
    this._state = h("span", { class: "unseen" });
    this._bar = h("i", { class: "bar-of" });
    this._track = h("span", { class: "timeline-track", role: "gridcell" }, this._bar, this._state);
    this._time = h("span", { class: "timeline-time numbers", role: "gridcell" });
    this.node = h("div", { class: "timeline-row", role: "row" }, this._what, this._begin, this._track, this._time);
  }

  /** It is the row of this number now. */
  place(id, index) {
    setAttribute(this.node, "id", id);
    setAttribute(this.node, "data-index", String(index));
    setAttribute(this.node, "aria-rowindex", String(index + 2));
    this.node.style.setProperty("--row", String(index));
  }

  show(span, domain, origin, now, isActive) {
    const end = span.end ?? now;
    setText(this._name, visible(line(span.label, 160)) || KINDS[span.kind]);
    setText(this._more, [span.who ? line(span.who, 40) : "", detailOf(span)].filter(Boolean).join(" · "));
    const kind = KINDS[span.kind];
    const status = STATUSES[span.status] ?? "";
    setText(this._begin, `at ${offset(span.begin - origin)}`);
    setText(this._state, [kind, status, span.isVoid ? "void" : ""].filter(Boolean).join(", "));
    setText(this._time, span.isPoint ? "" : duration((end - span.begin) / 1000));
    setAttribute(this.node, "aria-selected", String(isActive));
    setAttribute(this.node, "data-kind", span.kind);
    setAttribute(this.node, "data-status", span.isVoid ? "void" : span.status);
    setAttribute(this.node, "title", [kind, status, offset(span.begin - origin)].filter(Boolean).join(", "));
    this._bar.classList.toggle("is-point", span.isPoint || end - span.begin < 1);
    const style = this.node.style;
    style.setProperty("--depth", String(span.depth));
    const [from, to] = [domain.percent(span.begin - origin), domain.percent(end - origin)];
    this._bar.hidden = to < 0 || from > 100;
    style.setProperty("--from", String(Math.max(0, Math.min(100, from))));
    style.setProperty("--to", String(Math.max(0, Math.min(100, to))));
  }
}
