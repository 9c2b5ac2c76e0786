/** The session: the token, which is kept for this tab only, the sign-in form, and links with a token. */

import { openDialog } from "./dialog.js";
import { h, setText } from "./dom.js";
import { icon, mark } from "./icons.js";
import { line } from "./text.js";

const KEY = "runcast:token";
/** The class of the dialog that asks about a link. */
export const LINK_QUESTION = "link-question";

export class Session {
  constructor() {
    this._token = readStored();
  }

  /**
   * Whether a link's token may sign in without confirmation. Anybody can send a link, and its reader would go on in the
   * sender's account. So it must be the same user, or nobody is signed in and the edge is on this machine.
   */
  trusts(token) {
    return this._token === null ? isThisMachine(location.hostname) : isSamePerson(claims(token), claims(this._token));
  }

  get token() {
    return this._token;
  }

  /** The name in the token, unverified, for display. */
  get user() {
    return nameOf(this._token);
  }

  signIn(token) {
    this._token = token;
    store(token);
  }

  signOut() {
    this._token = null;
    store(null);
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
export function signInPage({ why, check, onDone }) {
  return h(
    "main",
    { class: "sign-in" },
    h(
      "div",
      { class: "sign-in-card" },
      h("div", { class: "brand large" }, mark(), h("h1", {}, "Runcast")),
      h("p", { class: "muted" }, "Watch what your agents are doing."),
      tokenForm({ why, check, onDone }),
    ),
  );
}

/** The form alone, for a dialog. */
export function tokenForm({ why, check, onDone }) {
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
        "The token stays in this tab. Create one: ",
        h("code", { class: "nowrap" }, "runcast token --user you"),
      ),
    ),
  );
  queueMicrotask(() => input.focus());
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
