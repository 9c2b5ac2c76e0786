/**
 * Form fields from a JSON Schema, for the input of an agent and for forms. A value without a field of its own is entered
 * as JSON. The schema comes from an agent: its patterns are not executed, and its size is bounded.
 */

import { h } from "./dom.js";
import { label } from "./format.js";
import { line, visible } from "./text.js";

const MAX_FIELDS = 60;
const MAX_CHOICES = 200;
const MAX_DEPTH = 3;

let numbers = 0;
const nextId = () => `field-${(numbers += 1)}`;

/** An invalid value; `field`: its node. */
export class FieldError extends Error {
  constructor(message, field) {
    super(message);
    this.field = field;
  }
}

/** `{node, read(), fill(values)}`: `read` returns the object without empty fields, or throws `FieldError`; `fill` returns
 * those values for which there is no field. */
export function objectFields(schema, root = schema, depth = 0) {
  const required = new Set(Array.isArray(schema?.required) ? schema.required : []);
  const names = Object.keys(schema?.properties ?? {}).slice(0, MAX_FIELDS);
  const fields = names.map((name) => [
    name,
    field(name, resolve(schema.properties[name], root), required.has(name), root, depth),
  ]);
  return {
    node: h(
      "div",
      { class: "fields" },
      fields.map(([, made]) => made.node),
    ),
    read() {
      const values = fields.map(([name, made]) => [name, made.read()]).filter(([, value]) => value !== undefined);
      return Object.fromEntries(values);
    },
    fill(values) {
      const left = { ...values };
      for (const [name, made] of fields) if (name in left && made.fill(left[name])) delete left[name];
      return left;
    },
  };
}

/** Set a control to a value, if that gives the value back; whether it did. */
function filled(made, value) {
  made.set(value);
  try {
    if (isSame(made.read(), value)) return true;
  } catch (error) {
    if (!(error instanceof FieldError)) throw error;
  }
  made.set(undefined);
  return false;
}

const isSame = (one, other) => JSON.stringify(one) === JSON.stringify(other);

/** Resolve a reference within the schema, and an optional type (anyOf with null). */
function resolve(schema, root, hops = 0) {
  if (schema === null || typeof schema !== "object") return {};
  if (typeof schema.$ref === "string" && hops < 8) return resolve(lookUp(schema.$ref, root), root, hops + 1);
  const choices = schema.anyOf ?? schema.oneOf;
  if (!Array.isArray(choices)) return schema;
  const others = choices.filter((choice) => choice?.type !== "null");
  return others.length === 1 ? { ...resolve(others[0], root, hops + 1), ...rest(schema), isNullable: true } : schema;
}

function rest({ anyOf: _any, oneOf: _one, ...others }) {
  return others;
}

function lookUp(reference, root) {
  return reference
    .split("/")
    .slice(1)
    .reduce((place, key) => (place && typeof place === "object" ? place[key] : undefined), root);
}

function field(name, schema, isRequired, root, depth) {
  if (schema.type === "object" && schema.properties && depth < MAX_DEPTH) return group(name, schema, root, depth);
  const made = control(schema, isRequired, root);
  const fill = (value) => filled(made, value);
  if (made.isBare) return { read: made.read, fill, node: bare(name, schema, made) };
  const id = nextId();
  const hint = description(schema);
  made.input.id = id;
  if (hint) made.input.setAttribute("aria-describedby", `${id}-hint`);
  if (isRequired) made.input.setAttribute("aria-required", "true");
  const title = h(
    "label",
    { class: "field-label", for: id },
    titleOf(name, schema),
    !isRequired && h("span", { class: "optional" }, "optional"),
  );
  return {
    fill,
    read: () => checked(made, name, isRequired),
    node: h(
      "div",
      { class: "field" },
      title,
      made.input,
      hint && h("p", { class: "field-hint", id: `${id}-hint` }, hint),
    ),
  };
}

function checked(made, name, isRequired) {
  const value = made.read();
  if (isRequired && value === undefined) throw new FieldError(`${label(name)} is required.`, made.input);
  return value;
}

const titleOf = (name, schema) => visible(line(typeof schema.title === "string" ? schema.title : label(name), 120));
const description = (schema) => (typeof schema.description === "string" ? visible(line(schema.description, 600)) : "");

function group(name, schema, root, depth) {
  const inner = objectFields(schema, root, depth + 1);
  const node = h("fieldset", { class: "field-group" }, h("legend", {}, titleOf(name, schema)), inner.node);
  return {
    node,
    read() {
      const value = inner.read();
      return Object.keys(value).length ? value : undefined;
    },
    /** All of an object or nothing of it. */
    fill(value) {
      if (value === null || typeof value !== "object" || Array.isArray(value)) return false;
      return Object.keys(inner.fill(value)).length === 0;
    },
  };
}

/** A check box has its own label; boxes in a row have a legend. */
function bare(name, schema, made) {
  const hint = description(schema);
  if (made.isRow) {
    return h(
      "fieldset",
      { class: "field boxes" },
      h("legend", { class: "field-label" }, titleOf(name, schema)),
      made.input,
      hint && h("p", { class: "field-hint" }, hint),
    );
  }
  return h(
    "div",
    { class: "field" },
    h("label", { class: "box" }, made.input, h("span", {}, titleOf(name, schema))),
    hint && h("p", { class: "field-hint" }, hint),
  );
}

