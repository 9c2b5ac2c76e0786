/** The header of an execution page: state, agent, task, progress and actions. */

import { Keyed, h, setAttribute, setShare, setText } from "./dom.js";
import { BUDGET_LABELS, STATES, amount, duration, isOver, running } from "./format.js";
import { icon } from "./icons.js";
import { isolated, line, visible } from "./text.js";

const GLYPHS = {
  queued: "clock",
  waiting_input: "question",
  completed: "checkCircle",
  failed: "crossCircle",
  cancelled: "dash",
};

/** The state of an execution as an icon and a word. */
export class StateBadge {
  constructor() {
    this._state = null;
    this.node = h("span", { class: "state" });
  }

  show(state) {
    if (state === this._state) return;
    this._state = state;
    this.node.dataset.state = state;
    this.node.replaceChildren(stateGlyph(state), h("span", {}, STATES[state] ?? state));
  }
}

export function stateGlyph(state) {
  return state === "running" ? h("span", { class: "spinner" }) : icon(GLYPHS[state] ?? "info");
}

export class ExecutionHeader {
  /** `actions`: the buttons at its right. */
  constructor(executionId, clock, actions, onBack) {
    this._clock = clock;
    this._badge = new StateBadge();
    this._agent = h("span", { class: "execution-agent" });
    this._attempt = h("span", { class: "execution-attempt", hidden: true });
    this._time = h("span", { class: "execution-time numbers" });
    this._budget = h("span", { class: "execution-budget numbers", hidden: true });
    this._title = h("h1", { class: "execution-title said", tabindex: "-1", dir: "auto" }, executionId);
    this._progress = new Progress();
    const back = h(
      "button",
      { type: "button", class: "button quiet square back", "aria-label": "Back to the list", onclick: onBack },
      icon("back"),
    );
    this.node = h(
      "header",
      { class: "execution-header" },
      h(
        "div",
        { class: "execution-line" },
        back,
        this._badge.node,
        this._agent,
        this._attempt,
        this._time,
        this._budget,
        h("div", { class: "execution-actions" }, actions),
      ),
      this._title,
      this._progress.node,
    );
  }

  show(state) {
    this._state = state;
    this._badge.show(state.status);
    this._badge.node.classList.toggle("is-unknown", !isBegun(state));
    if (state.task) setText(this._title, visible(line(state.task, 400)));
    if (state.agent && !this._agent.firstChild) this._agent.append(isolated(line(state.agent, 60)));
    setAttribute(this._attempt, "hidden", state.attempt > 1 ? null : "");
    setText(this._attempt, `attempt ${state.attempt}`);
    this._progress.show(state);
    this.tick();
  }

  tick() {
    const { startedAt, endedAt, status, duration: seconds } = this._state ?? {};
    this._showBudget();
    if (!startedAt) return;
    if (isOver(status)) setText(this._time, duration(seconds ?? (endedAt - startedAt) / 1000));
    else setText(this._time, running(this._clock.now() - startedAt));
  }

  /** What is spent of each limit; the time of an attempt that runs is counted here. */
  _showBudget() {
    const { budget, startedAt, status } = this._state ?? {};
    setAttribute(this._budget, "hidden", budget ? null : "");
    if (!budget) return;
    const runs = startedAt && (status === "running" || status === "waiting_input");
    const seconds = budget.spent.seconds + (runs ? Math.max(0, this._clock.now() - startedAt) / 1000 : 0);
    const spent = { ...budget.spent, seconds: Math.floor(seconds * 10) / 10 };
    const limits = Object.keys(BUDGET_LABELS).filter((name) => budget.limit[name]);
    const share = (name) => `${amount(name, spent[name])} / ${amount(name, budget.limit[name])}`;
    setText(this._budget, limits.map((name) => `${BUDGET_LABELS[name]} ${share(name)}`).join(" · "));
    const isLow = limits.some((name) => spent[name] >= 0.8 * budget.limit[name]);
    setAttribute(this._budget, "data-spent", isLow ? "most" : null);
  }

  focus() {
    this._title.focus({ preventScroll: true });
  }
}

/** The phases of the plan as segments of a bar, and the current activity. */
class Progress {
  constructor() {
    this._steps = h("ol", { class: "steps", "aria-label": "Plan" });
    this._keyed = new Keyed(
      this._steps,
      (phase) => phase.id,
      (phase) => new Step(phase),
    );
    this._meter = h("div", { class: "meter" }, h("i"));
    this._action = h("bdi", { class: "said" });
    this._percent = h("span", { class: "numbers" });
    this._where = h("span", { class: "where" });
    this._line = h("p", { class: "doing" }, this._where, this._action, this._percent);
    this.node = h("div", { class: "progress" }, this._steps, this._meter, this._line);
  }

  show(state) {
    const { phases, progress, status } = state;
    const over = isOver(status);
    this.node.classList.toggle("is-waiting", status === "waiting_input");
    const inOrder = phases.slice(0, 40);
    this._steps.hidden = inOrder.length < 2;
    this._keyed.show(inOrder);
    this._meter.hidden = inOrder.length >= 2 || !progress || over;
    if (progress) setShare(this._meter, progress.progress);
    this._line.hidden = over;
    this.node.hidden = !isBegun(state) || (over && this._steps.hidden);
    const current = inOrder.findIndex((phase) => phase.status === "running");
    setText(
      this._where,
      current >= 0 ? `${current + 1} of ${inOrder.length} · ${line(inOrder[current].name, 60)}` : "",
    );
    setText(this._action, visible(doing(state)));
    setText(this._percent, progress && !over ? `${Math.round(progress.progress)} %` : "");
  }
}

/** Whether an event has been received: before it not even the state is known. */
export function isBegun({ cursor }) {
  return cursor !== "0-0";
}

function doing({ status, progress, activity, openInputs }) {
  if (status === "queued") return "Waiting for a worker";
  if (status === "waiting_input")
    return openInputs.length > 1 ? `Waiting for ${openInputs.length} answers` : "Waiting for an answer";
  return line(progress?.currentAction ?? activity?.message ?? "", 160);
}

class Step {
  constructor(phase) {
    this._time = h("span", { class: "step-time numbers" });
    this._state = h("span", { class: "unseen" });
    this.node = h(
      "li",
      { class: "step" },
      h("span", { class: "step-name" }, isolated(line(phase.name, 60))),
      this._time,
      this._state,
    );
    this.update(phase);
  }

  update({ status, duration: seconds }) {
    setAttribute(this.node, "data-status", status);
    setAttribute(this.node, "aria-current", status === "running" ? "step" : null);
    setText(this._time, seconds === null || seconds === undefined ? "" : duration(seconds));
    setText(this._state, `, ${status}`);
  }
}
