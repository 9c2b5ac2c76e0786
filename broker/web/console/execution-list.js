/** The live list of the user's executions, newest first. */

import { Keyed, h, setAttribute, setShare, setText } from "./dom.js";
import { stateGlyph } from "./execution-header.js";
import { STATES, age, isOver, moment, plural } from "./format.js";
import { icon } from "./icons.js";
import { Search, itemOf } from "./search.js";
import { line, visible } from "./text.js";

const VIEWS = [
  { id: "all", label: "All", test: () => true },
  { id: "active", label: "Active", test: (item) => !isOver(item.state) },
  { id: "waiting", label: "Needs you", test: (item) => item.state === "waiting_input" },
  { id: "failed", label: "Failed", test: (item) => item.state === "failed", state: "failed" },
  { id: "over", label: "Ended", test: (item) => isOver(item.state) },
];
const MAX_OLDER = 1_000;

export class ExecutionList {
  /** `page`: `{client, ticker, isReadOnly}`. */
  constructor(page) {
    this._client = page.client;
    this._executions = [];
    this._older = [];
    this._view = VIEWS[0];
    this._current = null;
    this._counts = new Map();
    this._rows = h("ul", { class: "executions" });
    this._keyed = new Keyed(
      this._rows,
      (item) => item.executionId,
      (item) => new Entry(item),
    );
    this._empty = h("div", { class: "list-empty", hidden: true });
    this._search = h("input", {
      type: "search",
      class: "search",
      placeholder: "Search",
      "aria-label": "Search executions",
      title: "Words of the task, result, error, agent or id",
      autocomplete: "off",
      spellcheck: "false",
      oninput: () => this._onSearch(),
    });
    this._found = new Search(page.client, () => this._draw());
    this._more = h(
      "button",
      { type: "button", class: "button small quiet rows-edge", hidden: true, onclick: () => this._showOlder() },
      "Show older",
    );
    this.node = h(
      "nav",
      { class: "side", "aria-label": "Executions" },
      h(
        "div",
        { class: "side-head" },
        h("h2", {}, "Executions"),
        page.isReadOnly
          ? null
          : h("a", { class: "button primary small", href: "#/new", title: "Start an execution (n)" }, icon("add"), "New"),
      ),
      h(
        "div",
        { class: "side-tools" },
        h("label", { class: "search-box" }, icon("search"), this._search),
        h(
          "div",
          { class: "segments", role: "group", "aria-label": "Show" },
          VIEWS.map((view) => this._segment(view)),
        ),
      ),
      h("div", { class: "side-scroll", tabindex: "-1" }, this._rows, this._empty, this._more),
    );
    this._end = page.ticker.add((now) => this._tick(now));
  }

  end() {
    this._end();
  }

  /** Show a snapshot of the feed. */
  show({ executions, isLoaded, error }) {
    this._executions = executions;
    this._isLoaded = isLoaded;
    this._error = error;
    this._draw();
  }

  /** Mark the execution that is open. */
  select(executionId) {
    this._current = executionId;
    for (const entry of this._keyed.views()) entry.mark(executionId);
  }

  get waiting() {
    return this._executions.filter((item) => item.state === "waiting_input").length;
  }

  // --- actions of keys ---

  focusFilter() {
    this._search.focus();
    this._search.select();
  }

  /** Move the focus by a number of rows; if the list has no focus, to the open execution or the first. */
  move(step) {
    const links = [...this._rows.querySelectorAll("a")];
    const at = links.indexOf(document.activeElement);
    const current = links.findIndex((link) => link.getAttribute("aria-current") === "page");
    const next = at >= 0 ? at + step : Math.max(0, current);
    links[Math.max(0, Math.min(links.length - 1, next))]?.focus();
  }

  focus() {
    this.move(0);
  }

  // --- the page ---

  _segment(view) {
    const count = h("span", { class: "count numbers" });
    const button = h(
      "button",
      { type: "button", class: "segment", "aria-pressed": String(view === this._view) },
      view.label,
      count,
    );
    button.addEventListener("click", () => this._choose(view));
    this._counts.set(view, { count, button });
    return button;
  }

  _choose(view) {
    this._view = view;
    if (view.state) void this._load(view.state);
    this._found.look(this._search.value.trim(), view.state);
    for (const [each, { button }] of this._counts) setAttribute(button, "aria-pressed", String(each === view));
    this._draw();
  }

  _all() {
    return merged(this._executions, this._older);
  }

  _onSearch() {
    this._found.look(this._search.value.trim(), this._view.state);
    this._draw();
  }

  _draw() {
    const all = this._all();
    for (const [view, { count }] of this._counts) {
      const number = view.id === "all" || view.id === "over" ? 0 : all.filter(view.test).length;
      setText(count, number ? String(number) : "");
    }
    const words = this._search.value.trim().toLowerCase();
    const found = words ? this._found.executions : [];
    const listed = merged(all, found);
    const isFound = new Set(found.map((item) => item.executionId));
    const shown = listed.filter(
      (item) => this._view.test(item) && (isFound.has(item.executionId) || matches(item, words)),
    );
    this._keyed.show(shown);
    this.select(this._current);
    const hasMore = words ? this._found.hasMore : !this._isAllShown && all.length >= 50 && this._older.length < MAX_OLDER;
    this._more.hidden = !this._isLoaded || !hasMore;
    this._showEmpty(all, shown);
    this._tick(Date.now());
  }

