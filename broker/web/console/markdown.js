/**
 * The Markdown that agents write: headings, paragraphs, lists, quotes, code, tables, rules; emphasis, code and links
 * in lines. A block reader over a text and a position, so that a text that grows is never read twice.
 */

import { h } from "./dom.js";
import { visible } from "./text.js";

const MAX_INLINE = 8_000;
/** A longer line is shown as plain text, to bound the time of the patterns below. */
const MAX_LINE = 2_000;
const MAX_DEPTH = 4;
const MAX_CELLS = 40;

const FENCE = /^ {0,3}(```+|~~~+)[ \t]*([\w+#.-]{0,40})/;
const HEADING = /^ {0,3}(#{1,6})[ \t]+(.*?)[ \t]*#*[ \t]*$/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,7})([-*+]|\d{1,9}[.)])[ \t]+(.*)$/;
const DIVIDER = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(\|[ \t]*:?-+:?[ \t]*){0,39}\|?[ \t]*$/;
const BLANK = /^[ \t]*$/;

/**
 * Read the block that begins at a position: `end` is where the next begins, `build()` makes its node (null for
 * nothing). A block that reaches the text's end may not be finished.
 */
export function readBlock(text, start, depth = 0) {
  const first = lineAt(text, start);
  if (BLANK.test(first.line)) return { end: first.next, build: () => null };
  if (first.line.length > MAX_LINE) return readParagraph(text, start);
  const fence = FENCE.exec(first.line);
  if (fence) return readFence(text, first, fence);
  const heading = HEADING.exec(first.line);
  if (heading) return { end: first.next, build: () => headingNode(heading) };
  if (RULE.test(first.line)) return { end: first.next, build: () => h("hr") };
  if (QUOTE.test(first.line)) return readQuote(text, start, depth);
  if (ITEM.test(first.line)) return readList(text, start, depth);
  if (first.line.includes("|") && isTable(text, first)) return readTable(text, start);
  return readParagraph(text, start);
}

/** The nodes of a whole text. */
export function blocks(text, depth = 0) {
  const nodes = [];
  for (let at = 0; at < text.length;) {
    const { end, build } = readBlock(text, at, depth);
    nodes.push(build());
    at = end;
  }
  return nodes.filter(Boolean);
}

function lineAt(text, start) {
  const end = text.indexOf("\n", start);
  const next = end < 0 ? text.length : end + 1;
  return { line: text.slice(start, end < 0 ? text.length : end).replace(/\r$/, ""), next };
}

/** The lines from a position on for which `takes` is true, and where they end. */
function takeLines(text, start, takes) {
  const lines = [];
  let at = start;
  while (at < text.length) {
    const { line, next } = lineAt(text, at);
    if (!takes(line, lines.length, next)) break;
    lines.push(line);
    at = next;
  }
  return { lines, end: at };
}

// --- blocks ----------------------------------------------------------------------------------------------------------

function headingNode([, marks, content]) {
  // The page has its own h1 and h2: an agent's headings come below them.
  return h(`h${Math.min(6, marks.length + 2)}`, { class: `level-${marks.length}`, dir: "auto" }, inline(content));
}

function readFence(text, first, [, fence, language]) {
  const closing = new RegExp(`^ {0,3}${fence[0]}{${fence.length},}[ \\t]*$`);
  const { lines, end } = takeLines(text, first.next, (line) => !closing.test(line));
  const after = end < text.length ? lineAt(text, end).next : end;
  return { end: after, build: () => codeNode(lines.join("\n"), language) };
}

function codeNode(code, language) {
  return h(
    "figure",
    { class: "code" },
    language && h("figcaption", {}, language),
    h("pre", { tabindex: "0", dir: "ltr", class: "said" }, h("code", {}, visible(code))),
  );
}

function readQuote(text, start, depth) {
  const { lines, end } = takeLines(text, start, (line) => QUOTE.test(line));
  const inner = lines.map((line) => line.replace(QUOTE, "")).join("\n");
  return { end, build: () => h("blockquote", {}, depth < MAX_DEPTH ? blocks(inner, depth + 1) : inline(inner)) };
}

function readParagraph(text, start) {
  const { lines, end } = takeLines(text, start, (line, index) => index === 0 || !beginsBlock(line));
  return { end, build: () => h("p", { dir: "auto" }, inline(lines.join("\n"))) };
}

function beginsBlock(line) {
  if (line.length > MAX_LINE) return false;
  return (
    BLANK.test(line) || FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || ITEM.test(line)
  );
}

/** Items of one kind; blank lines between them and lines indented below them belong to it. */
function readList(text, start, depth) {
  const ordered = /\d/.test(ITEM.exec(lineAt(text, start).line)[2]);
  const { lines, end } = takeLines(text, start, (line, index, next) => {
    if (index === 0) return true;
    const item = ITEM.exec(line);
    if (item) return item[1].length > 1 || /\d/.test(item[2]) === ordered;
    if (BLANK.test(line)) return goesOn(text, next, ordered);
    return /^\s/.test(line) || !beginsBlock(line);
  });
  return { end, build: () => listNode(lines, ordered, depth) };
}

/** Whether a list continues after a blank line; at the end of the text it may. */
function goesOn(text, at, ordered) {
  if (at >= text.length) return true;
  const { line } = lineAt(text, at);
  const item = ITEM.exec(line);
  return item ? item[1].length > 1 || /\d/.test(item[2]) === ordered : /^ {2,}\S/.test(line);
}

function listNode(lines, ordered, depth) {
  const items = [];
  for (const line of lines) {
    const item = ITEM.exec(line);
    if (item && item[1].length < 2) items.push([item[3]]);
    else items.at(-1)?.push(line.replace(/^ {1,4}/, ""));
  }
  const first = ordered ? Number.parseInt(ITEM.exec(lines[0])[2], 10) : 1;
  return h(
    ordered ? "ol" : "ul",
    { start: ordered && first !== 1 ? first : null },
    items.map((content) => h("li", { dir: "auto" }, itemNodes(content, depth))),
  );
}

function itemNodes(lines, depth) {
  const nested = lines.findIndex((line, index) => index > 0 && (ITEM.test(line) || FENCE.test(line)));
  if (nested < 0 || depth >= MAX_DEPTH) return inline(lines.join("\n").trim());
  const rest = lines.slice(nested).join("\n");
  return [inline(lines.slice(0, nested).join("\n").trim()), ...blocks(rest, depth + 1)];
}

function isTable(text, first) {
  const { line } = lineAt(text, first.next);
  return line.length <= MAX_LINE && DIVIDER.test(line);
}

function readTable(text, start) {
  const { lines, end } = takeLines(
    text,
    start,
    (line, index) => index < 2 || (line.includes("|") && !BLANK.test(line)),
  );
  return { end, build: () => tableNode(lines) };
}

function tableNode([head, divider, ...rows]) {
  const aligns = cells(divider).map((cell) => (cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "end") : null));
  const row = (line, tag) =>
    h(
      "tr",
      {},
      cells(line).map((cell, index) =>
        h(
          tag,
          { dir: "auto", class: aligns[index] && `align-${aligns[index]}`, scope: tag === "th" ? "col" : null },
          inline(cell),
        ),
      ),
    );
  return h(
    "div",
    { class: "table-frame", tabindex: "0", role: "group", "aria-label": "Table" },
    h(
      "table",
      {},
      h("thead", {}, row(head, "th")),
      h(
        "tbody",
        {},
        rows.map((line) => row(line, "td")),
      ),
    ),
  );
}

function cells(line) {
  const inner = line
    .trim()
    .replace(/^\|/, "")
    .replace(/(?<!\\)\|$/, "");
  return inner.split(/(?<!\\)\|/, MAX_CELLS).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

// --- lines -----------------------------------------------------------------------------------------------------------

// Every repetition is bounded, so that no text takes longer than its length allows.
const SPAN =
  /(`{1,3})(?!`)([^\n]{1,300}?)(?<!`)\1(?!`)|\*\*(?=\S)([^\n]{1,300}?)(?<=\S)\*\*|(?<![\w*])\*(?=[^\s*])([^*\n]{1,300}?)(?<=\S)\*(?!\*)|(?<!\w)_(?=[^\s_])([^_\n]{1,300}?)(?<=\S)_(?!\w)|~~(?=\S)([^~\n]{1,300}?)~~|!?\[([^\]\n]{0,300})\]\(([^()\s]{1,1000})(?:[ \t]+"[^"\n]{0,200}")?\)|<(https?:\/\/[^\s<>]{1,1000})>|\bhttps?:\/\/[^\s<>"'`|]{1,1000}/g;

