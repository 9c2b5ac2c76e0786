/**
 * Any value in a form that JSON can hold, and cut to a size. Pure.
 *
 * `storable` never throws, and takes time in proportion to what it keeps. What is left out is marked in its place by
 * `{"clipped": true, …}`: the way back into a value that holds itself, what is nested too deep, and what is too much.
 */
import { describe } from "./errors.js";

const MAX_VALUES = 20_000;
const MAX_DEPTH = 32;
const MAX_KEY = 500;
/** What a mark takes at most in a list or an object. */
const MARK_BYTES = 48;
/** Less than this of a value says nothing: fewer values are kept instead. */
const WORTH_BYTES = 16;
const LONE = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;
const CUT = /… \[clipped: (\d{1,15}) characters\]$/;
const NOT_ASCII = /[^\x00-\x7f]/g;

/** A text as UTF-8 can hold it: half of a surrogate pair is U+FFFD. @param {string} value */
export function wellFormed(value) {
  return value.replace(LONE, "\ufffd");
}

/** The nearest thing that JSON can hold. @param {unknown} value @returns {any} */
export function storable(value) {
  return new Walk().plain(value, 0);
}

/** The size of a storable value as JSON of ASCII characters, as logs have it. @param {unknown} value */
export function asciiBytes(value) {
  return textBytes(JSON.stringify(value) ?? "null");
}

/** The size of a text of JSON with escapes in place of all other than ASCII. @param {string} json */
export function textBytes(json) {
  const others = json.match(NOT_ASCII);
  return json.length + (others === null ? 0 : others.length * 5);
}

/** One conversion: what may still be taken, and the containers on the path to where it is. */
class Walk {
  #left = MAX_VALUES;
  #path = new Set();

  /** @param {unknown} value @param {number} depth @returns {any} */
  plain(value, depth) {
    this.#left -= 1;
    try {
      return this.#plain(value, depth);
    } catch {
      return `<${typeof value}>`; // foreign getters, proxies and `toJSON` may throw anything
    }
  }

  /** @param {any} value @param {number} depth @returns {any} */
  #plain(value, depth) {
    switch (typeof value) {
      case "string":
        return wellFormed(value);
      case "number":
        return Number.isFinite(value) ? value : null;
      case "boolean":
        return value;
      case "undefined":
        return null;
      case "bigint":
        return value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER ? Number(value) : String(value);
      case "function":
      case "symbol":
        return `<${typeof value}${value.name ? " " + value.name : ""}>`;
    }
    if (value === null) return null;
    const known = scalar(value);
    return known === undefined ? this.#entered(value, depth) : known;
  }

  /** What is made of other values, unless it is on the path already. @param {any} value @param {number} depth */
  #entered(value, depth) {
    if (this.#path.has(value)) return mark("cycle");
    if (depth >= MAX_DEPTH) return mark("too deep");
    this.#path.add(value);
    try {
      if (typeof value.toJSON === "function") return this.plain(value.toJSON(), depth + 1);
      if (Array.isArray(value)) return this.#items(value, value.length, depth);
      if (value instanceof Set) return this.#items(value, value.size, depth);
      if (value instanceof Map) return this.#fields(value.entries(), value.size, depth);
      const keys = Object.keys(value);
      return this.#fields(entriesOf(value, keys), keys.length, depth);
    } finally {
      this.#path.delete(value);
    }
  }

  /** @param {Iterable<unknown>} values @param {number} count @param {number} depth */
  #items(values, count, depth) {
    const found = [];
    for (const item of values) {
      if (this.#left <= 0) return [...found, { clipped: true, items: count }];
      found.push(this.plain(item, depth + 1));
    }
    return found;
  }

  /** @param {Iterable<[unknown, unknown]>} entries @param {number} count @param {number} depth */
  #fields(entries, count, depth) {
    /** @type {Record<string, any>} */
    const found = Object.create(null); // `__proto__` is a key like others
    for (const [key, item] of entries) {
      if (this.#left <= 0) {
        found["…"] = { clipped: true, keys: count };
        break;
      }
      if (item !== undefined && typeof item !== "function") found[keyOf(key)] = this.plain(item, depth + 1);
    }
    return found;
  }
}

/** The form of what is not made of other values; undefined of what is. @param {any} value */
function scalar(value) {
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : value.toISOString();
  if (value instanceof Error) return wellFormed(describe(value));
  if (value instanceof String || value instanceof Number || value instanceof Boolean) return value.valueOf();
  if (value instanceof URL || value instanceof RegExp) return String(value);
  if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer) return `<${value.byteLength} bytes>`;
  if (typeof Blob !== "undefined" && value instanceof Blob) return `<${value.size} bytes>`;
  if (typeof value.then === "function") return "<Promise>";
  return undefined;
}

