/** What a run was given and what came out, above its story: input and result side by side. */

import { h, setAttribute } from "./dom.js";
import { duration, isOver } from "./format.js";
import { valueView } from "./json-view.js";
import { MarkdownView } from "./markdown-view.js";
import { block, isolated, line } from "./text.js";

/** A longer task is not whole in the title of the page. */
const TITLE_CHARACTERS = 120;
/** What an edge puts in the place of a credential. */
const REDACTED = "[redacted]";

export class Summary {
  constructor() {
    this._input = new Part("Input");
    this._result = new Part("Result");
    this.node = h("section", { class: "summary", "aria-label": "Input and result", hidden: true });
    this.node.append(this._input.node, this._result.node);
  }

  /** `request`: what it was started with, as the edge has it; null if that is not known. */
  show(state, request) {
    this._input.show(`${state.task} ${request !== null}`, () => inputNodes(state, request));
    this._result.show(isOver(state.status) ? state.cursor : "", () => resultNodes(state));
    setAttribute(this._result.node, "data-state", state.status);
    this.node.hidden = this._input.node.hidden && this._result.node.hidden;
  }
}

/** A titled part, built again only when its key changes; hidden without content. */
class Part {
  constructor(title) {
    this._content = h("div", { class: "summary-content", tabindex: "0", role: "group", "aria-label": title });
    this.node = h("div", { class: "summary-part", hidden: true }, h("h2", {}, title), this._content);
    this._key = null;
  }

  show(key, make) {
    if (key === this._key) return;
    this._key = key;
    const nodes = key ? make() : [];
    this._content.replaceChildren(...nodes);
    this.node.hidden = nodes.length === 0;
  }
}

function inputNodes({ task }, request) {
  const params = request?.params ?? {};
  const nodes = [];
  if (task && (task.length > TITLE_CHARACTERS || task.includes("\n"))) nodes.push(block(task, { most: 600 }));
  if (Object.keys(params).length) nodes.push(valueView(params));
  if (hasRedacted(params)) nodes.push(h("p", { class: "muted" }, "Credentials are not kept."));
  return nodes;
}

/** Whether a credential was replaced in it. */
export function hasRedacted(value) {
  return JSON.stringify(value ?? null).includes(REDACTED);
}

function resultNodes({ status, result, error, cancelled, duration: seconds }) {
  if (status === "failed" && error) {
    const code = error.code && h("code", { class: "code-tag" }, isolated(line(error.code, 80)));
    return [h("p", { class: "summary-state" }, "Failed ", code), block(error.error, { className: "error-text" })];
  }
  if (status === "cancelled") {
    const by = cancelled?.by ? [" by ", isolated(line(cancelled.by, 120))] : "";
    const why = cancelled?.reason && block(cancelled.reason);
    return [h("p", { class: "summary-state" }, "Cancelled", by), ...(why ? [why] : [])];
  }
  if (result === null || result === undefined) {
    const time = seconds === null || seconds === undefined ? "" : ` in ${duration(seconds)}`;
    return [h("p", { class: "muted" }, `Completed${time}, without a result.`)];
  }
  return [typeof result === "string" ? prose(result) : valueView(result)];
}

function prose(text) {
  const view = new MarkdownView();
  view.update(text);
  return view.node;
}
