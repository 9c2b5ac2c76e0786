/** The raw events: the last few thousand, a line each that expands to its JSON. */

import { h, setAttribute } from "./dom.js";
import { clock } from "./format.js";
import { icon } from "./icons.js";
import { json } from "./json-view.js";
import { visible } from "./text.js";

const MAX_EVENTS = 12_000;
const MAX_CHARACTERS = 32_000_000;
const MAX_PREVIEW = 220;

/** The last events, bounded in number and size. */
export class EventRing {
  constructor() {
    this.items = [];
    this.count = 0;
    this._characters = 0;
  }

  /** Add the next event; `size`: characters of its JSON. */
  add(event, size = 0) {
    this.items.push({ key: event.id, event, size });
    this.count += 1;
    this._characters += size;
    while (this.items.length > MAX_EVENTS || this._characters > MAX_CHARACTERS)
      this._characters -= this.items.shift().size;
  }
}

/** The text of an event for the filter. */
export function wordsOf(item) {
  return dataOf(item).slice(0, 20_000).toLowerCase();
}

const dataOf = ({ event }) => JSON.stringify(event.data) ?? "";

export function rawRow(item) {
  const { event } = item;
  const detail = h("pre", { class: "raw-json said", tabindex: "0", dir: "ltr", hidden: true });
  const button = h(
    "button",
    { type: "button", class: "raw-line", "aria-expanded": "false" },
    h("span", { class: "raw-seq numbers" }, event.id.slice(event.id.indexOf("-") + 1)),
    h("span", { class: "raw-time numbers" }, clock(event.ts)),
    h("span", { class: `raw-type family-${family(event.type)}` }, visible(event.type)),
    h("bdi", { class: "raw-text said" }, visible(dataOf(item).slice(0, MAX_PREVIEW))),
    icon("chevron", "call-chevron"),
  );
  button.addEventListener("click", () => {
    detail.hidden = !detail.hidden;
    setAttribute(button, "aria-expanded", String(!detail.hidden));
    detail.textContent = detail.hidden ? "" : visible(json(event, 200_000));
  });
  return { node: h("li", { class: "raw" }, button, detail) };
}

const family = (type) => type.slice(0, type.indexOf(":") < 0 ? undefined : type.indexOf(":")).replace(/[^a-z]/g, "");
