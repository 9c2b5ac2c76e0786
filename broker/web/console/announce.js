/** A few words for those who hear the page: polite, and at most one every other second. */

import { h } from "./dom.js";

const PAUSE_MS = 1_800;

export class Announcer {
  constructor() {
    this.node = h("div", { class: "unseen", role: "status", "aria-live": "polite" });
    this._next = null;
    this._timer = 0;
  }

  /** Say it soon; what was to be said before and was not yet is left out. */
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