  _showEmpty(all, shown) {
    this._empty.hidden = shown.length > 0;
    if (shown.length) this._empty.replaceChildren();
    else if (this._error)
      this._empty.replaceChildren(
        h("p", {}, `The list could not be loaded: ${line(this._error.detail || this._error.message, 200)}`),
      );
    else if (!this._isLoaded) this._empty.replaceChildren(h("p", { class: "muted" }, "Loading…"));
    else if (this._found.isBusy) this._empty.replaceChildren(h("p", { class: "muted" }, "Searching…"));
    else if (this._found.error)
      this._empty.replaceChildren(h("p", {}, `The search failed: ${line(this._found.error, 200)}`));
    else if (all.length) this._empty.replaceChildren(h("p", { class: "muted" }, "No execution matches."));
    else
      this._empty.replaceChildren(
        h("p", {}, "No executions yet."),
        h("p", { class: "muted" }, "Executions appear here when they start."),
      );
  }

  /** The newest in a state: there may be none among those that are in the list. */
  async _load(state) {
    const { executions } = await this._client.executions({ state, limit: 100 }).catch(() => ({ executions: [] }));
    const known = new Set(this._older.map((item) => item.executionId));
    this._addOlder(executions.filter((item) => !known.has(item.executionId)));
    this._draw();
  }

  _addOlder(executions) {
    this._older.push(...executions.map(itemOf));
  }

  async _showOlder() {
    this._more.disabled = true;
    try {
      if (this._search.value.trim()) return await this._found.more();
      this._cursor ??=
        (await this._client.executions({ limit: Math.max(1, Math.min(200, this._executions.length)) })).nextCursor ??
        null;
      const page = this._cursor
        ? await this._client.executions({ limit: 100, cursor: this._cursor })
        : { executions: [] };
      this._addOlder(page.executions);
      this._cursor = page.nextCursor ?? null;
      this._isAllShown = this._cursor === null;
    } finally {
      this._more.disabled = false;
      this._draw();
    }
  }

  _tick(now) {
    for (const entry of this._keyed.views()) entry.tick(now);
  }
}

/** The first, then those of the second that are not among them, newest first. */
function merged(first, second) {
  const more = new Map(second.map((each) => [each.executionId, each]));
  for (const { executionId } of first) more.delete(executionId);
  return [...first, ...[...more.values()].sort((one, other) => other.createdAt - one.createdAt)];
}

function matches(item, words) {
  return (
    !words ||
    [item.task, item.agent, item.executionId, STATES[item.state]].some((text) => text?.toLowerCase().includes(words))
  );
}

class Entry {
  constructor(item) {
    this._glyph = h("span", { class: "entry-state" });
    this._state = h("span", { class: "unseen" });
    this._task = h("span", { class: "entry-task said", dir: "auto" });
    this._age = h("span", { class: "entry-age numbers" });
    this._agent = h("bdi", { class: "entry-agent" });
    this._doing = h("bdi", { class: "entry-doing said" });
    this._meter = h("span", { class: "meter", hidden: true }, h("i"));
    this._link = h(
      "a",
      { class: "entry", href: `#/x/${item.executionId}` },
      this._glyph,
      h("span", { class: "entry-line" }, this._task, this._age),
      h("span", { class: "entry-line second" }, this._agent, this._doing, this._state),
      this._meter,
    );
    this.node = h("li", {}, this._link);
    this._shown = null;
    this.update(item);
  }

  update(item) {
    if (item === this._item) return;
    this._item = item;
    if (item.state !== this._shown) {
      this._shown = item.state;
      this._link.dataset.state = item.state;
      this._glyph.replaceChildren(stateGlyph(item.state));
    }
    setText(this._task, visible(line(item.task ?? item.executionId, 200)));
    setText(this._agent, line(item.agent ?? "", 60));
    setText(this._doing, doing(item));
    const isSaid = this._doing.textContent.includes(STATES[item.state]);
    setText(this._state, isSaid ? "" : `, ${STATES[item.state]}`);
    const hasProgress = item.progress !== null && !isOver(item.state);
    setAttribute(this._meter, "hidden", hasProgress ? null : "");
    if (hasProgress) setShare(this._meter, item.progress);
  }

  mark(executionId) {
    setAttribute(this._link, "aria-current", this._item.executionId === executionId ? "page" : null);
  }

  tick(now) {
    const { createdAt } = this._item;
    if (!createdAt) return;
    setText(this._age, age(now - createdAt));
    setAttribute(this._age, "title", moment(createdAt));
  }
}

function doing({ state, activity, openInputs, attempt }) {
  const tries = attempt > 1 && !isOver(state) ? ` · attempt ${attempt}` : "";
  if (state === "waiting_input")
    return openInputs.length > 1 ? `${plural(openInputs.length, "answer")} needed` : STATES.waiting_input;
  if (state === "running" && activity) return line(activity, 120) + tries;
  return STATES[state] + tries;
}
