/** The frame of all pages: the top bar, the list, the stage, notices. */

import { ConnectionPill } from "./connection-status.js";
import { openDialog } from "./dialog.js";
import { h, setAttribute } from "./dom.js";
import { icon, mark } from "./icons.js";
import { showHelp } from "./keyboard.js";
import { providerButton, tokenForm } from "./session.js";
import { isolated, line } from "./text.js";

const THEMES = ["system", "light", "dark"];
const ICONS = { system: "theme", light: "sun", dark: "moon" };
const NOTICE_MS = 3_500;

export class Shell {
  /** `side`: the node of the list; `who`: the user's name; `bell`: the button for notifications. */
  constructor(side, liveRegion, { who, bell, onSignOut }) {
    this.pill = new ConnectionPill();
    this._liveRegion = liveRegion;
    this._stage = h("main", { class: "stage", id: "stage", tabindex: "-1" });
    this._links = [
      ["list", h("a", { href: "#/" }, "Executions")],
      ["ops", h("a", { href: "#/ops" }, "Operations")],
    ];
    this._theme = h("button", { type: "button", class: "button quiet square", onclick: () => this.nextTheme() });
    this._notices = h("div", { class: "notices", role: "status" });
    this._work = h("div", { class: "work" }, side, this._stage);
    this.node = h(
      "div",
      { class: "shell" },
      h("a", { class: "skip", href: "#stage", onclick: (event) => this._skip(event) }, "Skip to content"),
      this._bar(who, bell, onSignOut),
      this._work,
      this._notices,
      liveRegion.node,
    );
    this._showTheme();
  }

  /** Show a view on the stage; `name`: list, execution, new or ops. */
  show(view, name) {
    this._stage.replaceChildren(...(view ? [view] : []));
    this._work.dataset.view = name;
    for (const [id, link] of this._links)
      setAttribute(link, "aria-current", id === name || (id === "list" && name === "execution") ? "page" : null);
  }

  /** Whose executions are shown, and the way back to one's own. */
  sayWhose(user) {
    this._work.before(
      h(
        "div",
        { class: "session-bar", role: "status" },
        h("span", {}, "Executions of ", h("strong", {}, line(user, 80))),
        h("a", { class: "button small", href: "#/as/" }, "Back to mine"),
      ),
    );
  }

  /** Ask for a newer token, and keep the page; resolves to a token that an edge accepts. */
  askForToken(check, provider = null) {
    return new Promise((resolve) => {
      const open = () =>
        openDialog("Sign in again", (close) => [
          provider === null ? null : providerButton(provider),
          tokenForm({
            check,
            onDone: (token) => {
              close();
              bar.remove();
              resolve(token);
            },
          }),
        ]);
      const bar = h(
        "div",
        { class: "session-bar", role: "alert" },
        h("span", {}, "Your session is ending. Sign in again to continue."),
        h("button", { type: "button", class: "button small", onclick: open }, "Sign in"),
      );
      this._work.before(bar);
    });
  }

  notify(text, isBad = false) {
    const node = h("p", { class: `notice ${isBad ? "bad" : ""}` }, icon(isBad ? "warning" : "check"), text);
    this._notices.replaceChildren(node);
    clearTimeout(this._timer);
    this._timer = setTimeout(() => node.remove(), isBad ? NOTICE_MS * 2 : NOTICE_MS);
  }

  nextTheme() {
    const next = THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length];
    if (next === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    try {
      localStorage.setItem("runcast:theme", next);
    } catch {
      // Storage is forbidden: the theme lasts until the page is closed.
    }
    this._showTheme();
    this._liveRegion.say(`Theme: ${next}`);
  }

  _bar(who, bell, onSignOut) {
    return h(
      "header",
      { class: "bar" },
      h("a", { class: "brand", href: "#/", "aria-label": "Runcast, executions" }, mark(), h("span", {}, "Runcast")),
      h(
        "nav",
        { class: "bar-links", "aria-label": "Pages" },
        this._links.map(([, link]) => link),
      ),
      this.pill.node,
      h(
        "div",
        { class: "bar-actions" },
        bell,
        this._theme,
        h(
          "button",
          {
            type: "button",
            class: "button quiet square help",
            "aria-label": "Keyboard",
            title: "Keyboard (?)",
            onclick: showHelp,
          },
          icon("keyboard"),
        ),
        h(
          "button",
          { type: "button", class: "button quiet who", title: "Sign out", onclick: onSignOut },
          who && h("span", { class: "who-name" }, isolated(who.slice(0, 40))),
          icon("signOut"),
          h("span", { class: "unseen" }, "Sign out"),
        ),
      ),
    );
  }

  _showTheme() {
    const label = `Theme: ${theme()}`;
    this._theme.replaceChildren(icon(ICONS[theme()]));
    setAttribute(this._theme, "aria-label", label);
    setAttribute(this._theme, "title", `${label} (t)`);
  }

  _skip(event) {
    event.preventDefault();
    this._stage.focus();
  }
}

function theme() {
  return document.documentElement.dataset.theme ?? "system";
}
