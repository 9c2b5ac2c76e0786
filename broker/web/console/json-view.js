/** A view of any JSON value: facts, small tables, lists; the rest as an indented tree. */

import { h } from "./dom.js";
import { label, whole } from "./format.js";
import { isolated, line, visible } from "./text.js";

const MAX_ROWS = 50;
const MAX_COLUMNS = 8;
const MAX_DEPTH = 5;
const MAX_STRING = 600;

/** A value's view. */
export function valueView(value, depth = 0) {
  if (value === null || value === undefined || typeof value !== "object") return scalar(value);
  if (depth >= MAX_DEPTH) return scalar(JSON.stringify(value));
  if (!Array.isArray(value)) return facts(value, depth);
  return isTable(value) ? table(value) : list(value, depth);
}

function scalar(value) {
  if (typeof value === "number") return h("span", { class: "number" }, number(value));
  if (typeof value === "boolean" || value === null || value === undefined) {
    return h("span", { class: "literal" }, value === true ? "yes" : value === false ? "no" : "none");
  }
  return clamped(value);
}

function number(value) {
  return Number.isInteger(value) && Math.abs(value) < 1e15 ? whole(value) : String(value);
}

/** A string; a long one is cut, with a button for the rest. */
function clamped(text) {
  if (text.length <= MAX_STRING) return h("span", { class: "said string", dir: "auto" }, visible(text));
  const node = h("span", { class: "said string", dir: "auto" }, visible(text.slice(0, MAX_STRING)), "… ");
  const more = h("button", { type: "button", class: "link-button" }, `Show all ${whole(text.length)} characters`);
  more.addEventListener("click", () => node.replaceChildren(visible(text)));
  node.append(more);
  return node;
}

/** A key that is a word becomes a label; others, such as paths, stay as they are. */
function keyLabel(key) {
  return /^[A-Za-z][A-Za-z0-9_]{0,40}$/.test(key) ? label(key) : visible(key.slice(0, 200));
}

/** Short facts first, side by side; then those that take a line of their own. */
function facts(value, depth) {
  const keys = Object.keys(value);
  if (!keys.length) return h("span", { class: "literal" }, "nothing");
  const shown = keys.slice(0, MAX_ROWS);
  const ordered = [...shown.filter((key) => !isWide(value[key])), ...shown.filter((key) => isWide(value[key]))];
  return h(
    "dl",
    { class: "facts" },
    ordered.map((key) => fact(key, value[key], depth)),
    rest(keys.length, shown.length),
  );
}

function fact(key, value, depth) {
  return h(
    "div",
    { class: isWide(value) ? "wide" : null },
    h("dt", {}, h("bdi", {}, keyLabel(key))),
    h("dd", {}, valueView(value, depth + 1)),
  );
}

const isWide = (value) =>
  (typeof value === "object" && value !== null) || (typeof value === "string" && value.length > 60);
const isScalar = (value) => value === null || typeof value !== "object";

function rest(count, shown) {
  return count > shown && h("p", { class: "muted wide" }, `and ${whole(count - shown)} more, in the raw event`);
}

function list(value, depth) {
  if (!value.length) return h("span", { class: "literal" }, "none");
  const shown = value.slice(0, MAX_ROWS);
  const isShort = shown.every((item) => isScalar(item) && String(item).length <= 40);
  return h(
    "ul",
    { class: isShort ? "values tags" : "values" },
    shown.map((item) => h("li", {}, valueView(item, depth + 1))),
    rest(value.length, shown.length),
  );
}

/** Rows of the same few scalar columns. */
function isTable(value) {
  const first = value[0];
  if (value.length < 2 || isScalar(first) || Array.isArray(first)) return false;
  const columns = Object.keys(first);
  if (!columns.length || columns.length > MAX_COLUMNS) return false;
  return value.every(
    (row) =>
      !isScalar(row) &&
      Object.keys(row).length === columns.length &&
      columns.every((key) => key in row && isScalar(row[key])),
  );
}

function table(value) {
  const columns = Object.keys(value[0]);
  const shown = value.slice(0, MAX_ROWS);
  const align = (key) => (shown.every((row) => typeof row[key] === "number") ? "align-end" : null);
  return h(
    "div",
    { class: "table-frame", tabindex: "0", role: "group", "aria-label": "Table" },
    h(
      "table",
      {},
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          columns.map((key) => h("th", { scope: "col", class: align(key) }, keyLabel(key))),
        ),
      ),
      h(
        "tbody",
        {},
        shown.map((row) =>
          h(
            "tr",
            {},
            columns.map((key) => h("td", { class: align(key) }, valueView(row[key], 1))),
          ),
        ),
      ),
    ),
    rest(value.length, shown.length),
  );
}

const MAX_PARTS = 6;

/** A value in a line of text: `files 38, languages Python, Lua`. */
export function summary(value, most = 160) {
  if (value === null || value === undefined) return "";
  if (typeof value === "string") return line(value, most);
  if (typeof value !== "object") return typeof value === "number" ? number(value) : String(value);
  if (Array.isArray(value))
    return value.length ? `${whole(value.length)} ${value.length === 1 ? "item" : "items"}` : "nothing";
  return line(
    parts(value)
      .map(([key, text]) => `${key} ${text}`.trim())
      .join(", "),
    most,
  );
}

/** The same as nodes, with keys less prominent than values. The spaces separate them for screen readers. */
export function summaryNodes(value) {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return [isolated(summary(value))];
  return parts(value).flatMap(([key, text]) => [
    h("span", { class: "pair-of" }, h("bdi", { class: "key" }, key), " ", text && isolated(text)),
    " ",
  ]);
}

/** The members of an object that fit into a line, as keys and texts. */
function parts(value) {
  const found = Object.entries(value).map(([key, item]) => [line(label(key).toLowerCase(), 40), partText(item)]);
  return found.filter(([, text]) => text !== null).slice(0, MAX_PARTS);
}

function partText(item) {
  if (item === null || item === false || item === "") return null;
  if (item === true) return "";
  if (Array.isArray(item)) return item.length ? listText(item) : null;
  if (typeof item === "object") return null;
  return typeof item === "number" ? number(item) : line(item, 80);
}

function listText(items) {
  const isShort = items.length <= 3 && items.every((each) => isScalar(each) && String(each).length < 30);
  return isShort ? line(items.join(", "), 100) : whole(items.length);
}

/** Pretty JSON for raw views; `most` characters. */
export function json(value, most = Infinity) {
  const text = JSON.stringify(value, null, 2) ?? "";
  return text.length > most ? `${text.slice(0, most)}\n…` : text;
}
