/** The console's entry: the session, and the page for the address. */

import { ExecutionFeed } from "/client/feed.js";
import { RuncastClient } from "/client/index.js";
import { h } from "./dom.js";
import { ExecutionList } from "./execution-list.js";
import { ExecutionPage } from "./execution-page.js";
import { icon } from "./icons.js";
import { listen, showHelp } from "./keyboard.js";
import { LiveRegion } from "./live-region.js";
import { OpsPage } from "./ops-page.js";
import { LINK_QUESTION, Session, askAboutLink, refusedToken, signInPage, takeLink } from "./session.js";
import { Shell } from "./shell.js";
import { StartPage } from "./start-page.js";
import { Ticker } from "./ticker.js";

const LISTED = 100;
/** A token renewed within this time is used for all streams that request a newer one. */
const RENEWAL_REUSE_MS = 60_000;
/** One connection for all tabs: browsers open at most six to a host. */
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

  /** The address changed: another page, or a link with a token. */
  _arrive() {
    const offered = takeLink();
    if (offered && this._session.trusts(offered)) return void this._enter(offered);
    this._visit?.route();
    if (offered) void this._consider(offered);
  }

  /** One dialog at a time, also with several links. */
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
    this._visit = new SignedIn(this._session, (why) => this._leave(why));
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
    const page = (act) => visit((current) => (current.view instanceof ExecutionPage ? act(current.view) : false));
    return {
      j: visit((current) => current.list.move(1)),
      k: visit((current) => current.list.move(-1)),
      ArrowDown: visit((current, event) => current.inList(event.target) && current.list.move(1)),
      ArrowUp: visit((current, event) => current.inList(event.target) && current.list.move(-1)),
      Escape: visit((current, event) => current.escape(event)),
      "/": visit((current, event) => current.filter(event)),
      n: visit(() => go("/new")),
      o: visit(() => go("/ops")),
      a: page((view) => view.answer()),
      m: page((view) => view.write()),
      p: page((view) => view.togglePause()),
      r: page((view) => view.toggleRaw()),
      l: page((view) => view.follow()),
      t: visit((current) => current.shell.nextTheme()),
      "?": visit(() => void showHelp()),
    };
  }
}

/** Everything between sign-in and sign-out. */
class SignedIn {
  constructor(session, onLeave) {
    this._session = session;
    this._onLeave = onLeave;
    this._wasIn = false;
    this._renewal = null;
    this._renewedAt = -Infinity;
    this.client = new RuncastClient({ token: ({ refresh }) => this._token(refresh) });
    this.ticker = new Ticker();
    this._liveRegion = new LiveRegion();
    this.view = null;
    this.list = new ExecutionList(this._page());
    this.shell = new Shell(this.list.node, this._liveRegion, { who: session.user, onSignOut: () => onLeave() });
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

  /** Show the page for the address. */
  route() {
    const path = location.hash.slice(1);
    const execution = /^\/x\/([A-Za-z0-9_-]{1,64})$/.exec(path)?.[1];
    this.view?.end();
    this.view = execution
      ? new ExecutionPage(this._page(), execution)
      : path === "/ops"
        ? new OpsPage(this._page())
        : path === "/new"
          ? new StartPage(this._page())
          : null;
    this._name = execution ? "execution" : path === "/ops" ? "ops" : path === "/new" ? "new" : "list";
    this.shell.show(this.view?.node ?? welcome(), this._name);
    this.list.select(execution ?? null);
    this.view?.focus();
    this._showTitle();
  }

  // --- actions of keys ---

  inList(target) {
    return this.list.node.contains(target);
  }

  filter(event) {
    if (this.view instanceof ExecutionPage && !this.inList(event.target)) this.view.focusFilter();
    else this.list.focusFilter();
  }

  /** Leave a field first, then go back to the list. */
  escape({ target }) {
    if (target.matches?.("input, textarea, select")) return void target.blur();
    if (this._name === "list") return false;
    if (matchMedia("(max-width: 760px)").matches) go("/");
    this.list.focus();
  }

  // --- parts ---

  /** What pages may use of the application. */
  _page() {
    return {
      client: this.client,
      mode: MODE,
      ticker: this.ticker,
      announce: (text) => this._liveRegion.say(text),
      notify: (text, isBad) => this.shell.notify(text, isBad),
      open: (executionId) => go(`/x/${executionId}`),
      back: () => go("/"),
    };
  }

  /** The user must enter a newer token; streams and requests wait for it. All of them wait for one dialog, and a late
   * one gets the token that was just entered. */
  async _token(isRefused) {
    const isNew = Date.now() - this._renewedAt < RENEWAL_REUSE_MS;
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
    const name = { list: "Executions", execution: "Execution", ops: "Operations", new: "New execution" }[this._name];
    document.title = `${waiting ? `(${waiting}) ` : ""}${name} · Runcast`;
  }
}

/** Rejects if an edge does not accept the token. */
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
    h("p", { class: "muted" }, "Select an execution to follow it live, or start one."),
    h("a", { class: "button primary", href: "#/new" }, icon("add"), "New execution"),
    h("ul", { class: "hints" }, hint("jk", "move in the list"), hint("/", "filter"), hint("?", "all keys")),
  );
}

new App();
