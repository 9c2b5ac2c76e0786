/**
 * A list of any length of which the page holds a window of at most `MAX_ROWS` rows. While it follows, the window is at
 * the end of the list; otherwise scrolling to an edge of the window moves it. A window is filled over several frames,
 * from its end while it follows: to make and lay out all its rows takes a quarter of a second.
 */

import { nextFrame } from "/client/animation-frame.js";
import { Keyed, h, setAttribute, setText } from "./dom.js";
import { plural } from "./format.js";
import { icon } from "./icons.js";

const MAX_ROWS = 500;
const STEP = 150;
const NEAR_END_PX = 60;
const NEAR_EDGE_PX = 500;
/** New rows of one frame: as many as are made in this time, but so many at least, and at most: their layout takes twice
 * as long. */
const SLICE_MS = 4;
const MIN_SLICE = 8;
const MAX_SLICE = 12;
/** Rows above one that is looked for. */
const LEAD = 8;
/** Rows on paper. */
export const MAX_PRINTED = 1_000;

export class VirtualList {
  /** `create(item)` makes the view of a row; `label` is the list's accessible name; `empty` the text without items;
   * `head` a node above the first row. */
  constructor(create, { label, empty, className = "", head = null }) {
    this.following = true;
    /** Stays at the start until somebody scrolls, whatever the layout does. */
    this._isHeld = false;
    this._items = [];
    this._length = 0;
    /** The window: indices of its first row, and of the one after its last. */
    this._begin = 0;
    this._end = 0;
    /** The part of it that is in the page. */
    this._first = 0;
    this._last = 0;
    this._cancelFrame = null;
    /** What the screen had, while it is printed: the window, and how far it was scrolled. */
    this._onScreen = null;
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
      head,
      this._earlier,
      this._list,
      this._empty,
      this._later,
    );
    for (const type of ["wheel", "touchmove", "pointerdown", "keydown"])
      this._scroller.addEventListener(type, () => (this._isHeld = false), { passive: true });
    this._jumpText = h("span", {}, "Jump to latest");
    this._jump = h(
      "button",
      { type: "button", class: "button jump", hidden: true, onclick: () => this.follow() },
      icon("arrowDown"),
      this._jumpText,
    );
    this.node = h("div", { class: "virtual-list" }, this._scroller, this._jump);
    this._rows = new Keyed(this._list, (item) => item.key, create);
    this._rest = h("p", { class: "rows-rest muted", hidden: true });
    this._scroller.append(this._rest);
    this._print = { before: () => this._drawForPaper(), after: () => this._drawForScreen() };
    addEventListener("beforeprint", this._print.before);
    addEventListener("afterprint", this._print.after);
    this._scroller.addEventListener("scroll", () => this._scrolled(), { passive: true });
    this._sizes = new ResizeObserver(() => this.following && this._toEnd());
    this._sizes.observe(this._list);
    this._sizes.observe(this._scroller);
    if (head) this._sizes.observe(head);
  }

  end() {
    this._sizes.disconnect();
    this._cancelFrame?.();
    removeEventListener("beforeprint", this._print.before);
    removeEventListener("afterprint", this._print.after);
    this._rows.clear();
  }

  /** Show these items. `isChanged(item)`: whether the item's row must be updated; `isOther`: the items are not the ones
   * shown before with more at the end. */
  show(items, isChanged = () => false, isOther = false) {
    const more = items.length - this._length;
    if (more > 0 && !this.following && !isOther) this._unseen += more;
    const inView = isOther && !this.following ? this._rows.keyOf(this._rowInView()) : undefined;
    this._items = items;
    this._length = items.length;
    this._moveWindow(isOther);
    if (isOther) this._startAgain(inView);
    this._draw(isChanged);
  }

  /** Show the first items, and do not follow: for an execution that is over. */
  readFromStart() {
    this.following = false;
    this._isHeld = true;
    this._begin = 0;
    this._end = Math.min(this._items.length, STEP);
    this._startAt(0);
    this._draw();
    this._scroller.scrollTop = 0;
  }

  follow() {
    this.following = true;
    this._isHeld = false;
    this._unseen = 0;
    this._moveWindow();
    this._draw();
  }

  /** Scroll to the row of an item; its node, or null if it is not among the items. */
  reveal(key) {
    const index = this._items.findIndex((item) => item.key === key);
    if (index < 0) return null;
    this.following = false;
    if (index < this._begin || index >= this._end) this._placeAround(index);
    if (index < this._first || index >= this._last) {
      this._startAround(index);
      this._draw();
    }
    const node = this._rows.get(key)?.node ?? null;
    node?.scrollIntoView({ block: "center" });
    return node;
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

  _placeAround(index) {
    this._begin = Math.max(0, index - STEP / 2);
    this._end = Math.min(this._items.length, this._begin + STEP);
  }

  /** The part of the window in the page is to begin at this row, and to grow from there. */
  _startAt(index) {
    this._cancelFrame?.();
    this._cancelFrame = null;
    this._first = index;
    this._last = index;
  }

  /** With some rows above it, so that it can stay where it is. */
  _startAround(index) {
    this._startAt(Math.max(this._begin, index - LEAD));
    this._last = index + 1;
  }

  /** Other items: begin with the row that somebody reads, which stays there, or at the end. */
  _startAgain(inView) {
    if (this.following) return this._startAt(this._end);
    const index = inView === undefined ? -1 : this._items.findIndex((item) => item.key === inView);
    if (index >= 0 && (index < this._begin || index >= this._end)) this._placeAround(index);
    if (index < 0) this._startAt(this._begin);
    else this._startAround(index);
    this._list.style.minHeight = `${this._list.offsetHeight}px`; // or the scroller would move to what is there already
  }

  /** Show the window, or the next slice of it: what is missing comes in the next frames. */
  _draw(isChanged = () => false) {
    if (this._onScreen !== null) return; // it is being printed
    const isSame = this._first === this._begin; // the rows above those in view
    this._cut();
    if (this.following || isSame) this._drawSlice(isChanged);
    else this._keepingScroll(() => this._drawSlice(isChanged));
    if (this.following) this._toEnd();
    this._drawJump();
    if (this._first === this._begin && this._last === this._end) this._list.style.minHeight = "";
    else this._cancelFrame ??= nextFrame(() => this._drawNext());
  }

  _drawNext() {
    this._cancelFrame = null;
    this._draw();
  }

  /** Leave out what is not in the window; far behind its end, begin again there. */
  _cut() {
    const [begin, end] = [this._begin, this._end];
    const isBehind = this.following && end - this._last > STEP;
    if (isBehind || this._last <= begin || this._first >= end) return this._startAt(this.following ? end : begin);
    this._first = Math.max(this._first, begin);
    this._last = Math.min(this._last, end);
  }

  _drawSlice(isChanged) {
    const made = this._cancelFrame === null ? this._grow() : new Set(); // or it is the next frame's to do
    this._rows.show(this._items.slice(this._first, this._last), (item) => !made.has(item) && isChanged(item));
    setAttribute(this._empty, "hidden", this._items.length ? "" : null);
    setAttribute(this._earlier, "hidden", this._begin > 0 ? null : "");
    setAttribute(this._later, "hidden", this._end < this._items.length ? null : "");
  }

  /** Take more of the window into the page, first below, then above; the rows that were made for it. */
  _grow() {
    const made = new Set();
    const until = performance.now() + SLICE_MS;
    const hasTime = () => made.size < MIN_SLICE || (made.size < MAX_SLICE && performance.now() < until);
    const take = (item) => {
      if (this._rows.get(item.key)) return true;
      if (!hasTime()) return false;
      this._rows.make(item);
      made.add(item);
      return true;
    };
    while (this._last < this._end && take(this._items[this._last])) this._last += 1;
    while (this._first > this._begin && take(this._items[this._first - 1])) this._first -= 1;
    return made;
  }

  /** All rows, or the first of very many, and how many more there are. */
  _drawForPaper() {
    if (this.node.hidden) return;
    this._onScreen = [this._begin, this._end, this._scroller.scrollTop];
    this._begin = this._first = 0;
    this._end = this._last = Math.min(this._items.length, MAX_PRINTED);
    this._rows.show(this._items.slice(0, this._end), () => false);
    showRest(this._rest, this._items.length - this._end);
  }

  _drawForScreen() {
    if (!this._onScreen) return;
    const [begin, end, top] = this._onScreen;
    this._onScreen = null;
    showRest(this._rest, 0);
    [this._begin, this._end] = [begin, end];
    if (this.following) this._moveWindow();
    this._draw();
    if (!this.following) this._scroller.scrollTop = top;
  }

  _drawJump() {
    setAttribute(this._jump, "hidden", this.following || !this._isAway() ? "" : null);
    setText(this._jumpText, this._unseen ? `${plural(this._unseen, "new row")} below` : "Jump to latest");
  }

  _isAway() {
    return this._last < this._length || this._distance() > NEAR_END_PX;
  }

  _distance() {
    const { scrollHeight, scrollTop, clientHeight } = this._scroller;
    return scrollHeight - scrollTop - clientHeight;
  }

  _toEnd() {
    this._scroller.scrollTop = this._scroller.scrollHeight;
    this._sizeAtEnd = this._size();
  }

  _size() {
    return `${this._scroller.scrollHeight} ${this._scroller.clientHeight}`;
  }

  /** Scrolling up ends following; scrolling to the end starts it again. */
  _scrolled() {
    if (this.following && this._size() !== this._sizeAtEnd) return this._toEnd(); // the page was laid out anew
    // While it follows, the last rows may still be to come.
    const isAtEnd = (this.following || this._last >= this._length) && this._distance() < NEAR_END_PX;
    if (isAtEnd !== this.following && !this._isHeld) {
      this.following = isAtEnd;
      if (isAtEnd) this._unseen = 0;
    }
    this._drawJump();
    if (this.following) return;
    const { _begin: begin, _end: end } = this; // where rows are missing yet, they come by themselves
    if (begin > 0 && this._first === begin && this._scroller.scrollTop < NEAR_EDGE_PX) this._extendUp();
    else if (end < this._items.length && this._last === end && this._distance() < NEAR_EDGE_PX) this._extendDown();
  }

  _extendUp() {
    this._begin = Math.max(0, this._begin - STEP);
    this._end = Math.min(this._end, this._begin + MAX_ROWS);
    this._draw();
  }

  _extendDown() {
    this._end = Math.min(this._items.length, this._end + STEP);
    this._begin = Math.max(this._begin, this._end - MAX_ROWS);
    this._draw();
  }

  /** The row in view that has the focus, or the first one. */
  _rowInView() {
    const { top, bottom } = this._scroller.getBoundingClientRect();
    const isInView = (row) => row.getBoundingClientRect().bottom > top && row.getBoundingClientRect().top < bottom;
    const rows = [...this._list.children];
    return rows.find((row) => row.contains(document.activeElement) && isInView(row)) ?? rows.find(isInView);
  }

  /** Change the rows above without moving those in view. */
  _keepingScroll(change) {
    const anchor = this._rowInView();
    const before = anchor?.getBoundingClientRect().top;
    change();
    if (anchor?.isConnected) this._scroller.scrollTop += anchor.getBoundingClientRect().top - before;
  }
}

/** On paper: how many rows are left out, if any. */
export function showRest(node, count) {
  node.hidden = count <= 0;
  setText(node, count > 0 ? `… and ${plural(count, "more row")}` : "");
}
