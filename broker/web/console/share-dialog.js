/** The dialog about the links that show an execution to others: make one, see those that work, revoke one. */

import { copy } from "./curl.js";
import { openDialog } from "./dialog.js";
import { h, setText } from "./dom.js";
import { moment } from "./format.js";
import { icon } from "./icons.js";
import { line } from "./text.js";

const LIVES = [
  ["an hour", 3_600],
  ["a day", 86_400],
  ["a week", 7 * 86_400],
];

/** `client` of the owner. */
export function openShareDialog(client, executionId) {
  return openDialog("Share this execution", () => new ShareForm(client, executionId).node);
}

class ShareForm {
  constructor(client, executionId) {
    this._client = client;
    this._id = executionId;
    this._life = h(
      "select",
      { id: "share-life" },
      LIVES.map(([label, seconds]) => h("option", { value: seconds, selected: seconds === 86_400 }, label)),
    );
    this._button = h("button", { type: "submit", class: "button primary" }, icon("link"), "Make a link");
    this._problem = h("p", { class: "problem", role: "alert" });
    this._made = h("div", { class: "share-made", role: "status" });
    this._list = h("ul", { class: "shares", "aria-label": "Links that work" });
    this.node = h(
      "form",
      { class: "share-form", onsubmit: (event) => (event.preventDefault(), void this._make()) },
      h(
        "p",
        { class: "muted" },
        "Whoever has the link sees this execution, with its input and result, without an account. They can change nothing.",
      ),
      h("div", { class: "share-line" }, h("label", { for: "share-life" }, "It works for"), this._life, this._button),
      this._problem,
      this._made,
      this._list,
    );
    void this._load();
  }

  async _make() {
    this._button.disabled = true;
    setText(this._problem, "");
    try {
      const made = await this._client.share(this._id, { expiresInSeconds: Number(this._life.value) });
      const url = asReached(made.url);
      const isCopied = await copy(url);
      const field = h("input", { type: "text", class: "mono", readonly: true, value: url, "aria-label": "Link" });
      this._made.replaceChildren(field, h("p", {}, isCopied ? "Copied. It is shown only now." : "It is shown only now."));
      field.select();
    } catch (error) {
      setText(this._problem, line(error.detail || error.message, 200));
    } finally {
      this._button.disabled = false;
    }
    await this._load();
  }

  async _load() {
    const { shares } = await this._client.shares(this._id).catch(() => ({ shares: [] }));
    this._list.replaceChildren(...shares.map((share) => this._row(share)));
  }

  _row({ shareId, createdAt, expiresAt, by }) {
    const made = `Made ${moment(createdAt)} by ${line(by, 60)}`;
    const revoke = h(
      "button",
      { type: "button", class: "button small", "aria-label": `Revoke: ${made}`, onclick: () => this._revoke(shareId) },
      "Revoke",
    );
    return h("li", {}, h("span", {}, `Until ${moment(expiresAt)}`, h("small", { class: "muted" }, made)), revoke);
  }

  async _revoke(shareId) {
    try {
      await this._client.revokeShare(this._id, shareId);
    } catch (error) {
      setText(this._problem, line(error.detail || error.message, 200));
    }
    await this._load();
  }
}

/** A link to this host as this page was reached: TLS often ends in front of the edge, which does not know it then. */
function asReached(text) {
  const url = new URL(text);
  if (url.host === location.host) url.protocol = location.protocol;
  return url.href;
}
