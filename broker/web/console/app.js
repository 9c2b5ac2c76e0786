/** The console's entry: the session, and the page for the address. */

import { ExecutionFeed } from "/client/feed.js";
import { RuncastClient } from "/client/index.js";
import { h } from "./dom.js";
import { ExecutionList } from "./execution-list.js";
import { ExecutionPage } from "./execution-page.js";
import { icon } from "./icons.js";
import { listen, showHelp } from "./keyboard.js";
import { LiveRegion } from "./live-region.js";
import { Notifications } from "./notifications.js";
import { TITLES, routeOf } from "./routes.js";
import { LINK_QUESTION, Session, askAboutLink, refusedToken, signInPage, takeLink } from "./session.js";
import { SharedVisit, sharedIn } from "./shared-visit.js";
import { Shell } from "./shell.js";
import { Ticker } from "./ticker.js";

const LISTED = 100;
/** A token renewed within this time is used for all streams that request a newer one. */
const RENEWAL_REUSE_MS = 60_000;
/** One connection for all tabs: browsers open at most six to a host. */
const MODE = "shared";

class App {
  constructor() {
    this._session = new Session({ onChange: () => this._follow() });
    this._visit = null;
    addEventListener("hashchange", () => this._arrive());
    listen(this._keys());
    if (this._showShared()) return;
    const offered = takeLink();
    if (offered && this._session.trusts(offered)) return void this._enter(offered);
    void this._begin(offered);
  }

  async _begin(offered) {
    let why;
    try {
      await this._session.find();
    } catch (error) {
      why = error.message;
    }
    if (!this._session.isSignedIn) await this._askForToken(why);
    else if (this._visit === null) this._open(); // a link may have done so meanwhile
    if (offered) void this._consider(offered);
  }

  /** Another tab signed out, or in as somebody else. */
  _follow() {
    if (this._visit instanceof SharedVisit) return; // it is nobody's session
    this._visit?.end();
    this._visit = null;
    if (this._session.isSignedIn) this._open();
    else void this._askForToken();
  }

  /** The address changed: another page, or a link with a token. */
  _arrive() {
    if (this._showShared()) return;
    if (this._visit instanceof SharedVisit) return void location.reload();
    const offered = takeLink();
    if (offered && this._session.trusts(offered)) return void this._enter(offered);
    if (this._visit && !this._visit.isOf(userIn(location.hash))) return void this._reopen();
    this._visit?.route();
    if (offered) void this._consider(offered);
  }

  /** One dialog at a time, also with several links. */
  async _consider(offered) {
    if (document.querySelector(`.${LINK_QUESTION}[open]`)) return; // one that closes is in the page for a moment
    if (await askAboutLink(offered, this._session.user)) this._enter(offered);
  }

  _enter(token) {
    void this._session.learn();
    this._session.signIn(token);
    this._visit?.end();
    this._open();
  }

  _open() {
    this._visit = new SignedIn(this._session, userIn(location.hash) ?? null, (why) => this._leave(why));
  }

  /** For the executions of another person, or again for one's own. */
  _reopen() {
    this._visit.end();
    if (userIn(location.hash) === null) history.replaceState(null, "", location.pathname);
    this._open();
  }

  /** Whether the address is a link to one execution, which needs no session. */
  _showShared() {
    const shared = sharedIn(location.hash);
    if (shared === null) return false;
    this._visit?.end();
    this._visit = new SharedVisit(shared);
    return true;
  }

  /** `why`: the session ended by itself; without it, its person wants to leave. */
  _leave(why) {
    this._visit?.end();
    this._visit = null;
    this._session.signOut({ isWanted: why === undefined });
    void this._askForToken(why);
  }

  async _askForToken(why) {
    await this._session.learn();
    if (this._visit !== null) return;
    document.title = "Sign in · Runcast";
    const { provider } = this._session;
    document.body.replaceChildren(signInPage({ why, check, provider, onDone: (token) => this._enter(token) }));
  }

  _keys() {
    const visit = (act) => (event) => (this._visit instanceof SignedIn ? act(this._visit, event) : false);
    const page = (act) => visit((current) => (current.view instanceof ExecutionPage ? act(current.view) : false));
    return {
      j: visit((current) => current.list.move(1)),
      k: visit((current) => current.list.move(-1)),
      ArrowDown: visit((current, event) => current.inList(event.target) && current.list.move(1)),
      ArrowUp: visit((current, event) => current.inList(event.target) && current.list.move(-1)),
      Escape: visit((current, event) => current.escape(event)),
      "/": visit((current, event) => current.filter(event)),
      n: visit((current) => (current.isReadOnly ? false : go("/new"))),
      o: visit(() => go("/ops")),
      a: page((view) => view.answer()),
      m: page((view) => view.write()),
      p: page((view) => view.toggleFreeze()),
      r: page((view) => view.toggleView("raw")),
      v: page((view) => view.toggleView("timeline")),
      l: page((view) => view.follow()),
      t: visit((current) => current.shell.nextTheme()),
      "?": visit(() => void showHelp()),
    };
  }
}

