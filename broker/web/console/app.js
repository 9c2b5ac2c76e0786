/** The console's life: who is looking, what the address says is to be shown, and what is shown. */

import { ExecutionFeed } from "/client/feed.js";
import { RuncastClient } from "/client/index.js";
import { Announcer } from "./announce.js";
import { h } from "./dom.js";
import { Ticker } from "./frame.js";
import { icon } from "./icons.js";
import { listen, showHelp } from "./keys.js";
import { List } from "./list.js";
import { Ops } from "./ops.js";
import { LINK_QUESTION, Session, askAboutLink, refusedToken, signInPage, takeLink } from "./session.js";
import { Shell } from "./shell.js";
import { Start } from "./start.js";
import { Story } from "./story.js";

const LISTED = 100;
/** A token that was brought so long ago serves all that ask for a newer one. */
const NEW_MS = 60_000;
/** One connection for all tabs: a browser opens six at most to one place. */
const MODE = "shared";

class App {
  constructor() {
    this._session = new Session();
    this._visit = null;
    addEventListener("hashchange", () => this._arrive());
    listen(this._keys());
    const offered = takeLink();
    if (offered && this._session.trusts(offered)) return void this._enter(offered);
    if (this._session.token) this._open();
    else this._askForToken();
    if (offered) void this._consider(offered);
  }

  /** Another address, or a link that signs in while the page is open. */
  _arrive() {
    const offered = takeLink();
    if (offered && this._session.trusts(offered)) return void this._enter(offered);
    this._visit?.route();
    if (offered) void this._consider(offered);
  }

  /** One question at a time, however many links there are. */
  async _consider(offered) {
    if (document.querySelector("." + LINK_QUESTION)) return;
    if (await askAboutLink(offered, this._session.user)) this._enter(offered);
  }

  _enter(token) {
    this._session.signIn(token);
    this._visit?.end();
    this._open();
  }

  _open() {
    this._visit = new Visit(this._session, (why) => this._leave(why));
  }

  _leave(why) {
    this._visit?.end();
    this._visit = null;
    this._session.signOut();
    this._askForToken(why);
  }

  _askForToken(why) {
    document.title = "Sign in · Runcast";
    document.body.replaceChildren(signInPage({ why, check, onDone: (token) => this._enter(token) }));
  }

  _keys() {
    const visit = (act) => (event) => (this._visit ? act(this._visit, event) : false);
    const story = (act) => visit((current) => (current.view instanceof Story ? act(current.view) : false));
    return {
      j: visit((current) => current.list.move(1)),
      k: visit((current) => current.list.move(-1)),
      ArrowDown: visit((current, event) => current.inList(event.target) && current.list.move(1)),
      ArrowUp: visit((current, event) => current.inList(event.target) && current.list.move(-1)),
      Escape: visit((current, event) => current.escape(event)),
      "/": visit((current, event) => current.filter(event)),
      n: visit(() => go("/new")),
      o: visit(() => go("/ops")),
      a: story((view) => view.answer()),
      p: story((view) => view.togglePause()),
      r: story((view) => view.toggleRaw()),
      l: story((view) => view.follow()),
      t: visit((current) => current.shell.nextTheme()),
      "?": visit(() => void showHelp()),
    };
  }
}

/** What a signed-in person has before them, until they sign out. */
class Visit {
  constructor(session, onLeave) {
    this._session = session;
    this._onLeave = onLeave;
    this._wasIn = false;
    this._renewal = null;
    this._renewedAt = -Infinity;
    this.client = new RuncastClient({ token: ({ refresh }) => this._token(refresh) });
    this.ticker = new Ticker();
    this._announcer = new Announcer();
    this.view = null;
    this.list = new List(this._page());
    this.shell = new Shell(this.list.node, this._announcer, { who: session.user, onSignOut: () => onLeave() });
    this._feed = new ExecutionFeed(this.client, { limit: LISTED, mode: MODE });
    document.body.replaceChildren(this.shell.node);
    this.route();
    this._showFeed();
    this._unsubscribe = this._feed.subscribe(() => this._showFeed());
    this._feed.start();
  }

