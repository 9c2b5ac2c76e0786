/** The page of one execution: its events in three views, the rest from the client's folded state. */

import { Fold } from "/client/fold.js";
import { ExecutionTree } from "/client/tree.js";
import { Actions } from "./actions.js";
import { attemptsPath } from "./compare-page.js";
import { Banner } from "./connection-status.js";
import { streamCommand } from "./curl.js";
import { Details } from "./details.js";
import { menu } from "./dialog.js";
import { h, setAttribute } from "./dom.js";
import { EventViews } from "./event-views.js";
import { ExecutionHeader, isBegun } from "./execution-header.js";
import { STATES, isOver } from "./format.js";
import { icon } from "./icons.js";
import { OpenInputs } from "./inputs.js";
import { MessageLine } from "./message-line.js";
import { openShareDialog } from "./share-dialog.js";
import { Summary } from "./summary.js";
import { line } from "./text.js";
import { Clock } from "./ticker.js";
import { VIEWS } from "./toolbar.js";

/** The state before the first event. */
const EMPTY_STATE = new Fold().state();

export class ExecutionPage {
  /** `page`: `{client, mode, ticker, announce(text), notify(text), back(), go(path), isReadOnly, isShared}`; `query`: of
   * the address. `isReadOnly`: its person may change nothing; `isShared`: and see nothing but this. */
  constructor(page, executionId, query = new URLSearchParams()) {
    this._page = page;
    this._id = executionId;
    this._actions = new Actions(page, executionId);
    this._clock = new Clock();
    this._request = null;
    this._announced = { status: null, phase: null };
    this._build(VIEWS.some(([view]) => view === query.get("view")) ? query.get("view") : "story");
    this._watch = page.client.watch(executionId, {
      mode: page.mode,
      compact: true,
      onEvent: (event, size) => this._take(event, size),
      onControl: (control) => this._obey(control),
    });
    this._ends = [this._watch.subscribe(() => this._draw()), page.ticker.add((now) => this._tick(now))];
    this._watch.start();
    this._draw();
  }

  end() {
    for (const end of this._ends) end();
    this._isEnded = true;
    this._tree?.close();
    this._watch.close();
    this._events.end();
  }

  focus() {
    this._head.focus();
  }

  // --- actions of keys ---

  focusFilter() {
    this._events.focusFilter();
  }

  toggleFreeze() {
    this._events.toggleFreeze();
  }

  /** A view, or the story if it is shown already. */
  toggleView(view) {
    this._events.show(this._events.view === view ? "story" : view);
  }

  follow() {
    this._events.follow();
  }

  answer() {
    this._inputs.focus();
  }

  write() {
    this._messages.focus();
  }

  // --- the page ---

  _build(view) {
    const id = this._id;
    this._head = new ExecutionHeader(id, this._clock, this._headActions(), () => this._page.back());
    this._banner = new Banner(this._page.announce);
    this._summary = new Summary();
    this._events = new EventViews({
      clock: this._clock,
      head: this._summary.node,
      announce: this._page.announce,
      view,
      onView: (chosen) => this._keepView(chosen),
      context: {
        isNews: (item) => item.at >= (this._openedAt ?? Date.now()) - 1_000,
        comparePath: (one, other) => (this._page.isShared ? null : attemptsPath(id, one, other)),
        stack: async () => (await this._page.client.execution(id)).error?.stack ?? null,
      },
    });
    this._inputs = new OpenInputs(
      (inputId, value) => this._page.client.answer(id, inputId, value),
      (inputId) => this._page.client.decline(id, inputId),
      this._clock,
    );
    this._inputs.node.classList.toggle("read-only", Boolean(this._page.isReadOnly)); // the answer is somebody else's
    this._messages = new MessageLine(this._page, id);
    this._details = new Details(id, {
      onCopy: () => this._actions.copy(id, "Id copied"),
      onArtifact: (artifact) => this._events.showArtifact(artifact),
      onInput: () => this._events.toTop(),
    });
    this.node = h(
      "article",
      { class: "execution-page" },
      this._head.node,
      this._banner.node,
      h(
        "div",
        { class: "execution-body" },
        h(
          "div",
          { class: "execution-column" },
          this._events.nodes,
          this._inputs.node,
          this._page.isReadOnly ? null : this._messages.node,
        ),
        this._details.node,
      ),
    );
  }

