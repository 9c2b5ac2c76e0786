/** The session: by a token, by an OpenID provider, or by the cookie; the sign-in page, and links with a token. One session
 * is that of all tabs. A pasted token outlives a reload of its tab; what a provider gave is kept in memory only. */

import { openDialog } from "./dialog.js";
import { h, setText } from "./dom.js";
import { icon, mark } from "./icons.js";
import { NOT_OURS, OidcClient } from "./oidc.js";
import { Tabs } from "./tabs.js";
import { line } from "./text.js";

const KEY = "runcast:token";
/** The class of the dialog that asks about a link. */
export const LINK_QUESTION = "link-question";

/** How one signs in here. */
const SIGN_IN = "/console/sign-in.json";
const REFRESH_LOCK = "runcast:refresh";

/** @typedef {{token: string | null, oidc: import("./oidc.js").OidcTokens | null}} Credentials `token` null: the cookie */

export class Session {
  /** @param {{onChange: () => void}} app `onChange`: another tab signed out, or in as somebody else */
  constructor({ onChange }) {
    const token = readStored();
    /** @type {Credentials | null} */
    this._credentials = token === null ? null : { token, oidc: null };
    this._onChange = onChange;
    this.provider = null;
    this._learning = null;
    /** What another tab said last of itself. */
    this._news = undefined;
    this._tabs = new Tabs({ current: () => this._credentials, onChange: (news) => this._hear(news) });
  }

  get isSignedIn() {
    return this._credentials !== null;
  }

  /** Whether newer tokens come without anybody being asked. */
  get isRenewable() {
    return Boolean(this._credentials?.oidc?.refreshToken) && this.provider !== null;
  }

  /** Find a session for a page that was loaded without a token: of a sign-in that returns, of another tab, of the cookie,
   * or at the provider where somebody signed in before. Whether there is one; if the page is about to leave for the
   * provider, this does not return. Raises `OidcError`. */
  async find() {
    const learning = this.learn();
    if (this.isSignedIn && !OidcClient.hasReturned) return true;
    const [cookie, answer] = await Promise.all([learning, this._tabs.ask()]);
    const others = this._news === undefined ? answer : this._news;
    if (this.isSignedIn && !OidcClient.hasReturned) return true; // by a link, meanwhile
    if (this.provider !== null && OidcClient.hasReturned) return await this._finish();
    if (others !== null) this._credentials = others;
    else if (cookie) this._credentials = { token: null, oidc: null };
    else if (this.provider?.isKnown) {
      await this.provider.leave(location.hash.slice(1), { isSilent: true });
      await new Promise(() => {}); // the page is left
    }
    return this.isSignedIn;
  }

  /** Learn of the provider, also where a token is enough for now: once that is over, one may sign in there. Whether the
   * browser has the cookie. */
  learn() {
    this._learning ??= howToSignIn().then(({ oidc, cookie }) => {
      this.provider = oidc && new OidcClient(oidc);
      return cookie;
    });
    return this._learning;
  }

  async _finish() {
    try {
      const { tokens } = await this.provider.finish();
      this._set({ token: tokens.accessToken, oidc: tokens });
      return true;
    } catch (error) {
      if (error.code !== NOT_OURS) this.provider.forget(); // or it would be tried again at once
      if (error.code === "login_required" || error.code === "interaction_required") return false;
      throw error;
    }
  }

  /** A newer token from the provider; the other tabs get it too, and only one of them asks. Raises `OidcError`. */
  async renew() {
    const before = this._credentials;
    return await exclusively(async () => {
      if (this._credentials === before) {
        const oidc = await this.provider.refresh(before.oidc);
        if (this._credentials === before) this._set({ token: oidc.accessToken, oidc }); // nobody signed out meanwhile
      }
      return this._credentials?.token ?? null;
    });
  }

  _set(credentials) {
    this._credentials = credentials;
    this._tabs.tell(credentials);
  }

  _hear(news) {
    const before = this._credentials;
    const isSame = before !== null && news !== null && isSamePerson(claims(news.token), claims(before.token));
    this._news = news;
    if (before === null) return; // the sign-in page stays; its person may want to be somebody else
    this._credentials = news;
    if (before.oidc === null) store(null);
    if (!isSame) this._onChange();
  }

