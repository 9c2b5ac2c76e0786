/** Cards of specialists side by side: task, progress and findings of each. */

import { Keyed, h, setAttribute, setShare, setText } from "./dom.js";
import { duration, label } from "./format.js";
import { icon, specialistIcon } from "./icons.js";
import { summary, valueView } from "./json-view.js";
import { MarkdownView } from "./markdown-view.js";
import { block, line, visible } from "./text.js";
import { ToolRow } from "./tool-row.js";

const SHOWN_STEPS = 4;
const STATUS_TEXTS = { active: "working", complete: "done", interrupted: "interrupted", failed: "failed" };
const GLYPHS = { complete: "check", interrupted: "dash", failed: "cross" };

export class TeamRow {
  constructor(item, clock) {
    this._grid = h("ul", { class: "team" });
    this._synthesis = h("p", { class: "synthesis said", dir: "auto", hidden: true });
    this._cards = new Keyed(
      this._grid,
      (member) => member.name,
      (member) => new MemberCard(member, clock),
    );
    this.node = h("div", { class: "team-frame" }, this._grid, this._synthesis);
    this.update(item);
  }

  update(item) {
    this._cards.show([...item.members.values()]);
    const said = item.synthesis?.message;
    setAttribute(this._synthesis, "hidden", said ? null : "");
    if (said) setText(this._synthesis, visible(String(said).slice(0, 2_000)));
  }

  tick() {
    for (const card of this._cards.views()) card.tick();
  }
}

class MemberCard {
  constructor(member, clock) {
    this._isWhole = false;
    this._state = h("span", { class: "member-state" });
    this._action = h("p", { class: "member-action said", dir: "auto" });
    this._meter = h("div", { class: "meter" }, h("i"));
    this._steps = h("ul", { class: "member-steps" });
    this._more = h("button", { type: "button", class: "link-button", hidden: true, onclick: () => this._showAll() });
    this._summary = h("div", { class: "member-summary" });
    this._rows = new Keyed(
      this._steps,
      (step) => step.key,
      (step) => stepView(step, clock),
    );
    this.node = h(
      "li",
      { class: "member" },
      h(
        "div",
        { class: "member-head" },
        specialistIcon(member.icon),
        h("h3", {}, h("bdi", {}, line(member.name, 60))),
        this._state,
      ),
      member.task && h("p", { class: "member-task said", dir: "auto" }, line(member.task, 200)),
      this._meter,
      this._action,
      this._more,
      this._steps,
      this._summary,
    );
    this.update(member);
  }

  update(member) {
    this._member = member;
    const done = member.status !== "active";
    const hasFailed = member.status === "complete" && /^failed\b/i.test(member.summary ?? "");
    const status = hasFailed ? "failed" : member.status;
    this.node.className = `member is-${status}`;
    setShare(this._meter, done ? 100 : (member.progress ?? 0));
    setAttribute(this._meter, "hidden", done ? "" : null);
    setText(this._action, done ? "" : line(member.action ?? "Starting", 160));
    setAttribute(this._action, "hidden", done ? "" : null);
    this._showState(member, status);
    this._showSteps(member);
    this._showSummary(member);
  }

  tick() {
    for (const view of this._rows.views()) view.tick?.();
  }

  _showState(member, status) {
    const isActive = status === "active";
    const text = isActive ? `${Math.round(member.progress ?? 0)} %` : duration((member.endedAt - member.at) / 1000);
    if (this._shown === `${status} ${text}`) return;
    this._shown = `${status} ${text}`;
    this._state.replaceChildren(
      isActive ? "" : icon(GLYPHS[status]),
      h("span", { class: "numbers" }, text),
      h("span", { class: "unseen" }, `, ${STATUS_TEXTS[status]}`),
    );
  }

  _showSteps(member) {
    const shown = this._isWhole ? member.steps : member.steps.slice(-SHOWN_STEPS);
    const left = member.steps.length - shown.length;
    setAttribute(this._more, "hidden", left ? null : "");
    setText(this._more, left ? `Show ${left} earlier` : "");
    this._rows.show(shown);
  }

  _showAll() {
    this._isWhole = true;
    this._showSteps(this._member);
  }

  _showSummary(member) {
    if (!member.summary || this._summary.firstChild) return;
    this._summary.append(block(member.summary, { most: 500 }));
  }
}

/** A step of a specialist, in small. */
function stepView(step, clock) {
  if (step.kind === "tool") return wrapped(new ToolRow(step, clock));
  if (step.kind === "text") return proseStep(step);
  if (step.kind === "result") return { node: h("li", {}, new Finding(step.value).node) };
  const said = step.text ?? step.title ?? step.prompt ?? step.name ?? "";
  const node = h("li", { class: "step-said said", dir: "auto" }, line(said, 400));
  return { node, update: (item) => item.text !== undefined && setText(node, line(item.text, 400)) };
}

function wrapped(row) {
  return { node: h("li", {}, row.node), update: (item) => row.update(item), tick: () => row.tick() };
}

function proseStep(step) {
  const prose = new MarkdownView();
  prose.update(step.text);
  return { node: h("li", {}, prose.node), update: (item) => prose.update(item.text) };
}

/** A partial result in a card: a title that expands to the whole value. */
class Finding {
  constructor(value) {
    this._value = value;
    const { title, rest } = headline(value);
    this._detail = h("div", { class: "finding-detail", hidden: true });
    this._button = h(
      "button",
      { type: "button", class: "finding-line", "aria-expanded": "false", onclick: () => this._toggle() },
      title && h("bdi", { class: "finding-title said" }, title),
      rest && h("bdi", { class: "finding-rest said" }, visible(line(rest, 300))),
    );
    this.node = h("div", { class: "finding" }, this._button, this._detail);
  }

  _toggle() {
    const open = this._detail.hidden;
    this._detail.hidden = !open;
    this._button.setAttribute("aria-expanded", String(open));
    this._detail.replaceChildren(...(open ? [valueView(this._value)] : []));
  }
}

/** The first short text of a value is its title. */
function headline(value) {
  if (value === null || typeof value !== "object" || Array.isArray(value))
    return { title: summary(value, 200) || "Result", rest: "" };
  const entries = Object.entries(value).filter(([, each]) => each !== null && typeof each !== "object");
  const first = entries.find(([, each]) => typeof each === "string" && each.length < 120);
  if (!first)
    return {
      title: "",
      rest:
        entries
          .slice(0, 6)
          .map(([key, each]) => `${label(key).toLowerCase()} ${summary(each)}`)
          .join(", ") || "Result",
    };
  const others = entries.filter((entry) => entry !== first).slice(0, 3);
  return { title: line(first[1], 120), rest: others.map(entryText).join(" · ") };
}

/** A number is shown with its key, a word without. */
function entryText([key, value]) {
  return typeof value === "number" ? `${label(key).toLowerCase()} ${summary(value)}` : summary(value, 40);
}
