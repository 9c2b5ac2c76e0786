/**
 * Markdown as it streams in: DOM nodes only, never HTML. What is finished stays in the page as it is; only what may
 * still become something else, the end of it, is made anew.
 */

import { h } from "./dom.js";
import { visible } from "./text.js";
import { readBlock } from "./markdown.js";

const MAX_MARKDOWN = 200_000;
/** Characters after which the rest is shown as plain text. */

/** A message's text. `update` takes all of it again and again, grown or (rarely) replaced. */
export class Prose {
  constructor() {
    this.node = h("div", { class: "prose" });
    this._text = "";
    this._settled = 0;
    this._open = [];
  }

  update(text) {
    if (text === this._text) return;
    if (!text.startsWith(this._text)) this._restart();
    this._text = text;
    for (const node of this._open) node.remove();
    this._open = [];
    this._render();
  }

  _restart() {
    this.node.replaceChildren();
    this._settled = 0;
  }

  _render() {
    let at = this._settled;
    while (at < this._text.length) {
      const { end, build } = this._next(at);
      const node = build();
      if (node) this.node.append(node);
      at = end;
      if (this._open.length === 0 && this._isSure(end)) this._settled = end;
      else if (node) this._open.push(node);
    }
  }

  /** Whether a whole line follows that belongs to no block before: of half a line nobody knows what it becomes. */
  _isSure(end) {
    const next = end + /^\s*/.exec(this._text.slice(end, end + 10_000))[0].length;
    return this._text.indexOf("\n", next) >= 0;
  }

  _next(at) {
    if (at >= MAX_MARKDOWN) {
      const rest = this._text.slice(at);
      return { end: this._text.length, build: () => h("p", { class: "said", dir: "auto" }, visible(rest)) };
    }
    return readBlock(this._text, at);
  }
}