/** The control for one value: `{input, read, set, isBare?, isRow?}`; `read` gives undefined for nothing, and `set` takes
 * it. */
function control(schema, isRequired, root) {
  if (schema.const !== undefined) return constant(schema.const);
  if (isChoice(schema.enum)) return select(schema, isRequired);
  if (schema.type === "boolean") return box(schema);
  if (schema.type === "number" || schema.type === "integer") return number(schema);
  if (schema.type === "string") return string(schema);
  if (schema.type === "array") return array(schema, root);
  return anything(schema);
}

const isChoice = (values) => Array.isArray(values) && values.length > 0 && values.length <= MAX_CHOICES;

function constant(value) {
  const input = h("input", { type: "text", readonly: true, value: String(value) });
  return { input, read: () => value, set() {} };
}

function select(schema, isRequired) {
  const empty = !isRequired || schema.default === undefined;
  const input = h(
    "select",
    {},
    empty && h("option", { value: "" }, isRequired ? "Choose…" : "–"),
    schema.enum.map((value, index) =>
      h("option", { value: index, selected: value === schema.default }, visible(line(value, 120))),
    ),
  );
  const set = (value) => {
    const index = schema.enum.findIndex((each) => isSame(each, value));
    input.value = index < 0 ? "" : String(index);
  };
  return { input, set, read: () => (input.value === "" ? undefined : schema.enum[Number(input.value)]) };
}

function box(schema) {
  const input = h("input", { type: "checkbox", checked: schema.default === true });
  const set = (value) => {
    input.checked = value === true;
  };
  return { input, isBare: true, set, read: () => input.checked };
}

function number(schema) {
  const isWhole = schema.type === "integer";
  const input = h("input", {
    type: "number",
    inputmode: isWhole ? "numeric" : "decimal",
    step: isWhole ? 1 : "any",
    min: schema.minimum,
    max: schema.maximum,
    placeholder: schema.default,
  });
  return {
    input,
    set: (value) => setValue(input, typeof value === "number" ? value : ""),
    read() {
      if (input.value.trim() === "" && !input.validity.badInput) return undefined;
      if (!input.validity.valid) throw new FieldError(input.validationMessage, input);
      return Number(input.value);
    },
  };
}

function setValue(input, value) {
  input.value = value ?? "";
}

const INPUT_TYPES = { email: "email", date: "date", "date-time": "datetime-local", uri: "url" };

function string(schema) {
  const isLong = schema.maxLength > 200 || schema.format === "textarea";
  const type = INPUT_TYPES[schema.format] ?? "text";
  const limits = { maxlength: schema.maxLength, placeholder: schema.default, autocomplete: "off" };
  const input = isLong ? h("textarea", { rows: 4, ...limits }) : h("input", { type, ...limits });
  return {
    input,
    set: (value) => setValue(input, typeof value === "string" ? toInput(value, type) : ""),
    read() {
      if (input.value === "") return undefined;
      if (!input.validity.valid) throw new FieldError(input.validationMessage, input);
      return type === "datetime-local" ? new Date(input.value).toISOString() : input.value;
    },
  };
}

/** A moment in the form of its input: the local time. */
function toInput(value, type) {
  const ms = type === "datetime-local" ? Date.parse(value) : NaN;
  return Number.isNaN(ms) ? value : new Date(ms - new Date(ms).getTimezoneOffset() * 60_000).toISOString().slice(0, 23);
}

function array(schema, root) {
  const items = resolve(schema.items, root);
  if (isChoice(items.enum)) return boxes(schema, items.enum);
  if (items.type === "string") return lines(schema);
  return anything(schema);
}

function boxes(schema, values) {
  const chosen = Array.isArray(schema.default) ? schema.default : [];
  const made = values.map((value) => [value, h("input", { type: "checkbox", checked: chosen.includes(value) })]);
  const input = h(
    "div",
    { class: "box-row" },
    made.map(([value, node]) => h("label", { class: "box" }, node, h("span", {}, visible(line(value, 80))))),
  );
  const read = () => made.filter(([, node]) => node.checked).map(([value]) => value);
  const set = (value) => {
    for (const [each, node] of made) node.checked = Array.isArray(value) && value.includes(each);
  };
  return { input, isBare: true, isRow: true, set, read: () => (read().length ? read() : undefined) };
}

function lines(schema) {
  const input = h("textarea", { rows: 3, placeholder: (schema.default ?? []).join?.("\n") || "one per line" });
  return {
    input,
    set: (value) => setValue(input, Array.isArray(value) ? value.join("\n") : ""),
    read() {
      const found = input.value
        .split("\n")
        .map((text) => text.trim())
        .filter(Boolean);
      return found.length ? found : undefined;
    },
  };
}

function anything(schema) {
  const example = schema.default === undefined ? "JSON" : JSON.stringify(schema.default);
  const input = h("textarea", { rows: 3, class: "mono", placeholder: example, spellcheck: "false" });
  return {
    input,
    set: (value) => setValue(input, value === undefined ? "" : JSON.stringify(value, null, 2)),
    read() {
      if (!input.value.trim()) return undefined;
      try {
        return JSON.parse(input.value);
      } catch (error) {
        throw new FieldError(`This is not valid JSON: ${error.message}`, input);
      }
    },
  };
}
