/**
 * A view of Markdown that is streamed: DOM nodes only, never HTML. Finished blocks stay as they are; only the end, which
 * may still change, is rendered again.
 */

import { h } from "./dom.js";
import { readBlock } from "./markdown.js";
import { visible } from "./text.js";

/** Characters; the rest is shown as plain text. */
const MAX_MARKDOWN = 200_000;

/** `update` takes the whole text each time, extended or (rarely) replaced. */
export class MarkdownView {
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
      if (this._open.length === 0 && this._isFinal(end)) this._settled = end;
      else if (node) this._open.push(node);
    }
  }

  /** Whether a complete line follows the block: only then the block cannot change any more. */
  _isFinal(end) {
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