/** A text that looks like an address: with a scheme, or a name with dots that is not a file name. */
const ADDRESS =
  /https?:\/\/([^\s/?#]{1,255})|(?<![\p{L}\p{N}.-])(?:www\.)?((?:[\p{L}\p{N}-]{1,63}\.){1,6}\p{L}{2,24})(?![\p{L}\p{N}])/iu;
const FILE = /\.(?:md|py|rs|sh|js|ts|jsx|tsx|json|ya?ml|toml|txt|html?|css|go|java|rb|csv|pdf|ipynb)$/i;
const MARKS = /[\p{Cf}\p{Mn}*_~`\\]/gu;

/** A line's nodes and strings. */
export function inline(text, depth = 0) {
  if (text.length > MAX_INLINE || depth > MAX_DEPTH) return [visible(text)];
  const nodes = [];
  let at = 0;
  for (const match of text.matchAll(SPAN)) {
    nodes.push(...plain(text.slice(at, match.index)), spanNode(match, depth));
    at = match.index + match[0].length;
  }
  nodes.push(...plain(text.slice(at)));
  return nodes;
}

function spanNode(match, depth) {
  const [whole, ticks, code, strong, star, underscore, struck, label, target, angled] = match;
  if (ticks)
    return h("code", { class: "said", dir: "ltr" }, visible(code.length > 2 ? code.replace(/^ (.*) $/, "$1") : code));
  if (strong) return h("strong", {}, inline(strong, depth + 1));
  if (star || underscore) return h("em", {}, inline(star ?? underscore, depth + 1));
  if (struck) return h("s", {}, inline(struck, depth + 1));
  if (depth >= MAX_DEPTH) return visible(whole); // no link within a link's label
  if (target) return link(target, label || target, whole, depth);
  const bare = angled ?? whole.replace(/[.,;:!?)\]]+$/, "");
  return h("span", {}, link(bare, bare, bare, MAX_DEPTH), angled ? "" : visible(whole.slice(bare.length)));
}

/** Removes backslashes before punctuation; two blanks or a backslash at the end of a line make a line break. */
function plain(text) {
  if (!text) return [];
  const parts = text.split(/(?: {2,}|\\)\n/);
  return parts.flatMap((part, index) => {
    const string = visible(part.replace(/\\([!-/:-@[-`{-~])/g, "$1"));
    return index ? [h("br"), string] : [string];
  });
}

/** A link to http or https; any other one is shown as its source. */
function link(target, label, whole, depth) {
  const url = safeUrl(target);
  if (!url) return visible(whole);
  return h(
    "a",
    { href: url.href, target: "_blank", rel: "noopener noreferrer nofollow", title: visible(url.href), class: "said" },
    depth < MAX_DEPTH ? inline(label, MAX_DEPTH) : visible(label),
    namesAnother(label, url) ? ` (${visible(url.host)})` : null,
  );
}

/** Whether a label looks like an address other than the one of its link. */
function namesAnother(label, url) {
  const text = label.normalize("NFKC").replaceAll("\u3002", ".").replace(MARKS, "");
  const [, authority, name] = ADDRESS.exec(text) ?? [];
  if (name && FILE.test(name)) return false;
  const host = (authority ?? name)?.toLowerCase();
  return host !== undefined && host.replace(/^www\./, "") !== url.host.replace(/^www\./, "");
}

/** The URL of an absolute http or https address; otherwise null. */
export function safeUrl(text) {
  try {
    const url = new URL(String(text));
    return url.protocol === "http:" || url.protocol === "https:" ? url : null;
  } catch {
    return null;
  }
}