/** Everything between sign-in and sign-out. */
class SignedIn {
  /** `user`: whose executions are shown, if not one's own: with scope `admin`, or to read with `org:read`. */
  constructor(session, user, onLeave) {
    this._session = session;
    this._user = user;
    this._base = user === null ? "#" : `#/as/${encodeURIComponent(user)}`;
    this._onLeave = onLeave;
    this._wasIn = false;
    this._renewal = null;
    this._renewedAt = -Infinity;
    const as = user === null ? {} : { user };
    this.client = new RuncastClient({ token: ({ refresh }) => this._token(refresh), as });
    this.ticker = new Ticker();
    this._liveRegion = new LiveRegion();
    this.view = null;
    this.list = new ExecutionList(this._page());
    this._notifications = new Notifications(this._page());
    const bell = this._notifications.button;
    this.shell = new Shell(this.list.node, this._liveRegion, { who: session.user, bell, onSignOut: () => onLeave() });
    if (user !== null) this.shell.sayWhose(user);
    this._feed = new ExecutionFeed(this.client, { limit: LISTED, mode: this._mode });
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

  isOf(user) {
    return user === undefined || user === this._user;
  }

  get isReadOnly() {
    return this._user !== null && !this._session.isAdmin;
  }

  /** A connection that tabs share is one of its person's own. */
  get _mode() {
    return this._user === null ? MODE : "fetch";
  }

  /** Show the page for the address. Links on pages do not say whose page it is. */
  route() {
    if (this._user !== null && !location.hash.startsWith(this._base))
      history.replaceState(null, "", this._base + location.hash.slice(1));
    const { name, ids, query, make } = routeOf("#" + location.hash.slice(this._base.length));
    this.view?.end();
    this.view = make?.(this._page(), ids, query) ?? null;
    this._name = name;
    this._current = name === "execution" ? ids[0] : null;
    this.shell.show(this.view?.node ?? welcome(this._session.readsOthers, this.isReadOnly), name);
    this.list.select(this._current);
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
      mode: this._mode,
      base: this._base,
      isReadOnly: this.isReadOnly,
      ticker: this.ticker,
      announce: (text) => this._liveRegion.say(text),
      notify: (text, isBad) => this.shell.notify(text, isBad),
      open: (executionId) => go(`/x/${executionId}`),
      go,
      back: () => go("/"),
    };
  }

  /** The user must enter a newer token; streams and requests wait for it. All of them wait for one dialog, and a late
   * one gets the token that was just entered. */
  async _token(isRefused) {
    const { isRenewable } = this._session;
    const isNew = !isRenewable && Date.now() - this._renewedAt < RENEWAL_REUSE_MS;
    if (!isRefused || isNew || !(this._wasIn || isRenewable)) return this._session.token;
    this._renewal ??= this._renew().finally(() => (this._renewal = null));
    return await this._renewal;
  }

  async _renew() {
    let token;
    try {
      token = this._session.isRenewable ? await this._session.renew() : await this._ask();
    } catch {
      token = await this._ask();
    }
    this._renewedAt = Date.now();
    return token;
  }

  /** The person signs in again, and keeps the page. */
  async _ask() {
    const token = await this.shell.askForToken(check, this._session.provider);
    this._session.signIn(token);
    return token;
  }

  _showFeed() {
    const snapshot = this._feed.getSnapshot();
    const { status, isLoaded } = snapshot;
    this._wasIn ||= isLoaded;
    this.shell.pill.show(status);
    this.list.show(snapshot);
    this._notifications.show(snapshot, this._current ?? null);
    this._showTitle();
    if (status.phase === "failed" && status.error?.status === 401) this._onLeave(refusedToken(status.error));
  }

  _showTitle() {
    const waiting = this.list.waiting;
    document.title = `${waiting ? `(${waiting}) ` : ""}${TITLES[this._name]} · Runcast`;
  }
}

/** Rejects if an edge does not accept the token. */
function check(token) {
  return new RuncastClient({ token }).executions({ limit: 1 });
}

/** Whose executions the address is about: `#/as/<user>/…`; null: one's own (`#/as/`); undefined: it does not say. */
function userIn(hash) {
  const match = /^#\/as\/([^/]*)/.exec(hash);
  if (match === null) return undefined;
  try {
    return decodeURIComponent(match[1]) || null;
  } catch {
    return null;
  }
}

function go(path) {
  location.hash = path;
}

/** `readsOthers`: whether to ask for the executions of other people; `isReadOnly`: whether one may start none here. */
function welcome(readsOthers, isReadOnly) {
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
    h("p", { class: "muted" }, `Select an execution to follow it live${isReadOnly ? "" : ", or start one"}.`),
    isReadOnly ? null : h("a", { class: "button primary", href: "#/new" }, icon("add"), "New execution"),
    readsOthers ? others() : null,
    h("ul", { class: "hints" }, hint("jk", "move in the list"), hint("/", "search"), hint("?", "all keys")),
  );
}

function others() {
  const name = h("input", { type: "text", id: "whose", autocomplete: "off", spellcheck: "false", maxlength: 2048 });
  const show = (event) => {
    event.preventDefault();
    if (name.value.trim()) go(`/as/${encodeURIComponent(name.value.trim())}`);
  };
  return h(
    "form",
    { class: "whose", onsubmit: show },
    h("label", { for: "whose" }, "Executions of"),
    name,
    h("button", { type: "submit", class: "button" }, "Show"),
  );
}

new App();
