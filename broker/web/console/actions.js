/** Actions on an execution: copy, export, cancel. */

import { saveAs } from "./artifacts.js";
import { copy as toClipboard } from "./curl.js";
import { openDialog } from "./dialog.js";
import { h } from "./dom.js";

export class Actions {
  /** `page`: `{client, notify(text, isBad)}`. */
  constructor(page, executionId) {
    this._page = page;
    this._id = executionId;
  }

  /** Copy to the clipboard; if the browser does not allow it, show the text in a dialog. */
  async copy(text, notice) {
    const isDone = await toClipboard(text);
    if (isDone) this._page.notify(notice);
    else
      await openDialog("Copy this", () =>
        h("textarea", { class: "mono", rows: 5, readonly: true, "aria-label": "Text to copy" }, text),
      );
  }

  async exportLog() {
    try {
      const stream = await this._page.client.exportEvents(this._id);
      const blob = await new Response(stream.pipeThrough(new TextEncoderStream())).blob();
      saveAs(blob, `${this._id}.ndjson`);
      this._page.notify("Exported");
    } catch (error) {
      this._page.notify(`Not exported: ${error.message}`, true);
    }
  }

  /** Ask for confirmation and a reason; `button` stays disabled after a cancel. */
  askToCancel(button) {
    return openDialog("Cancel this execution?", (close) => {
      const reason = h("input", {
        type: "text",
        id: "cancel-reason",
        maxlength: 1000,
        autocomplete: "off",
        placeholder: "Shown in the story",
      });
      const form = h(
        "form",
        { onsubmit: (event) => (event.preventDefault(), close(), this._cancel(reason.value.trim(), button)) },
        h("p", { class: "muted" }, "The agent will be stopped. The events so far are kept."),
        h(
          "div",
          { class: "field" },
          h(
            "label",
            { class: "field-label", for: "cancel-reason" },
            "Reason ",
            h("span", { class: "optional" }, "optional"),
          ),
          reason,
        ),
        h(
          "div",
          { class: "dialog-actions" },
          h("button", { type: "button", class: "button", onclick: close }, "Keep it running"),
          h("button", { type: "submit", class: "button danger primary" }, "Cancel execution"),
        ),
      );
      return form;
    });
  }

  async _cancel(reason, button) {
    button.disabled = true;
    try {
      await this._page.client.cancel(this._id, reason || undefined);
      this._page.notify("Cancel requested");
    } catch (error) {
      button.disabled = false;
      this._page.notify(`Not cancelled: ${error.detail || error.message}`, true);
    }
  }
}
