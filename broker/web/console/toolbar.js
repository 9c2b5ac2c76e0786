/** The bar above the events: which view, the filter, and whether the view is frozen. */

import { h, setAttribute, setText } from "./dom.js";
import { whole } from "./format.js";
import { icon } from "./icons.js";

export const VIEWS = [
  ["story", "Story"],
  ["timeline", "Timeline"],
  ["raw", "Raw events"],
];

export class Toolbar {
  /** `filterBox`: the node of the filter; `onView(view)`, `onFreeze()`. */
  constructor(filterBox, { onView, onFreeze }) {
    this._count = h("span", { class: "count numbers" });
    this._tabs = new Map(VIEWS.map(([id, label]) => [id, tab(label, () => onView(id))]));
    this._tabs.get("raw").append(this._count);
    this._freezeText = h("span", {}, "Freeze view");
    this._freeze = h(
      "button",
      {
        type: "button",
        class: "button quiet small freeze",
        "aria-pressed": "false",
        title: "Hold the view still; the agent goes on (p)",
        onclick: onFreeze,
      },
      icon("snow"),
      this._freezeText,
    );
    this.node = h(
      "div",
      { class: "toolbar" },
      h("div", { class: "tabs", role: "group", "aria-label": "View" }, [...this._tabs.values()]),
      h("div", { class: "toolbar-tools" }, this._freeze, filterBox),
    );
  }

  showView(view) {
    for (const [id, node] of this._tabs) setAttribute(node, "aria-pressed", String(id === view));
  }

  /** `isOffered`: there is something to freeze, or it is frozen. */
  showFrozen(isFrozen, isOffered) {
    setText(this._freezeText, isFrozen ? "Unfreeze" : "Freeze view");
    setAttribute(this._freeze, "aria-pressed", String(isFrozen));
    this._freeze.hidden = !isOffered;
  }

  showCount(events) {
    setText(this._count, events ? whole(events) : "");
  }
}

function tab(label, act) {
  return h("button", { type: "button", class: "tab", "aria-pressed": "false", onclick: act }, label);
}
