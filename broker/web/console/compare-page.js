/**
 * Two runs, or two attempts of one, side by side: facts, input, times, timelines on one scale, and results. Live while
 * they run.
 */

import { Fold } from "/client/fold.js";
import { AttemptEvents } from "./attempt-events.js";
import { comparison } from "./compare-facts.js";
import { h, setText } from "./dom.js";
import { StateBadge } from "./execution-header.js";
import { age, isOver } from "./format.js";
import { icon } from "./icons.js";
import { spansOf } from "./spans.js";
import { Story } from "./story.js";
import { Summary } from "./summary.js";
import { isolated, line, visible } from "./text.js";
import { TimeWindow } from "./time-scale.js";
import { Clock } from "./ticker.js";
import { TimelineView } from "./timeline-view.js";

const EMPTY_STATE = new Fold().state();
const OFFERED = 60;
const OFFERED_ATTEMPTS = 20;

export class ComparePage {
  /** `page`: `{client, mode, ticker, back(), go(path)}`; `one`, `other`: ids of executions, each maybe of one attempt of
   * it (`ex_1@2`); without `other` the page offers the runs to compare with. */
  constructor(page, one, other = null) {
    this._page = page;
    this._sides = [];
    this._title = h("h1", { id: "compare-title", tabindex: "-1" }, "Compare");
    this.node = h("section", { class: "page compare", "aria-labelledby": "compare-title" }, this._head(one, other));
    if (other) this._compare(one, other);
    else void this._offer(one);
  }

  end() {
    for (const end of this._ends ?? []) end();
    for (const side of this._sides) side.end();
  }

  focus() {
    this._title.focus({ preventScroll: true });
  }

  _head(one, other) {
    const attributes = { type: "button", class: "button quiet square back", "aria-label": "Back to the list" };
    const swap = other && h("a", { class: "button quiet small", href: `#/compare/${other}/${one}` }, "Swap");
    const back = h("button", { ...attributes, onclick: () => this._page.back() }, icon("back"));
    return h("header", { class: "page-head" }, back, this._title, swap);
  }

  // --- which ---

  async _offer(one) {
    const { client, go } = this._page;
    const list = h("ul", { class: "offers" });
    const hint = h("p", { class: "muted" }, "Loading…");
    this.node.append(h("h2", { class: "form-title" }, "With which run?"), hint, list);
    try {
      const [{ executions }, mine, { attempt }] = await Promise.all([
        client.executions({ limit: OFFERED }),
        client.acceptedRequest(one).catch(() => ({})),
        client.execution(one).catch(() => ({ attempt: 1 })),
      ]);
      const attempts = attemptOffers(one, attempt);
      if (attempts) hint.before(attempts);
      const others = executions.filter(({ executionId }) => executionId !== one);
      const rank = ({ agent, task }) => Number(agent === mine.agent) + Number(task === mine.task);
      others.sort((a, b) => rank(b) - rank(a));
      list.append(...others.map((item) => offer(item, () => go(`/compare/${one}/${item.executionId}`))));
      setText(hint, others.length ? "Those of the same agent and task come first." : "There is no other run.");
    } catch (error) {
      setText(hint, `The runs could not be loaded: ${line(error.detail || error.message, 200)}`);
    }
  }

  // --- both ---

  _compare(...ids) {
    this._domain = new TimeWindow();
    this._sides = ids.map((id, index) => new Side(this._page, id, "AB"[index], this._domain, () => this._schedule()));
    const [one, other] = this._sides.map((side) => side.timeline);
    one.onZoom = () => other.redraw();
    other.onZoom = () => one.redraw();
    this._table = h("div", { class: "compare-tables" });
    const columns = (name, nodes) => h("div", { class: `compare-pair ${name}` }, nodes);
    this.node.append(
      columns(
        "compare-heads",
        this._sides.map((side) => side.head),
      ),
      this._table,
      h("h2", { class: "form-title" }, "Timelines"),
      columns(
        "compare-timelines",
        this._sides.map((side) => labelled(side.letter, side.timeline.node)),
      ),
      h("h2", { class: "form-title" }, "Input and result"),
      columns(
        "compare-results",
        this._sides.map((side) => labelled(side.letter, side.summary.node)),
      ),
    );
    this._ends = [this._page.ticker.add(() => this._tick()), () => clearTimeout(this._timer)];
    this._draw();
  }

  _tick() {
    if (this._sides.some((side) => !isOver(side.state.status))) this._schedule();
  }

  _schedule() {
    this._timer ??= setTimeout(() => {
      this._timer = null;
      this._draw();
    }, 200);
  }

  _draw() {
    for (const side of this._sides) side.refresh();
    this._domain.least = Math.max(...this._sides.map((side) => side.took));
    for (const side of this._sides) side.draw();
    const parts = comparison(this._sides);
    const key = JSON.stringify(parts);
    if (key === this._shown) return;
    this._shown = key;
    this._table.replaceChildren(...parts.map(table));
  }
}