  /**
   * Whether a link's token may sign in without confirmation. Anybody can send a link, and its reader would go on in the
   * sender's account. So it must be the same user, or nobody is signed in and the edge is on this machine.
   */
  trusts(token) {
    if (!this.isSignedIn) return isThisMachine(location.hostname);
    return isSamePerson(claims(token), claims(this._credentials.token));
  }

  get token() {
    return this._credentials?.token ?? null;
  }

  /** Whether the token may change what is another's; unverified, for display. */
  get isAdmin() {
    return scopes(this.token).includes("admin");
  }

  /** Whether it may read that. */
  get readsOthers() {
    return this.isAdmin || scopes(this.token).includes("org:read");
  }

  /** The name in the token, unverified, for display. */
  get user() {
    return nameOf(this.token);
  }

  signIn(token) {
    store(token);
    this._set({ token, oidc: null });
  }

  /** Everywhere: in all tabs, and at the provider if `isWanted`, by the person and not by an expiry. */
  signOut({ isWanted = false } = {}) {
    const { oidc } = this._credentials ?? {};
    store(null);
    this._set(null);
    if (isWanted && oidc && this.provider) void this.provider.leaveForGood(oidc).catch(() => {});
    else this.provider?.forget();
  }
}

/** The token of `#token=…`, or null. It is removed from the address bar and the history first. */
export function takeLink() {
  const match = /^#token=([^&]*)(?:&to=(.*))?$/.exec(location.hash);
  if (!match) return null;
  const to = decode(match[2] ?? "");
  history.replaceState(null, "", location.pathname + location.search + (to ? `#${to}` : ""));
  return clean(decode(match[1]));
}

/** The text, percent-decoded; empty if it cannot be decoded. */
function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}

function isThisMachine(host) {
  return host === "localhost" || host.endsWith(".localhost") || host === "[::1]" || /^127\.[\d.]+$/.test(host);
}

function isSamePerson(one, other) {
  return typeof one.sub === "string" && one.sub === other.sub && (one.org ?? null) === (other.org ?? null);
}

function nameOf(token) {
  const { sub } = claims(token);
  return typeof sub === "string" || typeof sub === "number" ? String(sub) : null;
}

/** Ask for confirmation to sign in with a link's token; whether it was given. `user`: who is signed in, or null. */
export async function askAboutLink(token, user) {
  const name = line(nameOf(token) ?? "an unknown user", 80);
  const { org } = claims(token);
  let isWanted = false;
  const content = (close) => {
    const accept = () => {
      isWanted = true;
      close();
    };
    return [
      h(
        "p",
        {},
        "The link that you followed signs you in as ",
        h("strong", {}, name),
        typeof org === "string" && org !== "default" ? [" of ", h("strong", {}, line(org, 80))] : null,
        user ? [". You are ", h("strong", {}, line(user, 80)), " now."] : ".",
      ),
      h(
        "p",
        { class: "muted" },
        "Everything that you start or answer will belong to that account, and its owner can see it.",
      ),
      h(
        "div",
        { class: "dialog-actions" },
        h("button", { type: "button", class: "button", autofocus: true, onclick: close }, user ? "Stay" : "Cancel"),
        h("button", { type: "button", class: "button primary", onclick: accept }, `Sign in as ${name}`),
      ),
    ];
  };
  await openDialog("Sign in with this link?", content, { className: LINK_QUESTION });
  return isWanted;
}

function readStored() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}

function store(token) {
  try {
    if (token === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, token);
  } catch {
    // Storage is forbidden: the token lasts until the page is closed.
  }
}

