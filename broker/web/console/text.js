/** Text of agents for the page: isolated in direction, with invisible characters written out, and clamped. */

import { h } from "./dom.js";
import { bytes } from "./format.js";

/** Characters of a string that are shown without "Show all". */
export const CLAMP = 1_600;

// Controls except tab, LF and CR; direction overrides, embeddings and isolates, by which a path may read as another one;
// zero-width and other characters without a glyph; lone surrogates.
const UNSEEN =
  /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u200b\u2060-\u206f\u202a-\u202e\ufeff\ufff9-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

/** The text with invisible characters, and those that reorder others, written out: `‹U+202E›`. */
export function visible(text) {
  return String(text).replace(UNSEEN, (unseen) => {
    const code = unseen.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0");
    return `\u2039U+${code}\u203a`;
  });
}

/** A short text, isolated in direction from the text around it. */
export function isolated(text, className = "") {
  return h("bdi", { class: `said ${className}`.trim() }, visible(text));
}

/** The text in one line, of at most `most` characters. */
export function line(text, most = 300) {
  const cut = String(text)
    .slice(0, most * 2)
    .replace(/\s+/g, " ")
    .trim();
  return visible(cut.length > most ? `${cut.slice(0, most)}…` : cut);
}

/** A block of text, clamped, with a button for the rest. */
export function block(text, { tag = "p", className = "", most = CLAMP } = {}) {
  const whole = String(text);
  const node = h(tag, { class: `said ${className}`.trim(), dir: "auto" });
  if (whole.length <= most * 1.25) {
    node.append(visible(whole));
    return node;
  }
  const shown = h("span", {}, visible(whole.slice(0, cutAt(whole, most))), "…");
  const more = h(
    "button",
    { type: "button", class: "link-button show-all", onclick: open },
    `Show all (${size(whole)})`,
  );
  node.append(shown, " ", more);
  return node;

  function open() {
    node.replaceChildren(visible(whole));
    node.tabIndex = -1;
    node.focus({ preventScroll: true });
  }
}

/** Where to cut, not within a surrogate pair. */
function cutAt(text, most) {
  const code = text.charCodeAt(most - 1);
  return code >= 0xd800 && code <= 0xdbff ? most - 1 : most;
}

function size(text) {
  return text.length < 10_000 ? `${text.length.toLocaleString("en")} characters` : bytes(text.length);
}

/** Text that grows: only the new part is added to the page. */
export class Growing {
  constructor(className = "") {
    this.node = h("p", { class: `said ${className}`.trim(), dir: "auto" });
    this._text = "";
  }

  update(text) {
    if (text.startsWith(this._text)) {
      const more = text.slice(this._text.length);
      if (more) this.node.append(visible(more));
    } else {
      this.node.replaceChildren(visible(text));
    }
    this._text = text;
  }
}
