/** Whatever an agent said, shown as text: isolated in direction, with what would be invisible made visible, and clamped. */

import { h } from "./dom.js";
import { bytes } from "./format.js";

export const CLAMP = 1_600;
/** Characters of one string that are shown before somebody asks for the rest. */

// Controls but tab, LF and CR; direction overrides, embeddings and isolates (which could make a path read as another);
// zero-width and other characters without a glyph; lone surrogates.
const UNSEEN =
  /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u200b\u2060-\u206f\u202a-\u202e\ufeff\ufff9-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

/** The text with characters that change how others read, or that nobody sees, written out: `‹U+202E›`. */
export function visible(text) {
  return String(text).replace(UNSEEN, (unseen) => {
    const code = unseen.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0");
    return `\u2039U+${code}\u203a`;
  });
}

/** A short piece of it in a line. */
export function said(text, className = "") {
  return h("bdi", { class: `said ${className}`.trim() }, visible(text));
}

/** One line, at most so many characters, whatever line ends are in it. */
export function line(text, most = 300) {
  const cut = String(text)
    .slice(0, most * 2)
    .replace(/\s+/g, " ")
    .trim();
  return visible(cut.length > most ? `${cut.slice(0, most)}…` : cut);
}

/** A block of it, clamped, with a button for the rest. */
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

/** Not in the middle of a surrogate pair. */
function cutAt(text, most) {
  const code = text.charCodeAt(most - 1);
  return code >= 0xd800 && code <= 0xdbff ? most - 1 : most;
}

function size(text) {
  return text.length < 10_000 ? `${text.length.toLocaleString("en")} characters` : bytes(text.length);
}

/** Text that grows: only what is new is added to the page. */
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