/** @param {Record<string, unknown>} value @param {string[]} keys @returns {Generator<[string, unknown]>} */
function* entriesOf(value, keys) {
  for (const key of keys) {
    let item;
    try {
      item = value[key];
    } catch {
      item = "<getter>";
    }
    yield [key, item];
  }
}

/** @param {unknown} key */
function keyOf(key) {
  const name = wellFormed(typeof key === "object" && key !== null ? JSON.stringify(storable(key)) : String(key));
  return name.length <= MAX_KEY ? name : cutMark(name.slice(0, MAX_KEY), name.length);
}

/** @param {string} reason */
function mark(reason) {
  return { clipped: true, reason };
}

// --- cut to a size ---

/** @typedef {{value: any, size: number, key: number, parts: Sized[]}} Sized */

/** A storable value that fits: the same, or one in which long texts, lists and objects end with a mark that says how
 * much there was. What is small is kept, what is large gives up the rest. A text stays a text.
 * @param {any} value @param {number} maxBytes */
export function clip(value, maxBytes) {
  return asciiBytes(value) <= maxBytes ? value : cut(sized(value), maxBytes);
}

/** @param {string} kept @param {number} of */
function cutMark(kept, of) {
  return `${kept}… [clipped: ${of} characters]`;
}

/** @param {any} value @param {string} [name] @returns {Sized} */
function sized(value, name) {
  const key = name === undefined ? 0 : asciiBytes(name) + 1;
  if (typeof value !== "object" || value === null) return { value, size: asciiBytes(value), key, parts: [] };
  const parts = Array.isArray(value)
    ? value.map((item) => sized(item))
    : Object.entries(value).map(([each, item]) => sized(item, each));
  return { value, size: 2 + parts.reduce((sum, part) => sum + part.key + part.size + 1, 0), key, parts };
}

/** @param {Sized} whole @param {number} room @returns {any} */
function cut(whole, room) {
  const { value, size, parts } = whole;
  if (size <= room) return value;
  if (typeof value === "string") return cutText(value, room);
  if (typeof value !== "object" || value === null || room < MARK_BYTES) return { clipped: true };
  const kept = fitting(parts, room - 2);
  const isWhole = kept.length === parts.length;
  const shares = sharesOf(kept, room - 2 - (isWhole ? 0 : MARK_BYTES));
  const items = kept.map((part, at) => cut(part, shares[at]));
  if (Array.isArray(value)) return isWhole ? items : [...items, { clipped: true, items: value.length }];
  const names = Object.keys(value);
  const found = Object.create(null);
  items.forEach((item, at) => (found[names[at]] = item));
  if (!isWhole) found["…"] = { clipped: true, keys: names.length };
  return found;
}

/** As much of a text as fits with its mark. @param {string} value @param {number} room */
function cutText(value, room) {
  const before = CUT.exec(value); // cut once more: the mark still says how long it was
  const length = before === null ? value.length : Number(before[1]);
  const left = room - asciiBytes(cutMark("", length));
  if (left < 0) return "";
  let kept = value.slice(0, Math.min(left, before?.index ?? value.length));
  for (let over; (over = asciiBytes(kept) - 2 - left) > 0;) kept = kept.slice(0, -Math.max(1, Math.floor(over / 6)));
  return cutMark(wellFormed(kept), length);
}

/** As many of the first as something can be told of. @param {Sized[]} parts @param {number} room */
function fitting(parts, room) {
  const least = parts.map((part) => part.key + Math.min(part.size, WORTH_BYTES) + 1);
  if (least.reduce((sum, each) => sum + each, 0) <= room) return parts;
  let left = room - MARK_BYTES;
  let count = 0;
  while (count < parts.length && (left -= least[count]) >= 0) count += 1;
  return parts.slice(0, count);
}

/** What each value may take: the small ones all of theirs, the others alike. @param {Sized[]} parts
 * @param {number} room */
function sharesOf(parts, room) {
  const shares = parts.map(() => 0);
  let left = room - parts.reduce((sum, part) => sum + part.key + 1, 0);
  const ascending = parts.map((_, at) => at).sort((one, other) => parts[one].size - parts[other].size);
  ascending.forEach((at, done) => {
    shares[at] = Math.min(parts[at].size, Math.floor(left / (parts.length - done)));
    left -= shares[at];
  });
  return shares;
}