/** A pasted token without decoration; null if it is not a token. */
export function clean(text) {
  const token = text
    .trim()
    .replace(/^["']|["']$/g, "")
    .replace(/^Bearer\s+/i, "");
  return /^[\x21-\x7e]+$/.test(token) ? token : null;
}

/** @returns {Promise<{oidc: object | null, cookie: boolean}>} */
async function howToSignIn() {
  try {
    const response = await fetch(SIGN_IN, { signal: AbortSignal.timeout(10_000) });
    return response.ok ? await response.json() : { oidc: null, cookie: false };
  } catch {
    return { oidc: null, cookie: false }; // a token can still be pasted
  }
}

/** Only one tab at a time: a refresh token may be good for one use only. */
function exclusively(act) {
  return navigator.locks ? navigator.locks.request(REFRESH_LOCK, act) : act();
}

function scopes(token) {
  const { scope, scp } = claims(token);
  return [scope ?? scp ?? ""].flat().join(" ").split(" ");
}

function claims(token) {
  try {
    const payload = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const text = new TextDecoder().decode(Uint8Array.from(atob(payload), (char) => char.charCodeAt(0)));
    return Object(JSON.parse(text)); // of null, too
  } catch {
    return {};
  }
}

/**
 * The sign-in page. `check(token)` rejects if an edge does not accept the token; otherwise `onDone(token)` is called.
 * `why`: why the last token is gone.
 */
export function signInPage({ why, check, onDone, provider = null }) {
  return h(
    "main",
    { class: "sign-in" },
    h(
      "div",
      { class: "sign-in-card" },
      h("div", { class: "brand large" }, mark(), h("h1", {}, "Runcast")),
      h("p", { class: "muted" }, "Watch what your agents are doing."),
      provider === null ? null : providerButton(provider),
      provider === null ? tokenForm({ why, check, onDone }) : tokenDetails({ why, check, onDone }),
    ),
  );
}

/** The button that leaves for the provider and comes back to this page. */
export function providerButton(provider) {
  const problem = h("p", { class: "problem", role: "alert" });
  const button = h("button", { type: "button", class: "button primary wide", onclick: leave }, "Sign in");
  return h("div", { class: "sign-in-form" }, button, problem, h("p", { class: "field-hint" }, `at ${provider.name}`));

  async function leave() {
    button.disabled = true;
    try {
      await provider.leave(location.hash.slice(1));
    } catch (error) {
      button.disabled = false;
      setText(problem, line(error.message, 200));
    }
  }
}

function tokenDetails({ why, check, onDone }) {
  const form = tokenForm({ why: "", check, onDone, hasFocus: false });
  const details = h("details", { class: "sign-in-token" }, h("summary", {}, "Use an access token"), form);
  return [h("p", { class: "problem", role: "alert" }, why ?? ""), details];
}

/** The form alone, for a dialog. */
export function tokenForm({ why, check, onDone, hasFocus = true }) {
  const input = h("input", {
    type: "password",
    id: "token",
    name: "token",
    class: "mono",
    autocomplete: "current-password",
    spellcheck: "false",
    placeholder: "eyJhbGciOi…",
    "aria-describedby": "token-hint token-problem",
  });
  const problem = h("p", { class: "problem", id: "token-problem", role: "alert" }, why ?? "");
  const button = h("button", { type: "submit", class: "button primary wide" }, "Sign in");
  // For password managers, which need a name beside the password.
  const name = h("input", { type: "text", name: "username", autocomplete: "username", value: "token", hidden: true });
  const form = h(
    "form",
    { class: "sign-in-form", onsubmit: submit },
    name,
    h("label", { class: "field-label", for: "token" }, "Access token"),
    input,
    problem,
    button,
    h(
      "p",
      { class: "field-hint", id: "token-hint" },
      icon("info"),
      h(
        "span",
        {},
        "The token stays in this browser's open tabs. Create one: ",
        h("code", { class: "nowrap" }, "runcast token --user you"),
      ),
    ),
  );
  if (hasFocus) queueMicrotask(() => input.focus());
  return form;

  async function submit(event) {
    event.preventDefault();
    const token = clean(input.value);
    if (!token)
      return fail(
        input.value.trim()
          ? "This is not a token: it contains characters that tokens never have."
          : "Paste a token first.",
      );
    button.disabled = true;
    setText(problem, "");
    try {
      await check(token);
      onDone(token);
    } catch (error) {
      fail(refusedToken(error));
    }
  }

  function fail(text) {
    button.disabled = false;
    setText(problem, text);
    input.setAttribute("aria-invalid", "true");
    input.focus();
  }
}

export function refusedToken(error) {
  if (error.status === 401) return `This token was not accepted: ${line(error.detail || error.message, 200)}`;
  if (error.status === 403) return `This token may not read executions: ${line(error.detail || error.message, 200)}`;
  return `The edge could not be reached: ${line(error.detail || error.message, 200)}`;
}
