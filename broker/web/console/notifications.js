/**
 * Notifications of the system when a run waits for its person: off until somebody switches them on in this browser, and
 * only for a run that is not in view.
 */

import { h, setAttribute } from "./dom.js";
import { icon } from "./icons.js";
import { line } from "./text.js";

const KEY = "runcast:notify";
const MAX_SEEN = 1_000;

export class Notifications {
  /** `open(executionId)` shows a run; `notify(text, isBad)` says something on the page. */
  constructor({ open, notify }) {
    this._open = open;
    this._notify = notify;
    this._seen = null;
    this._isOn = stored() && allowed();
    this.button = h("button", { type: "button", class: "button quiet square bell", onclick: () => this._toggle() });
    this.button.hidden = typeof Notification === "undefined";
    this._draw();
  }

  /** Take the list of executions; `current`: the id of the one in view, or null. What waits already when the page opens
   * is no news. */
  show({ executions, isLoaded }, current) {
    if (!isLoaded) return;
    const waiting = executions.flatMap((item) =>
      item.openInputs.map((input) => [`${item.executionId} ${input.inputId}`, item, input]),
    );
    const before = this._seen;
    this._seen = new Set([...waiting.map(([key]) => key), ...(before ?? [])].slice(0, MAX_SEEN));
    if (before === null || !this._isOn) return;
    for (const [key, item, input] of waiting)
      if (!before.has(key) && !isInView(item.executionId, current)) this._say(item, input);
  }

  _say({ executionId, task, agent }, { prompt }) {
    const body = [line(prompt, 160), line(task ?? executionId, 80)].join("\n");
    const note = new Notification(`${line(agent ?? "An agent", 40)} needs an answer`, { body, tag: executionId });
    note.onclick = () => {
      window.focus();
      this._open(executionId);
      note.close();
    };
  }

  async _toggle() {
    if (this._isOn) this._isOn = false;
    else if (!(await granted())) return this._notify("This browser does not allow notifications of this page", true);
    else this._isOn = true;
    store(this._isOn);
    this._draw();
    this._notify(this._isOn ? "You are notified when a run needs you" : "Notifications are off");
  }

  _draw() {
    const label = `Notify me when a run needs me: ${this._isOn ? "on" : "off"}`;
    this.button.replaceChildren(icon(this._isOn ? "bell" : "bellOff"));
    setAttribute(this.button, "aria-label", "Notify me when a run needs me");
    setAttribute(this.button, "aria-pressed", String(this._isOn));
    setAttribute(this.button, "title", label);
  }
}

const isInView = (executionId, current) => executionId === current && !document.hidden && document.hasFocus();
const allowed = () => typeof Notification !== "undefined" && Notification.permission === "granted";

async function granted() {
  return allowed() || (await Notification.requestPermission()) === "granted";
}

function stored() {
  try {
    return localStorage.getItem(KEY) === "on";
  } catch {
    return false;
  }
}

function store(isOn) {
  try {
    localStorage.setItem(KEY, isOn ? "on" : "off");
  } catch {
    // Storage is forbidden: it lasts until the page is closed.
  }
}
