/** The details beside the story: the run, its input, usage, artifacts, and, folded, the connection. */

import { described, losses } from "./connection-status.js";
import { Keyed, h, setAttribute, setText } from "./dom.js";
import { compact, label, milliseconds, money, whole } from "./format.js";
import { icon } from "./icons.js";
import { summary } from "./json-view.js";
import { runFacts } from "./run-facts.js";
import { isolated, line, visible } from "./text.js";

/** Parameters that are listed; above the story are all. */
const MAX_PARAMS = 8;

export class Details {
  /** `onCopy()` copies the id, `onArtifact(artifactId)` shows an artifact in the story, `onInput()` the input. */
  constructor(executionId, { onCopy, onArtifact, onInput }) {
    this._run = new Facts("Run", "run");
    this._input = new Facts("Input", "input");
    this._usage = new Facts("Usage", "usage");
    this._connection = new Facts("Connection", "connection", { isFolded: true });
    const all = { type: "button", class: "link-button", onclick: onInput };
    this._input.node.append(h("button", all, "Show all"));
    this._list = h("ul", { class: "artifact-list" });
    this._artifacts = h("section", { class: "rail-part", hidden: true }, h("h2", {}, "Artifacts"), this._list);
    this._keyed = new Keyed(
      this._list,
      (item) => item.artifactId,
      (item) => artifactEntry(item, onArtifact),
    );
    this._id = h(
      "button",
      { type: "button", class: "copy-id mono", onclick: onCopy, title: "Copy the execution's id" },
      h("span", {}, executionId),
      icon("copy"),
    );
    this.node = h(
      "aside",
      { class: "rail", "aria-label": "Details" },
      this._run.node,
      this._input.node,
      this._usage.node,
      this._artifacts,
      this._connection.node,
    );
    this._run.node.append(this._id);
  }

  /** `request` and `waits` as in `runFacts`; `events`: how many were received. */
  show({ state, status, request, waits, events, now }) {
    this._run.show(runFacts(state, request, waits, now));
    this._input.show(inputFacts(request));
    this._showUsage(state);
    this._artifacts.hidden = !state.artifacts.length;
    this._keyed.show(state.artifacts, () => false);
    this._connection.show(connectionFacts(status, events));
  }

  _showUsage({ usage, messages }) {
    const model = usage?.model ?? messages?.findLast?.((message) => message.usage?.model)?.usage.model;
    this._usage.show(
      usage
        ? [
            ["Tokens in", whole(usage.inputTokens)],
            ["Tokens out", whole(usage.outputTokens)],
            ["Cost", usage.costUsd === null || usage.costUsd === undefined ? null : money(usage.costUsd)],
            ["Model", model ? line(model, 60) : null],
          ]
        : [],
    );
  }
}

function connectionFacts(status, events) {
  const { word, tone } = described(status);
  return [
    ["State", word, tone],
    ["Last event", status.lastEventId ?? "none", "id"],
    ["Received", compact(events)],
    ["Replayed", compact(status.replayed)],
    ["Latency", status.latencyMs === null ? null : milliseconds(status.latencyMs)],
    ["Reconnects", whole(status.reconnects)],
    ["Lost", losses(status.resets), "warn"],
  ];
}

function inputFacts(request) {
  const params = Object.entries(request?.params ?? {}).slice(0, MAX_PARAMS);
  return params.map(([name, value]) => [visible(line(label(name), 60)), summary(value, 80) || "…"]);
}

/** A list of names and values. Values that are null are left out; a part without values is hidden. `isFolded`: it is
 * opened by its title. */
class Facts {
  constructor(title, name, { isFolded = false } = {}) {
    this._values = h("dl", { class: "pairs" });
    this.node = isFolded
      ? h("details", { class: `rail-part rail-${name}` }, h("summary", {}, h("h2", {}, title)), this._values)
      : h("section", { class: `rail-part rail-${name}` }, h("h2", {}, title), this._values);
    this._keyed = new Keyed(
      this._values,
      ([key]) => key,
      (fact) => new Fact(fact),
    );
  }

  show(facts) {
    const shown = facts.filter(([, value]) => value !== null && value !== undefined);
    this.node.hidden = shown.length === 0;
    this._keyed.show(shown);
  }
}

class Fact {
  constructor(fact) {
    this._value = h("dd", { class: "numbers" });
    this.node = h("div", {}, h("dt", {}, fact[0]), this._value);
    this.update(fact);
  }

  update([, value, tone = null]) {
    if (value.href) this._link(value);
    else setText(this._value, value);
    setAttribute(this._value, "data-tone", tone);
  }

  _link({ text, href }) {
    if (this._value.textContent === text) return;
    this._value.replaceChildren(h("a", { class: "link", href }, text));
  }
}

function artifactEntry(item, onArtifact) {
  const name = String(item.name ?? item.artifactId);
  const short = name.split("/").at(-1) || name;
  return {
    node: h(
      "li",
      {},
      h(
        "button",
        { type: "button", class: "link-button", title: line(name, 300), onclick: () => onArtifact(item.artifactId) },
        icon("document"),
        isolated(line(short, 60)),
      ),
    ),
  };
}