/** One of the two. */
class Side {
  constructor(page, name, letter, domain, onChange) {
    const [id, attempt] = name.split("@");
    this._id = id;
    this._attempt = attempt ? Number(attempt) : null;
    this.letter = letter;
    this._clock = new Clock();
    this._restart();
    this._onChange = onChange;
    this._client = page.client;
    this._badge = new StateBadge();
    this._task = h("bdi", { class: "said" }, id);
    this.state = EMPTY_STATE;
    this.request = null;
    this.spans = [];
    this.summary = new Summary();
    this.timeline = new TimelineView({ label: `Timeline of ${letter}`, domain, onSelect: null });
    this._problem = h("p", { class: "problem" });
    this.head = h(
      "header",
      { class: "compare-head" },
      h("span", { class: "letter" }, letter),
      h("a", { class: "link", href: `#/x/${id}` }, this._task),
      attempt && h("span", { class: "muted" }, `attempt ${attempt}`),
      this._badge.node,
      this._problem,
    );
    this._watch = page.client.watch(id, { mode: page.mode, compact: true, ...this._handlers() });
    this._unsubscribe = this._watch.subscribe(onChange);
    this._watch.start();
  }

  _handlers() {
    return {
      onEvent: (event, size) => {
        this._clock.observe(event.ts);
        const its = this._events ? this._events.of(event) : event;
        if (its === null) return;
        this._story.apply(its, size);
        this._fold?.apply(its);
      },
      onControl: ({ type, data }) => {
        if (type === "stream:reset" && data.reason !== "trimmed") this._restart();
      },
    };
  }

  /** The history begins. The state of one attempt is made here, that of an execution by its watch. */
  _restart() {
    this._story = new Story();
    this._events = this._attempt && new AttemptEvents(this._attempt);
    this._fold = this._attempt && new Fold(this._id);
  }

  end() {
    this._unsubscribe();
    this._watch.close();
    this.timeline.end();
  }

  get waits() {
    return this._story.waits;
  }

  /** Milliseconds from its first event to its last, or to now. */
  get took() {
    return this._story.startedAt === null ? 0 : this.now - this._story.startedAt;
  }

  refresh() {
    const { state, status } = this._watch.getSnapshot();
    this.state = this._fold?.state() ?? state ?? EMPTY_STATE;
    this.now = this._story.endedAt ?? this._clock.now();
    this.spans = spansOf(this._story);
    const isMissing = status.phase === "failed" && state === null;
    setText(this._problem, isMissing ? "There is no such execution, or it is not yours." : "");
    if (state && !this._asked) void this._load();
  }

  async _load() {
    this._asked = true;
    this.request = await this._client.acceptedRequest(this._id).catch(() => null);
    this._onChange();
  }

  draw() {
    const { task, status } = this.state;
    if (task) setText(this._task, visible(line(task, 160)));
    this._badge.show(status);
    this.summary.show(this.state, this.request);
    const origin = this._story.startedAt;
    if (origin !== null)
      this.timeline.show(this.spans, { origin, now: this.now, isLive: this._story.endedAt === null });
  }
}

/** Links that compare the last attempt with those before it; null without any. */
function attemptOffers(id, last) {
  const earlier = Array.from({ length: last - 1 }, (_, index) => index + 1).slice(-OFFERED_ATTEMPTS);
  const link = (attempt) =>
    h("a", { class: "link", href: attemptsPath(id, attempt, last) }, `Attempt ${attempt} with ${last}`);
  return earlier.length ? h("ul", { class: "attempt-offers" }, earlier.map((attempt) => h("li", {}, link(attempt)))) : null;
}

/** The address that compares two attempts of one execution. */
export function attemptsPath(id, one, other) {
  return `#/compare/${id}@${one}/${id}@${other}`;
}

function labelled(letter, node) {
  return h("div", { class: "compare-side" }, h("h3", { class: "letter" }, letter), node);
}

function table({ title, rows }) {
  const cell = (value) =>
    h(
      "td",
      {},
      value === null ? h("span", { class: "literal" }, "–") : h("bdi", { class: "said" }, value.text ?? value),
    );
  return h(
    "table",
    { class: "compare-table" },
    h(
      "thead",
      {},
      h("tr", {}, h("th", { scope: "col" }, title), ...["A", "B"].map((letter) => h("th", { scope: "col" }, letter))),
    ),
    h(
      "tbody",
      {},
      rows.map(({ label, values, differs }) =>
        h(
          "tr",
          { class: differs ? "differs" : null },
          h("th", { scope: "row" }, isolated(label), differs && h("span", { class: "unseen" }, ", differs")),
          values.map(cell),
        ),
      ),
    ),
  );
}

function offer({ executionId, task, agent, state, createdAt }, act) {
  const badge = new StateBadge();
  badge.show(state);
  return h(
    "li",
    {},
    h(
      "button",
      { type: "button", class: "offer", onclick: act },
      h("bdi", { class: "said" }, visible(line(task ?? executionId, 160))),
      h("span", { class: "muted" }, isolated(line(agent ?? "", 60)), ` · ${age(Date.now() - createdAt)}`),
      badge.node,
    ),
  );
}
