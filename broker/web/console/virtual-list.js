/**
 * A list of any length of which the page holds a window of at most `MAX_ROWS` rows. While it follows, the window is at
 * the end of the list; otherwise scrolling to an edge of the window moves it.
 */

import { Keyed, h, setAttribute, setText } from "./dom.js";
import { plural } from "./format.js";
import { icon } from "./icons.js";

const MAX_ROWS = 500;
const STEP = 150;
const NEAR_END_PX = 60;
const NEAR_EDGE_PX = 500;

export class VirtualList {
  /** `create(item)` makes the view of a row; `label` is the list's accessible name; `empty` the text without items. */
  constructor(create, { label, empty, className = "" }) {
    this.following = true;
    this._items = [];
    this._length = 0;
    this._begin = 0;
    this._end = 0;
    this._unseen = 0;
    this._list = h("ol", { class: `rows ${className}`, "aria-label": label });
    this._empty = h("p", { class: "rows-empty" }, empty);
    this._earlier = h(
      "button",
      { type: "button", class: "button small quiet rows-edge", hidden: true, onclick: () => this._extendUp() },
      "Show earlier",
    );
    this._later = h(
      "button",
      { type: "button", class: "button small quiet rows-edge", hidden: true, onclick: () => this._extendDown() },
      "Show later",
    );
    this._scroller = h(
      "div",
      { class: "scroller", tabindex: "0", role: "region", "aria-label": label },
      this._earlier,
      this._list,
      this._empty,
      this._later,
    );
    this._jumpText = h("span", {}, "Jump to latest");
    this._jump = h(
      "button",
      { type: "button", class: "button jump", hidden: true, onclick: () => this.follow() },
      icon("arrowDown"),
      this._jumpText,
    );
    this.node = h("div", { class: "virtual-list" }, this._scroller, this._jump);
    this._rows = new Keyed(this._list, (item) => item.key, create);
    this._scroller.addEventListener("scroll", () => this._scrolled(), { passive: true });
    this._sizes = new ResizeObserver(() => this.following && this._toEnd());
    this._sizes.observe(this._list);
    this._sizes.observe(this._scroller);
  }

  end() {
    this._sizes.disconnect();
    this._rows.clear();
  }

  /** Show these items. `isChanged(item)`: whether the item's row must be updated; `isOther`: the items are not the ones
   * shown before with more at the end. */
  show(items, isChanged = () => false, isOther = false) {
    const more = items.length - this._length;
    if (more > 0 && !this.following && !isOther) this._unseen += more;
    this._items = items;
    this._length = items.length;
    this._moveWindow(isOther);
    this._draw(isChanged);
    if (this.following) this._toEnd();
  }

  /** Show the first items, and do not follow: for an execution that is over. */
  readFromStart() {
    this.following = false;
    this._begin = 0;
    this._end = Math.min(this._items.length, STEP);
    this._draw(() => false);
    this._scroller.scrollTop = 0;
  }

  follow() {
    this.following = true;
    this._unseen = 0;
    this._moveWindow();
    this._draw(() => false);
    this._toEnd();
  }

  /** Scroll to the row of an item. */
  reveal(key) {
    const index = this._items.findIndex((item) => item.key === key);
    if (index < 0) return;
    this.following = false;
    if (index < this._begin || index >= this._end) {
      this._begin = Math.max(0, index - STEP / 2);
      this._end = Math.min(this._items.length, this._begin + STEP);
      this._draw(() => false);
    }
    this._rows.get(key)?.node.scrollIntoView({ block: "center" });
  }

  tick() {
    for (const view of this._rows.views()) view.tick?.();
  }

  focus() {
    this._scroller.focus({ preventScroll: true });
  }

  /** Move the window to the end while following; otherwise keep it within the list. */
  _moveWindow(isOther = false) {
    const length = this._items.length;
    if (this.following) {
      const rows = this._end - this._begin;
      // The window is cut to `STEP` rows once it is too long, not shortened with every new row.
      const isTooLong = isOther || length - this._begin > MAX_ROWS || rows > MAX_ROWS;
      this._begin = isTooLong ? Math.max(0, length - STEP) : Math.min(this._begin, Math.max(0, length - STEP));
      this._end = length;
      return;
    }
    this._begin = Math.min(this._begin, Math.max(0, length - 1));
    const wasAll = this._end - this._begin < STEP;
    this._end = Math.min(length, Math.max(this._end, wasAll ? this._begin + STEP : this._end));
  }

  _draw(isChanged) {
    this._rows.show(this._items.slice(this._begin, this._end), isChanged);
    setAttribute(this._empty, "hidden", this._items.length ? "" : null);
    setAttribute(this._earlier, "hidden", this._begin > 0 ? null : "");
    setAttribute(this._later, "hidden", this._end < this._items.length ? null : "");
    this._drawJump();
  }

  _drawJump() {
    setAttribute(this._jump, "hidden", this.following || !this._isAway() ? "" : null);
    setText(this._jumpText, this._unseen ? `${plural(this._unseen, "new row")} below` : "Jump to latest");
  }

  _isAway() {
    return this._end < this._length || this._distance() > NEAR_END_PX;
  }

  _distance() {
    const { scrollHeight, scrollTop, clientHeight } = this._scroller;
    return scrollHeight - scrollTop - clientHeight;
  }

  _toEnd() {
    this._scroller.scrollTop = this._scroller.scrollHeight;
  }

  /** Scrolling up ends following; scrolling to the end starts it again. */
  _scrolled() {
    // The list may be longer than the window by items that are drawn in the next frame.
    const isAtEnd = this._end >= this._length && this._distance() < NEAR_END_PX;
    if (isAtEnd !== this.following) {
      this.following = isAtEnd;
      if (isAtEnd) this._unseen = 0;
    }
    this._drawJump();
    if (this.following) return;
    if (this._begin > 0 && this._scroller.scrollTop < NEAR_EDGE_PX) this._extendUp();
    else if (this._end < this._items.length && this._distance() < NEAR_EDGE_PX) this._extendDown();
  }

  _extendUp() {
    this._keepingScroll(() => {
      this._begin = Math.max(0, this._begin - STEP);
      this._end = Math.min(this._end, this._begin + MAX_ROWS);
    });
  }

  _extendDown() {
    this._keepingScroll(() => {
      this._end = Math.min(this._items.length, this._end + STEP);
      this._begin = Math.max(this._begin, this._end - MAX_ROWS);
    });
  }

  /** Change the window without moving the rows in view. */
  _keepingScroll(change) {
    const top = this._scroller.getBoundingClientRect().top;
    const anchor = [...this._list.children].find((row) => row.getBoundingClientRect().bottom > top);
    const before = anchor?.getBoundingClientRect().top;
    change();
    this._draw(() => false);
    if (anchor?.isConnected) this._scroller.scrollTop += anchor.getBoundingClientRect().top - before;
  }
}
