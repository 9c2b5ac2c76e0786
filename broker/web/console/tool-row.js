/** The row of a tool call: one line that expands to its parameters and its result. */

import { h, setAttribute, setShare, setText } from "./dom.js";
import { duration, running } from "./format.js";
import { icon } from "./icons.js";
import { summaryNodes, valueView } from "./json-view.js";
import { block, line, isolated, visible } from "./text.js";

const GLYPHS = { complete: "check", error: "cross", interrupted: "dash" };
const STATUS_TEXTS = { running: "running", complete: "done", error: "failed", interrupted: "interrupted" };

export class ToolRow {
  constructor(item, clock) {
    this._clock = clock;
    this._status = null;
    this._glyph = h("span", { class: "row-icon" });
    this._state = h("span", { class: "unseen" });
    this._outcome = h("span", { class: "call-outcome" });
    this._time = h("span", { class: "call-time numbers" });
    this._detail = h("div", { class: "call-detail", hidden: true });
    this._meter = h("div", { class: "meter", hidden: true }, h("i"));
    this._button = h(
      "button",
      { type: "button", class: "call-line", "aria-expanded": "false", onclick: () => this._toggle() },
      h("code", { class: "call-name" }, h("bdi", {}, line(item.name, 80))),
      h("span", { class: "call-params" }, summaryNodes(item.params)),
      this._outcome,
      this._state,
      this._time,
      icon("chevron", "call-chevron"),
    );
    this.node = h("div", { class: "call" }, this._glyph, this._button, this._meter, this._detail);
    this.update(item);
  }

  update(item) {
    this._item = item;
    if (this._statusOf(item) !== this._status) this._change(item);
    const isRunning = this._status === "running";
    setAttribute(this._meter, "hidden", isRunning && item.progress !== null ? null : "");
    if (item.progress !== null) setShare(this._meter, item.progress);
    if (isRunning) setText(this._outcome, item.message ? visible(line(item.message, 120)) : "");
    this.tick();
  }

  /** Show the elapsed time, by the emitter's clock. */
  tick() {
    const item = this._item;
    if (this._status !== "running") return;
    const elapsed = this._clock.now() - item.at;
    setText(this._time, elapsed >= 1000 ? running(elapsed) : "");
  }

  _statusOf(item) {
    return item.status === "running" && item.isVoid ? "interrupted" : item.status;
  }

  _change(item) {
    this._status = this._statusOf(item);
    this.node.className = `call is-${this._status}`;
    this._glyph.replaceChildren(
      this._status === "running" ? h("span", { class: "spinner" }) : icon(GLYPHS[this._status]),
    );
    setText(this._state, `, ${STATUS_TEXTS[this._status]}`);
    setText(this._time, item.duration === undefined ? "" : duration(item.duration));
    this._outcome.replaceChildren(
      ...(this._status === "error"
        ? [icon("arrow", "call-arrow"), isolated(line(item.error, 160))]
        : outcomeNodes(item.result)),
    );
    if (!this._detail.hidden) this._fill();
  }

  _toggle() {
    const open = this._detail.hidden;
    this._detail.hidden = !open;
    setAttribute(this._button, "aria-expanded", String(open));
    if (open) this._fill();
    else this._detail.replaceChildren();
  }

  /** Built only when the row is expanded. */
  _fill() {
    const { params, result, error, status } = this._item;
    const parts = [
      part("Parameters", params === undefined ? h("span", { class: "literal" }, "unknown") : valueView(params)),
    ];
    if (status === "complete") parts.push(part("Result", valueView(result)));
    if (status === "error") parts.push(part("Error", block(error, { className: "bad" })));
    this._detail.replaceChildren(...parts);
  }
}

function outcomeNodes(result) {
  const nodes = result === undefined || result === null ? [] : summaryNodes(result);
  return nodes.length ? [icon("arrow", "call-arrow"), ...nodes] : [];
}

function part(title, content) {
  return h("section", {}, h("h4", {}, title), content);
}
