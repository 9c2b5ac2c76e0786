/** The filter of rows: by type and by words. */

import { h, setAttribute } from "./dom.js";
import { icon } from "./icons.js";

/** Groups of types: kinds of items in the story (or `test`), event types in the raw view. */
const FAMILIES = [
  { id: "failed", label: "Failed", test: hasFailed, types: /^(tool:error|execution:error|sandbox:violation)$/ },
  { id: "thinking", label: "Thinking", kinds: ["thought"], types: /^thinking/ },
  { id: "tools", label: "Tools", kinds: ["tool"], types: /^tool:/ },
  { id: "text", label: "Text", kinds: ["text"], types: /^message:/ },
  { id: "specialists", label: "Specialists", kinds: ["team", "child"], types: /^(specialist:|synthesis|child:)/ },
  { id: "results", label: "Results", kinds: ["result", "artifact"], types: /^(partial:|artifact)/ },
  { id: "inputs", label: "Inputs", kinds: ["input", "said"], types: /^(input:|user:)/ },
  {
    id: "status",
    label: "Status",
    kinds: ["mark", "plan", "phase", "note", "custom", "attempt", "end"],
    types: /^(?!thinking|tool:|message:|specialist:|synthesis|child:|partial:|artifact|input:|user:)/,
  },
];

/** A call, a child, a step of a specialist or the execution that failed, or a note of something bad. */
function hasFailed(item) {
  const { status, state, tone, members } = item;
  if (members) return [...members.values()].some(({ steps }) => steps.some(hasFailed));
  return status === "error" || status === "failed" || state === "failed" || tone === "bad";
}

export class Filter {
  /** `onChange()` is called when the filter has changed. */
  constructor(onChange) {
    this._onChange = onChange;
    this._families = new Set();
    this._words = "";
    this._search = h("input", {
      type: "search",
      class: "search",
      placeholder: "Filter",
      "aria-label": "Filter by words",
      autocomplete: "off",
      spellcheck: "false",
      oninput: () => this._typed(),
    });
    this._chips = FAMILIES.map((family) => this._chip(family));
    this._row = h(
      "div",
      { class: "chips", role: "group", "aria-label": "Show only", id: "families", hidden: true },
      this._chips,
    );
    this._toggle = h(
      "button",
      {
        type: "button",
        class: "button quiet small",
        "aria-expanded": "false",
        "aria-controls": "families",
        onclick: () => this._open(),
      },
      "Types",
      icon("chevron", "turned"),
    );
    this.box = h(
      "div",
      { class: "filter" },
      h("label", { class: "search-box" }, icon("search"), this._search),
      this._toggle,
    );
    this.row = this._row;
  }

  get isOn() {
    return this._families.size > 0 || this._words !== "";
  }

  focus() {
    this._search.focus();
    this._search.select();
  }

  clear() {
    this._search.value = "";
    this._typed();
  }

  /** Whether a story item passes; `wordsOf(item)` is called only with a filter by words. */
  passesItem(item, wordsOf) {
    if (this._families.size && !this._some((family) => family.test?.(item) ?? family.kinds.includes(item.kind)))
      return false;
    return !this._words || wordsOf(item).includes(this._words);
  }

  /** Whether a raw event passes. */
  passesEvent(type, wordsOf) {
    if (this._families.size && !this._some((family) => family.types.test(type))) return false;
    return !this._words || type.includes(this._words) || wordsOf().includes(this._words);
  }

  _some(test) {
    return FAMILIES.some((family) => this._families.has(family.id) && test(family));
  }

  _typed() {
    this._words = this._search.value.trim().toLowerCase();
    this._onChange();
  }

  _open() {
    this._row.hidden = !this._row.hidden;
    setAttribute(this._toggle, "aria-expanded", String(!this._row.hidden));
  }

  _chip(family) {
    const chip = h("button", { type: "button", class: "chip", "aria-pressed": "false" }, family.label);
    chip.addEventListener("click", () => {
      const isOn = !this._families.delete(family.id);
      if (isOn) this._families.add(family.id);
      setAttribute(chip, "aria-pressed", String(isOn));
      this._toggle.classList.toggle("is-on", this._families.size > 0);
      this._onChange();
    });
    return chip;
  }
}
