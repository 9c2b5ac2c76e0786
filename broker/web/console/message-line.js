/** The line to write on: messages to the running agent, those that wait for it, and what became of the last one. */

import { Keyed, h, setAttribute, setText } from "./dom.js";
import { isOver, plural } from "./format.js";
import { icon } from "./icons.js";
import { line, visible } from "./text.js";

/** Waiting messages beyond these are only counted. */
const MAX_SHOWN = 3;

export class MessageLine {
  /** `page`: `{client}`. The line is shown for agents that take messages. */
  constructor(page, executionId) {
    this._client = page.client;
    this._id = executionId;
    this._state = { status: null, attempt: 0, userMessages: [] };
    this._accepts = false;
    this._asked = "";
    this._last = null;
    this._build();
  }

  show(state) {
    this._state = state;
    this._ask();
    const waiting = state.userMessages.filter((message) => message.state === "queued");
    this._waiting.show(waiting.slice(0, MAX_SHOWN), () => false);
    const more = waiting.length - MAX_SHOWN;
    setText(this._more, more > 0 ? `and ${plural(more, "more message")}` : "");
    this._sayLast();
    this._showForm();
  }

  focus() {
    this._text.focus();
  }

  _build() {
    this._text = h("textarea", {
      rows: 1,
      "aria-label": "Message to the agent",
      placeholder: "Message to the agent",
      enterkeyhint: "send",
      autocomplete: "off",
      title: "Enter sends, Shift+Enter starts a new line",
      oninput: () => this._showForm(),
      onkeydown: (event) => this._onKey(event),
    });
    this._interrupts = h(
      "button",
      {
        type: "button",
        class: "button toggle",
        "aria-pressed": "false",
        title: "Interrupt what the agent does now, if it can be interrupted there",
        onclick: () => this._toggle(),
      },
      icon("bolt"),
      h("span", {}, "Interrupt"),
    );
    this._send = h("button", { type: "submit", class: "button primary" }, icon("arrow"), h("span", {}, "Send"));
    this._form = h(
      "form",
      { class: "message-form", onsubmit: (event) => this._submit(event) },
      this._text,
      this._interrupts,
      this._send,
    );
    this._list = h("ul", { class: "waiting", "aria-label": "Messages that wait for the agent" });
    this._waiting = new Keyed(
      this._list,
      (message) => message.messageId,
      (message) => this._waitingView(message),
    );
    this._more = h("p", { class: "waiting-more" });
    this._status = h("p", { class: "message-status", role: "status" });
    this.node = h(
      "section",
      { class: "message-line", "aria-label": "Messages", hidden: true },
      this._list,
      this._more,
      this._form,
      this._status,
    );
  }

  _waitingView(message) {
    const text = message.text ?? JSON.stringify(message.data);
    const button = h(
      "button",
      { type: "button", class: "button quiet small", onclick: () => this._withdraw(message.messageId, button) },
      "Withdraw",
      h("span", { class: "unseen" }, ` “${visible(line(text, 60))}”`),
    );
    const node = h(
      "li",
      {},
      icon(message.mode === "interrupt" ? "bolt" : "clock"),
      h("bdi", { class: "said" }, visible(line(text, 200))),
      button,
    );
    return { node };
  }

  /** Whether the agent takes messages is asked again when another attempt or state begins, and after a message. */
  async _ask() {
    const { status, attempt, userMessages } = this._state;
    if (!status || isOver(status)) return;
    const asked = `${status} ${attempt} ${userMessages.length > 0}`;
    if (asked === this._asked) return;
    this._asked = asked;
    try {
      const { acceptsMessages = false } = await this._client.messages(this._id);
      if (this._asked !== asked) return;
      this._accepts = acceptsMessages;
      this._showForm();
    } catch {
      if (this._asked === asked) this._asked = ""; // asked again with the next event
    }
  }

  /** Text that was not sent when the agent ended stays, to be copied. */
  _showForm() {
    const { status } = this._state;
    const isOpen = this._accepts && status !== null && !isOver(status);
    const isLeft = this._text.value !== "" && !isOpen;
    this._form.hidden = !isOpen && !isLeft;
    if (isLeft) this._say(status !== null && isOver(status) ? TOO_LATE : "The agent takes no messages now.", true);
    else if (!isOpen && this._status.textContent !== SAID.ended) this._say("");
    this.node.hidden = !isOpen && !isLeft && !this._status.textContent;
    this._text.readOnly = !isOpen;
    this._interrupts.disabled = this._send.disabled = !isOpen;
  }

  _toggle() {
    const isOn = this._interrupts.getAttribute("aria-pressed") !== "true";
    setAttribute(this._interrupts, "aria-pressed", String(isOn));
    this._text.focus();
  }

  _onKey(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this._form.requestSubmit(this._send.disabled ? null : this._send);
  }

  async _submit(event) {
    event.preventDefault();
    const text = this._text.value;
    if (this._isSending || this._send.disabled || !text.trim()) return;
    const mode = this._interrupts.getAttribute("aria-pressed") === "true" ? "interrupt" : "queue";
    this._isSending = true;
    this._last = null;
    this._say("Sending…");
    try {
      const { messageId } = await this._client.sendMessage(this._id, { text, mode });
      if (this._text.value === text) this._text.value = "";
      setAttribute(this._interrupts, "aria-pressed", "false");
      this._last = messageId;
      this._say(SAID.queued);
      this._sayLast();
    } catch (error) {
      this._say(refusal(error), true);
    } finally {
      this._isSending = false;
      this._showForm();
    }
  }

  async _withdraw(messageId, button) {
    button.disabled = true;
    try {
      await this._client.withdrawMessage(this._id, messageId);
      this._last = messageId;
      this._sayLast();
    } catch (error) {
      button.disabled = false;
      this._say(refusal(error), true);
    }
    if (!this._form.hidden) this._text.focus();
  }

  /** What became of the message that was last sent or withdrawn here. */
  _sayLast() {
    const message = this._last && this._state.userMessages.find((each) => each.messageId === this._last);
    if (message) this._say(SAID[message.reason ?? message.state]);
  }

  _say(text, isBad = false) {
    setText(this._status, visible(text));
    this._status.classList.toggle("bad", isBad);
  }
}

/** State of a message, or why it was dropped → what is said of it. */
const SAID = {
  queued: "Sent. It waits for the agent.",
  taken: "The agent has taken your message.",
  withdrawn: "Withdrawn.",
  ended: "The agent ended before it took your message.",
};

const TOO_LATE = "The execution is over. This was not sent.";

function refusal(error) {
  return line(error.detail || error.title || error.message, 400);
}
