/** The form that starts an execution, made from the input schema of the agent. */

import { copy, executeCommand } from "./curl.js";
import { h, setAttribute, setText } from "./dom.js";
import { icon } from "./icons.js";
import { FieldError, objectFields } from "./schema-form.js";
import { isolated, line, visible } from "./text.js";

export class StartPage {
  /** `page`: `{client, open(executionId), notify(text), back()}`. */
  constructor(page) {
    this._page = page;
    this._fields = null;
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
    this._task.focus();
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
    return h("header", { class: "page-head" }, back, h("h1", { id: "start-title", tabindex: "-1" }, "New execution"));
  }

  _form() {
    return h(
      "form",
      { class: "start-form", novalidate: true, onsubmit: (event) => this._submit(event) },
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
        { class: "more" },
        h("summary", {}, "Options"),
        h(
          "div",
          { class: "fields pair" },
          pair("later", "Not before", this._later),
          pair("alone", "Cancel if unwatched for", this._alone, "seconds"),
        ),
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
      const { agents } = await this._page.client.agents();
      if (agents.length) this._showAgents(agents.slice(0, 200));
      else
        this._agents.replaceChildren(
          h(
            "p",
            { class: "muted" },
            "No agent is available. Start a worker: ",
            h("code", {}, "runcast worker my_package:agents"),
          ),
        );
    } catch (error) {
      this._agents.replaceChildren(
        h("p", { class: "problem" }, `The agents could not be loaded: ${line(error.detail || error.message, 200)}`),
      );
    }
  }

  _showAgents(agents) {
    const cards = agents.map((agent, index) => {
      const radio = h("input", {
        type: "radio",
        name: "agent",
        value: agent.name,
        checked: index === 0,
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
    this._choose(agents[0]);
  }

  _choose(agent) {
    this._agent = agent.name;
    const schema = agent.inputSchema;
    this._fields = schema?.properties && Object.keys(schema.properties).length ? objectFields(schema) : null;
    this._params.replaceChildren(
      ...(this._fields ? [h("h2", { class: "form-title" }, "Parameters"), this._fields.node] : []),
    );
  }

  /** The request. Raises `FieldError`. */
  _read() {
    const task = this._task.value.trim();
    if (!task) throw new FieldError("Enter a task.", this._task);
    const params = this._fields?.read() ?? {};
    const seconds = this._alone.value ? Number(this._alone.value) : null;
    if (!this._alone.validity.valid) throw new FieldError(this._alone.validationMessage, this._alone);
    return {
      task,
      ...(this._agent ? { agent: this._agent } : {}),
      ...(Object.keys(params).length ? { params } : {}),
      ...(this._later.value ? { notBefore: new Date(this._later.value).getTime() } : {}),
      ...(seconds ? { onDisconnect: { cancelAfterSeconds: seconds } } : {}),
    };
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