  end() {
    this._unsubscribe();
    this._feed.close();
    this.view?.end();
    this.list.end();
    document.title = "Runcast";
  }

  /** Show what the address says. */
  route() {
    const path = location.hash.slice(1);
    const execution = /^\/x\/([A-Za-z0-9_-]{1,64})$/.exec(path)?.[1];
    this.view?.end();
    this.view = execution
      ? new Story(this._page(), execution)
      : path === "/ops"
        ? new Ops(this._page())
        : path === "/new"
          ? new Start(this._page())
          : null;
    this._name = execution ? "story" : path === "/ops" ? "ops" : path === "/new" ? "new" : "list";
    this.shell.show(this.view?.node ?? welcome(), this._name);
    this.list.select(execution ?? null);
    this.view?.focus();
    this._showTitle();
  }

  // --- what keys do ---

  inList(target) {
    return this.list.node.contains(target);
  }

  filter(event) {
    if (this.view instanceof Story && !this.inList(event.target)) this.view.focusFilter();
    else this.list.focusFilter();
  }

  /** Out of a field first, then back to the list. */
  escape({ target }) {
    if (target.matches?.("input, textarea, select")) return void target.blur();
    if (this._name === "list") return false;
    if (matchMedia("(max-width: 760px)").matches) go("/");
    this.list.focus();
  }

  // --- parts ---

  /** What views may use of the rest. */
  _page() {
    return {
      client: this.client,
      mode: MODE,
      ticker: this.ticker,
      announce: (text) => this._announcer.say(text),
      notify: (text, isBad) => this.shell.notify(text, isBad),
      open: (executionId) => go(`/x/${executionId}`),
      back: () => go("/"),
    };
  }

  /** Only a person has another token. Until they bring one, whoever asked for it waits, and then goes on. Streams ask
   * each for itself, and again when it takes long: who asks late gets what was brought, and nobody is asked twice. */
  async _token(isRefused) {
    const isNew = Date.now() - this._renewedAt < NEW_MS;
    if (!isRefused || !this._wasIn || isNew) return this._session.token;
    this._renewal ??= this.shell.askForToken(check).then((token) => this._renewed(token));
    return await this._renewal;
  }

  _renewed(token) {
    this._renewal = null;
    this._renewedAt = Date.now();
    this._session.signIn(token);
    return token;
  }

  _showFeed() {
    const snapshot = this._feed.getSnapshot();
    const { status, isLoaded } = snapshot;
    this._wasIn ||= isLoaded;
    this.shell.pill.show(status);
    this.list.show(snapshot);
    this._showTitle();
    if (status.phase === "failed" && status.error?.status === 401) this._onLeave(refusedToken(status.error));
  }

  _showTitle() {
    const waiting = this.list.waiting;
    const name = { list: "Executions", story: "Execution", ops: "Operations", new: "New execution" }[this._name];
    document.title = `${waiting ? `(${waiting}) ` : ""}${name} · Runcast`;
  }
}

/** Rejects where an edge does not take the token. */
function check(token) {
  return new RuncastClient({ token }).executions({ limit: 1 });
}

function go(path) {
  location.hash = path;
}

function welcome() {
  const hint = (keys, text) =>
    h(
      "li",
      {},
      [...keys].map((key) => h("kbd", {}, key)),
      h("span", {}, text),
    );
  return h(
    "section",
    { class: "welcome", "aria-label": "Welcome" },
    h("h1", {}, "What are your agents doing?"),
    h("p", { class: "muted" }, "Choose an execution to read its story as it happens, or start one."),
    h("a", { class: "button primary", href: "#/new" }, icon("add"), "New execution"),
    h("ul", { class: "hints" }, hint("jk", "through the list"), hint("/", "filter"), hint("?", "all keys")),
  );
}

new App();
