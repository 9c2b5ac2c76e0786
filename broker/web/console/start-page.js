/** The form that starts an execution, made from the input schema of the agent; to run one again, filled in with its
 * input. */

import { BudgetFields } from "./budget-fields.js";
import { copy, executeCommand } from "./curl.js";
import { h, setAttribute, setText } from "./dom.js";
import { icon } from "./icons.js";
import { AGAIN } from "./run-facts.js";
import { FieldError, objectFields } from "./schema-form.js";
import { hasRedacted } from "./summary.js";
import { isolated, line, visible } from "./text.js";

export class StartPage {
  /** `page`: `{client, open(executionId), notify(text), back()}`; `from`: the id of an execution to run again. */
  constructor(page, from = null) {
    this._page = page;
    this._from = from;
    this._given = null;
    this._fields = null;
    this._budget = new BudgetFields();
    this._note = h("p", { class: "start-note", hidden: true });
    this._rest = h("textarea", { id: "rest", rows: 3, class: "mono", spellcheck: "false", placeholder: "{ }" });
    this._agents = h("div", { class: "agents", role: "radiogroup", "aria-labelledby": "agents-title" });
    this._params = h("div", { class: "params" });
    this._task = h("textarea", {
      id: "task",
      rows: 3,
      required: true,
      maxlength: 65_536,
      placeholder: "What should the agent do?",
    });
    this._later = h("input", { type: "datetime-local", id: "later" });
    this._alone = h("input", { type: "number", id: "alone", min: 1, max: 86_400, step: 1, placeholder: "never" });
    this._problem = h("p", { class: "problem", role: "alert" });
    this._button = h("button", { type: "submit", class: "button primary" }, icon("play"), "Start");
    this.node = h("section", { class: "page", "aria-labelledby": "start-title" }, this._head(), this._form());
    this._load();
  }

  end() {}

  focus() {
    (this._from ? this._button : this._task).focus();
  }

  _head() {
    const back = h(
      "button",
      {
        type: "button",
        class: "button quiet square back",
        "aria-label": "Back to the list",
        onclick: () => this._page.back(),
      },
      icon("back"),
    );
    return h(
      "header",
      { class: "page-head" },
      back,
      h("h1", { id: "start-title", tabindex: "-1" }, this._from ? "Run again" : "New execution"),
    );
  }

  _form() {
    return h(
      "form",
      { class: "start-form", novalidate: true, onsubmit: (event) => this._submit(event) },
      this._note,
      h(
        "fieldset",
        { class: "field" },
        h("legend", { class: "field-label", id: "agents-title" }, "Agent"),
        this._agents,
      ),
      h("div", { class: "field" }, h("label", { class: "field-label", for: "task" }, "Task"), this._task),
      this._params,
      h(
        "details",
        { class: "more options" },
        h("summary", {}, "Options"),
        h(
          "div",
          { class: "fields pair" },
          pair("later", "Not before", this._later),
          pair("alone", "Cancel if unwatched for", this._alone, "seconds"),
        ),
        this._budget.node,
      ),
      this._problem,
      h(
        "div",
        { class: "form-actions" },
        this._button,
        h(
          "button",
          { type: "button", class: "button quiet", onclick: () => this._copy() },
          icon("terminal"),
          "Copy as curl",
        ),
      ),
    );
  }

  async _load() {
    try {
      const [{ agents }, given] = await Promise.all([
        this._page.client.agents(),
        this._from && this._page.client.acceptedRequest(this._from),
      ]);
      if (agents.length) this._showAgents(agents.slice(0, 200), given?.agent);
      else
        this._agents.replaceChildren(
          h(
            "p",
            { class: "muted" },
            "No agent is available. Start a worker: ",
            h("code", {}, "runcast worker my_package:agents"),
          ),
        );
      if (given) this._fill(given, agents);
    } catch (error) {
      this._agents.replaceChildren(
        h("p", { class: "problem" }, `The form could not be loaded: ${line(error.detail || error.message, 200)}`),
      );
    }
  }

  /** Fill in what an execution was started with. Its conversation and its start time are not repeated. */
  _fill(given, agents) {
    this._given = given;
    this._task.value = given.task ?? "";
    this._alone.value = given.onDisconnect?.cancelAfterSeconds ?? "";
    this._budget.fill(given.budget);
    this.node.querySelector(".options").open = Boolean(given.budget || given.onDisconnect);
    this._fillParams();
    const notes = [`Filled in from ${this._from}.`];
    if (given.params === undefined) notes.push("It was not started by a request: there is no input to repeat.");
    if (hasRedacted([given.task, given.params])) notes.push("Credentials are not kept: enter them again.");
    if (!agents.some(({ name }) => name === given.agent))
      notes.push(`No worker knows ${line(given.agent ?? "its agent", 60)} now.`);
    setText(this._note, notes.join(" "));
    this._note.hidden = false;
  }

