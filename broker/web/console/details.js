/** The details beside the timeline: usage, artifacts, connection, execution. */

import { described, losses } from "./connection-status.js";
import { Keyed, h, setAttribute, setText } from "./dom.js";
import { compact, milliseconds, moment, money, whole } from "./format.js";
import { icon } from "./icons.js";
import { isolated, line } from "./text.js";

export class Details {
  /** `onCopy()` copies the id, `onArtifact(artifactId)` shows an artifact in the timeline. */
  constructor(executionId, { onCopy, onArtifact }) {
    this._usage = new Facts("Usage", "usage");
    this._connection = new Facts("Connection", "connection");
    this._about = new Facts("Execution", "about");
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
      this._usage.node,
      this._artifacts,
      this._connection.node,
      this._about.node,
    );
    this._about.node.append(this._id);
  }

  show(state, status, events) {
    this._showUsage(state);
    this._artifacts.hidden = !state.artifacts.length;
    this._keyed.show(state.artifacts, () => false);
    this._connection.show(connectionFacts(status, events));
    this._about.show(aboutFacts(state));
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
    ["Lost", losses(status.resets)],
  ];
}

function aboutFacts(state) {
  return [
    ["Agent", state.agent ? line(state.agent, 80) : null],
    ["Attempt", state.attempt > 1 ? whole(state.attempt) : null],
    ["Started", state.startedAt ? moment(state.startedAt) : null],
    ["Ended", state.endedAt ? moment(state.endedAt) : null],
  ];
}

/** A list of names and values. Values that are null are left out; a part without values is hidden. */
class Facts {
  constructor(title, name) {
    this._values = h("dl", { class: "pairs" });
    this.node = h("section", { class: `rail-part rail-${name}` }, h("h2", {}, title), this._values);
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
    setText(this._value, value);
    setAttribute(this._value, "data-tone", tone);
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
