/**
 * What the browser makes of made-up input, for `fuzzers.py`. In: JSON lines `{parser: [base64 …]}` or
 * `{markdown: [piece …]}`. Out: for each a JSON line, `{frames, lastEventId}` or `{pieces, whole}`: the view after
 * these pieces, and after their text at once, as `[tag, attributes, children …]`.
 */
import { Buffer } from "node:buffer";
import process from "node:process";
import readline from "node:readline";
import { EventStreamParser } from "../../broker/web/client/parser.js";

/** As much of a document as the Markdown view uses. */
class Element {
  parent = null;
  children = [];
  attributes = {};

  constructor(tag) {
    this.tag = tag;
  }

  setAttribute(name, value) {
    this.attributes[name] = value;
  }

  append(...children) {
    for (const child of children) if (child instanceof Element) child.parent = this;
    this.children.push(...children);
  }

  remove() {
    const at = this.parent?.children.indexOf(this) ?? -1;
    if (at >= 0) this.parent.children.splice(at, 1);
  }

  replaceChildren(...children) {
    this.children = [];
    this.append(...children);
  }

  toJSON() {
    return [this.tag, this.attributes, ...this.children];
  }
}

globalThis.document = { createElement: (tag) => new Element(tag) };
const { MarkdownView } = await import("../../broker/web/console/markdown-view.js");

function parse(pieces) {
  const frames = [];
  const onEvent = (frame) => frames.push([frame.id ?? null, frame.event, frame.data]);
  const parser = new EventStreamParser({ onEvent });
  for (const piece of pieces) parser.feed(Buffer.from(piece, "base64"));
  return { frames, lastEventId: parser.lastEventId };
}

function render(texts) {
  const view = new MarkdownView();
  for (const text of texts) view.update(text);
  return view.node;
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  const given = JSON.parse(line);
  let text = "";
  const told = given.parser
    ? parse(given.parser)
    : { pieces: render(given.markdown.map((piece) => (text += piece))), whole: render([text]) };
  process.stdout.write(JSON.stringify(told) + "\n");
}