  _headActions() {
    const id = this._id;
    this._cancelButton = h(
      "button",
      {
        type: "button",
        class: "button danger",
        title: "Cancel the execution",
        onclick: () => this._actions.askToCancel(this._cancelButton),
      },
      icon("stop"),
      h("span", {}, "Cancel"),
    );
    this._againLink = h(
      "a",
      { class: "button", href: `#/new?from=${id}`, title: "Start it again, with the same input or another" },
      icon("again"),
      h("span", {}, "Run again"),
    );
    this._railButton = h(
      "button",
      {
        type: "button",
        class: "button quiet square rail-toggle",
        "aria-label": "Details",
        "aria-expanded": "false",
        onclick: () => this._toggleRail(),
      },
      icon("panel"),
    );
    const { client, isReadOnly, isShared } = this._page;
    const more = menu(
      "More",
      [
        isReadOnly ? null : ["Share…", "share", () => openShareDialog(this._page.client, id)],
        isShared ? null : ["Copy link", "link", () => this._actions.copy(location.href, "Link copied")],
        ["Copy the id", "copy", () => this._actions.copy(id, "Id copied")],
        isShared ? null : ["Copy as curl", "terminal", () => this._actions.copy(streamCommand(client, id), "Command copied")],
        isReadOnly ? null : ["Run again…", "again", () => this._page.go(`/new?from=${id}`)],
        isShared ? null : ["Compare with…", "columns", () => this._page.go(`/compare/${id}`)],
        ["Export as NDJSON", "download", () => this._actions.exportLog()],
        ["Print", "document", () => print()],
      ].filter((action) => action !== null),
    );
    return isReadOnly ? [this._railButton, more] : [this._againLink, this._cancelButton, this._railButton, more];
  }

  /** In the address, without another entry in the history: a copied link and a reload show the same. */
  _keepView(view) {
    if (this._page.isShared) return;
    history.replaceState(null, "", `${this._page.base ?? "#"}/x/${this._id}${view === "story" ? "" : `?view=${view}`}`);
  }

  // --- events ---

  _take(event, size) {
    this._clock.observe(event.ts);
    this._events.take(event, size);
  }

  /** After a reset other than by trimming, another history starts from its beginning. */
  _obey({ type, data }) {
    if (type !== "stream:reset" || data.reason === "trimmed") return;
    this._events.restart();
    this._draw();
  }

  /** Watch the children, once there are some: their logs have what they do between their beginning and their end. */
  _followChildren() {
    if (this._tree || this._page.isShared || !this._events.story.children.size) return;
    this._tree = new ExecutionTree(this._page.client, this._id, { mode: this._page.mode });
    this._ends.push(
      this._tree.subscribe(() => {
        const { tree } = this._tree.getSnapshot();
        if (tree && this._events.story.followTree(tree)) this._draw();
      }),
    );
    this._tree.start();
  }

  /** What the execution was started with; an older edge cannot tell. */
  async _loadRequest() {
    this._asked = true;
    this._request = await this._page.client.acceptedRequest(this._id).catch(() => null);
    if (!this._isEnded) this._draw();
  }

  // --- drawing ---

  /** Once per frame at most. */
  _draw() {
    const { state: known, status } = this._watch.getSnapshot();
    const state = known ?? EMPTY_STATE;
    const now = this._clock.now();
    this._state = state;
    this._status = status;
    this._openedAt ??= status.connectedAt;
    if (isBegun(state) && !this._asked) void this._loadRequest();
    this._head.show(state);
    this._banner.show(status, Date.now());
    this._showDetails(now);
    this._summary.show(state, this._request);
    this._inputs.show(state.openInputs);
    if (!this._page.isReadOnly) this._messages.show(state);
    const isRunning = isBegun(state) && !isOver(state.status);
    this._cancelButton.hidden = !isRunning;
    this._againLink.hidden = !isOver(state.status);
    this.node.classList.toggle("is-missing", !isBegun(state) && status.phase === "failed");
    this._followChildren();
    const isSettled = status.phase !== "replaying" && status.phase !== "connecting";
    this._events.draw(now, { isRunning, openedAt: this._openedAt, isSettled });
    if (known !== null) this._announce(state);
  }

  _showDetails(now) {
    const { _state: state, _status: status, _request: request } = this;
    const { story, ring } = this._events;
    this._details.show({ state, status, request, waits: story.waits, events: ring.count, now });
  }

  _tick(now) {
    this._head.tick();
    this._inputs.tick();
    this._events.tick(this._clock.now());
    this._banner.show(this._status, now);
    if (!isOver(this._state.status)) this._showDetails(this._clock.now());
  }

  /** To the live region: states, inputs and phases only. */
  _announce(state) {
    const phase = state.phases.findLast?.((each) => each.status === "running")?.name ?? null;
    const before = this._announced;
    this._announced = { status: state.status, phase, inputs: state.openInputs.length };
    if (before.status === null) return;
    if (state.status !== before.status) this._page.announce(STATES[state.status]);
    else if (state.openInputs.length > before.inputs)
      this._page.announce(`Input needed: ${line(state.openInputs.at(-1).prompt, 200)}`);
    else if (phase !== before.phase && phase) this._page.announce(`Phase ${line(phase, 80)}`);
  }

  _toggleRail() {
    const isOpen = this.node.classList.toggle("has-rail");
    setAttribute(this._railButton, "aria-expanded", String(isOpen));
  }
}
