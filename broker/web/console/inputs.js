/** The open inputs of an execution, each with its form: approval, choice, text or form. The first answer counts. */

import { Keyed, h, setText } from "./dom.js";
import { duration, running } from "./format.js";
import { icon } from "./icons.js";
import { MarkdownView } from "./markdown-view.js";
import { FieldError, objectFields } from "./schema-form.js";
import { line, visible } from "./text.js";

/** More options, or longer ones, are shown as a list instead of buttons. */
const MAX_BUTTONS = 4;

export class OpenInputs {
  /** `answer(inputId, value)` sends one, and `decline(inputId)` that there is none; both reject with a `RuncastError`. */
  constructor(answer, decline, clock) {
    this._cards = h("ul", { class: "questions" });
    this.node = h("section", { class: "dock", "aria-label": "Open questions", hidden: true }, this._cards);
    this._keyed = new Keyed(
      this._cards,
      (input) => input.inputId,
      (input) => new InputCard(input, answer, decline, clock),
    );
  }

  show(inputs) {
    this._keyed.show(inputs, () => false);
    this.node.hidden = inputs.length === 0;
  }

  tick() {
    for (const card of this._keyed.views()) card.tick();
  }

  focus() {
    this._cards.querySelector("button, input, textarea, select")?.focus();
  }
}

class InputCard {
  constructor(input, answer, decline, clock) {
    this._input = input;
    this._answer = answer;
    this._decline = decline;
    this._clock = clock;
    this._expiry = h("span", { class: "expiry numbers" });
    this._status = h("p", { class: "question-status", role: "status" });
    const id = `question-${input.inputId.replace(/[^\w-]/g, "_")}`;
    const form = h("form", { class: "question-form", novalidate: true, onsubmit: (event) => this._submit(event) });
    this._form = form;
    form.append(...controls(input, (value) => this._send(value), id));
    if (input.kind !== "approval") form.querySelector(".question-actions").append(this._declining(id));
    this.node = h(
      "li",
      { class: "question" },
      h(
        "div",
        { class: "question-head" },
        icon("question"),
        h("div", { id, class: "question-prompt" }, prose(input.prompt)),
        this._expiry,
      ),
      form,
      this._status,
    );
    this.tick();
  }

  tick() {
    if (!this._input.expiresAt) return;
    const left = this._input.expiresAt - this._clock.now();
    setText(
      this._expiry,
      left > 0 ? `${left < 60_000 ? running(left) : duration(Math.floor(left / 1000))} left` : "expired",
    );
  }

  _submit(event) {
    event.preventDefault();
    try {
      this._send(this._form.read());
    } catch (error) {
      if (!(error instanceof FieldError)) throw error;
      this._say(error.message, true);
      error.field.focus();
    }
  }

  /** An approval has a button that says no. */
  _declining(id) {
    const onclick = () => this._do(() => this._decline(this._input.inputId));
    const attributes = { type: "button", class: "button decline", "aria-describedby": id, onclick };
    return h("button", attributes, icon("cross"), "Decline");
  }

  _send(value) {
    return this._do(() => this._answer(this._input.inputId, value));
  }

  async _do(send) {
    this._disable(true);
    this._say("Sending…");
    try {
      await send();
      this._say("Sent. Waiting for the agent.");
    } catch (error) {
      this._disable(error.status === 409);
      this._say(refusal(error), true);
    }
  }

  _disable(isOff) {
    for (const control of this._form.elements) control.disabled = isOff;
  }

  _say(text, isBad = false) {
    setText(this._status, visible(text));
    this._status.classList.toggle("bad", isBad);
  }
}

function prose(text) {
  const view = new MarkdownView();
  view.update(String(text));
  return view.node;
}

function refusal(error) {
  const by = error.body?.answeredBy ?? error.body?.by;
  if (error.status === 409 && by) return `Already answered by ${line(by, 120)}.`;
  return line(error.detail ?? error.title ?? error.message, 400);
}

/** The controls for the kind of an input; a form with a submit button gets a `read()`. */
function controls(input, send, id) {
  const kinds = { approval, choice, text, form };
  return (kinds[input.kind] ?? text)(input, send, id);
}

function approval(_input, send, id) {
  const button = (label, name, value, className) =>
    h(
      "button",
      { type: "button", class: `button ${className}`, "aria-describedby": id, onclick: () => send(value) },
      icon(name),
      label,
    );
  return [
    h(
      "div",
      { class: "question-actions" },
      button("Approve", "check", true, "primary"),
      button("Decline", "cross", false, ""),
    ),
  ];
}

function choice(input, send, id) {
  const options = (input.options ?? []).slice(0, 100);
  if (options.length <= MAX_BUTTONS && options.every((option) => option.length <= 60)) {
    const buttons = options.map((option) =>
      h(
        "button",
        { type: "button", class: "button", "aria-describedby": id, onclick: () => send(option) },
        h("bdi", {}, visible(option)),
      ),
    );
    return [h("div", { class: "question-actions" }, buttons)];
  }
  const boxes = options.map((option, index) =>
    h(
      "label",
      { class: "box" },
      h("input", { type: "radio", name: id, value: index }),
      h("bdi", {}, visible(line(option, 400))),
    ),
  );
  const list = h("div", { class: "box-column", role: "radiogroup", "aria-labelledby": id }, boxes);
  return submitted(list, "Send", () => {
    const chosen = list.querySelector("input:checked");
    if (!chosen) throw new FieldError("Choose one.", list.querySelector("input"));
    return options[Number(chosen.value)];
  });
}

function text(_input, _send, id) {
  const area = h("textarea", { rows: 2, "aria-labelledby": id, placeholder: "Your answer" });
  return submitted(area, "Send", () => {
    if (!area.value.trim()) throw new FieldError("Enter an answer.", area);
    return area.value;
  });
}

function form(input) {
  const fields = objectFields(input.schema ?? {});
  return submitted(fields.node, "Send", () => fields.read());
}

/** `read` becomes a method of the form once the button is part of one. */
function submitted(content, label, read) {
  const button = h("button", { type: "submit", class: "button primary" }, label);
  queueMicrotask(() => {
    button.form.read = read;
  });
  return [content, h("div", { class: "question-actions" }, button)];
}
