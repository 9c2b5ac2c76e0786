/** The fields of a budget in the form that starts an execution. */

import { h } from "./dom.js";
import { BUDGET_LABELS } from "./format.js";
import { FieldError } from "./schema-form.js";

const UNITS = { totalTokens: "", costUsd: "US $", toolCalls: "", seconds: "seconds" };
const WHOLE = new Set(["totalTokens", "toolCalls"]);

export class BudgetFields {
  constructor() {
    this._inputs = new Map(Object.keys(BUDGET_LABELS).map((name) => [name, input(name)]));
    this.node = h(
      "fieldset",
      { class: "field" },
      h("legend", { class: "field-label" }, "Budget", h("span", { class: "optional" }, "it ends when one is spent")),
      h(
        "div",
        { class: "fields quad" },
        [...this._inputs].map(([name, node]) =>
          h(
            "div",
            { class: "field" },
            h(
              "label",
              { class: "field-label", for: node.id },
              BUDGET_LABELS[name],
              UNITS[name] && h("span", { class: "optional" }, UNITS[name]),
            ),
            node,
          ),
        ),
      ),
    );
  }

  /** The limits that were entered, or undefined. Throws `FieldError`. */
  read() {
    const limits = {};
    for (const [name, node] of this._inputs) {
      if (!node.validity.valid) throw new FieldError(node.validationMessage, node);
      if (node.value !== "") limits[name] = Number(node.value);
    }
    return Object.keys(limits).length ? limits : undefined;
  }

  fill(budget) {
    for (const [name, node] of this._inputs) node.value = budget?.[name] ?? "";
  }
}

function input(name) {
  const isWhole = WHOLE.has(name);
  const limits = isWhole ? { min: 1, step: 1 } : { min: 0.000001, step: "any" };
  return h("input", { type: "number", id: `budget-${name}`, placeholder: "none", ...limits });
}
