/** The live region for screen readers: polite, and at most one text every 1.8 seconds. */

import { h } from "./dom.js";

const PAUSE_MS = 1_800;

export class LiveRegion {
  constructor() {
    this.node = h("div", { class: "unseen", role: "status", "aria-live": "polite" });
    this._next = null;
    this._timer = 0;
  }

  /** Announce a text soon. It replaces one that still waits. */
  say(text) {
    this._next = text;
    this._timer ||= setTimeout(() => this._speak(), 60);
  }

  _speak() {
    this._timer = 0;
    if (this._next === null) return;
    this.node.textContent = this._next;
    this._next = null;
    this._timer = setTimeout(() => this._speak(), PAUSE_MS);
  }
}