  /** Into the fields of the agent's schema, and the rest as JSON. */
  _fillParams() {
    const params = this._given?.params ?? {};
    const left = this._fields ? this._fields.fill(params) : params;
    this._rest.value = Object.keys(left).length ? JSON.stringify(left, null, 2) : "";
    this._params.querySelector(".rest")?.toggleAttribute("open", this._rest.value !== "");
  }

  _showAgents(agents, wanted) {
    const chosen = agents.find(({ name }) => name === wanted) ?? agents[0];
    const cards = agents.map((agent) => {
      const radio = h("input", {
        type: "radio",
        name: "agent",
        value: agent.name,
        checked: agent === chosen,
        onchange: () => this._choose(agent),
      });
      const tags = (agent.tags ?? []).slice(0, 6).map((tag) => h("li", {}, isolated(line(tag, 30))));
      return h(
        "label",
        { class: "agent" },
        radio,
        h("span", { class: "agent-name" }, isolated(line(agent.name, 60))),
        agent.description &&
          h("span", { class: "agent-text said", dir: "auto" }, visible(line(agent.description, 300))),
        tags.length > 0 && h("ul", { class: "values tags" }, tags),
      );
    });
    this._agents.replaceChildren(...cards);
    this._choose(chosen);
  }

  _choose(agent) {
    this._agent = agent.name;
    const schema = agent.inputSchema;
    this._fields = schema?.properties && Object.keys(schema.properties).length ? objectFields(schema) : null;
    const rest = h(
      "details",
      { class: "more rest" },
      h("summary", {}, this._fields ? "More parameters" : "Parameters"),
      h("label", { class: "field-label", for: "rest" }, "JSON object", h("span", { class: "optional" }, "optional")),
      this._rest,
    );
    this._params.replaceChildren(
      ...(this._fields ? [h("h2", { class: "form-title" }, "Parameters"), this._fields.node] : []),
      rest,
    );
    this._fillParams();
  }

  /** The request. Raises `FieldError`. */
  _read() {
    const task = this._task.value.trim();
    if (!task) throw new FieldError("Enter a task.", this._task);
    const params = { ...this._readRest(), ...this._fields?.read() };
    const budget = this._budget.read();
    const seconds = this._alone.value ? Number(this._alone.value) : null;
    if (!this._alone.validity.valid) throw new FieldError(this._alone.validationMessage, this._alone);
    return {
      task,
      ...(this._agent ? { agent: this._agent } : {}),
      ...(Object.keys(params).length ? { params } : {}),
      ...(this._later.value ? { notBefore: new Date(this._later.value).getTime() } : {}),
      ...(seconds ? { onDisconnect: { cancelAfterSeconds: seconds } } : {}),
      ...(budget ? { budget } : {}),
      ...(this._given ? { metadata: { ...this._given.metadata, [AGAIN]: this._from } } : {}),
    };
  }

  _readRest() {
    const text = this._rest.value.trim();
    if (!text) return {};
    let value = null;
    try {
      value = JSON.parse(text);
    } catch (error) {
      throw new FieldError(`The parameters are not valid JSON: ${error.message}`, this._rest);
    }
    if (value === null || typeof value !== "object" || Array.isArray(value))
      throw new FieldError("The parameters are a JSON object.", this._rest);
    return value;
  }

  async _submit(event) {
    event.preventDefault();
    const request = this._try(() => this._read());
    if (!request) return;
    this._button.disabled = true;
    try {
      const { executionId } = await this._page.client.execute(request);
      this._page.open(executionId);
    } catch (error) {
      this._button.disabled = false;
      setText(this._problem, visible(line(error.detail || error.message, 600)));
    }
  }

  async _copy() {
    const request = this._try(() => this._read());
    if (!request) return;
    const isDone = await copy(executeCommand(request));
    this._page.notify(isDone ? "Command copied" : "The browser did not allow copying", !isDone);
  }

  /** The result of `read`; null after an error, which is shown at its field. */
  _try(read) {
    setText(this._problem, "");
    try {
      return read();
    } catch (error) {
      if (!(error instanceof FieldError)) throw error;
      setText(this._problem, error.message);
      setAttribute(error.field, "aria-invalid", "true");
      error.field.addEventListener("input", () => setAttribute(error.field, "aria-invalid", null), { once: true });
      error.field.focus();
      return null;
    }
  }
}

function pair(id, label, input, unit = "") {
  return h(
    "div",
    { class: "field" },
    h("label", { class: "field-label", for: id }, label, unit && h("span", { class: "optional" }, unit)),
    input,
  );
}
