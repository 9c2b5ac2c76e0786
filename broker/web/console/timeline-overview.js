/** The whole run in a strip above the timeline, with the window that is shown: drag to choose another. */

import { h } from "./dom.js";

const HEIGHT = 30;
/** Lanes from top to bottom, and the colours of kinds and states (custom properties of tokens.css). */
const LANES = { attempt: 0, queue: 0, phase: 0, team: 1, child: 1, person: 1, tool: 2, model: 2 };
const LAST_LANE = 3;
/** Kind → the name of a custom property. */
const COLOURS = {
  phase: "--line-strong",
  attempt: "--line",
  queue: "--line-strong",
  person: "--bar-person",
  tool: "--bar-tool",
  team: "--bar-team",
  child: "--bar-team",
  model: "--bar-model",
};

export class Overview {
  constructor(domain, onChange) {
    this._domain = domain;
    this._onChange = onChange;
    this._spans = [];
    this._canvas = h("canvas", { class: "overview-canvas" });
    this._window = h("i", { class: "overview-window", hidden: true });
    this.node = h(
      "div",
      { class: "overview", "aria-hidden": "true", title: "Drag to zoom" },
      this._canvas,
      this._window,
    );
    this.node.addEventListener("pointerdown", (event) => this._begin(event));
    this._sizes = new ResizeObserver(() => this.draw());
    this._sizes.observe(this.node);
    this._theme = matchMedia("(prefers-color-scheme: dark)");
    this._repaint = () => this.draw();
    this._theme.addEventListener("change", this._repaint);
  }

  end() {
    this._sizes.disconnect();
    this._theme.removeEventListener("change", this._repaint);
  }

  show(spans, origin, now) {
    Object.assign(this, { _spans: spans, _origin: origin, _now: now });
    this.draw();
  }

  draw() {
    this._paint();
    const { from, to, total, isZoomed } = this._domain;
    this._window.hidden = !isZoomed;
    this._window.style.setProperty("--from", String((from / total) * 100));
    this._window.style.setProperty("--to", String((to / total) * 100));
  }

  /** Each lane is painted once for every pixel at most. */
  _paint() {
    const width = this.node.clientWidth;
    if (!width) return;
    const scale = devicePixelRatio || 1;
    const context = this._canvas.getContext("2d");
    this._canvas.width = width * scale;
    this._canvas.height = HEIGHT * scale;
    context.scale(scale, scale);
    const per = width / this._domain.total;
    const painted = new Map();
    const lane = HEIGHT / (LAST_LANE + 1);
    for (const span of this._spans) {
      const from = (span.begin - this._origin) * per;
      const to = Math.max(from + 1, ((span.end ?? this._now) - this._origin) * per);
      const isBad = span.status === "error";
      const place = LANES[span.kind] ?? LAST_LANE;
      const key = `${place} ${isBad}`;
      if (!isBad && to <= (painted.get(key) ?? -1)) continue;
      painted.set(key, Math.max(painted.get(key) ?? -1, to));
      context.globalAlpha = span.isVoid ? 0.35 : 1;
      context.fillStyle = this._colour(isBad ? "--red" : (COLOURS[span.kind] ?? "--ink-3"));
      context.fillRect(from, place * lane + 1, to - from, lane - 2);
    }
  }

  /** The colour of a custom property in the theme of now. */
  _colour(name) {
    const theme = `${document.documentElement.dataset.theme} ${this._theme.matches}`;
    if (theme !== this._painted) this._colours = new Map();
    this._painted = theme;
    if (!this._colours.has(name)) {
      this._window.style.color = `var(${name})`;
      this._colours.set(name, getComputedStyle(this._window).color);
    }
    return this._colours.get(name);
  }

  _begin(event) {
    const { left, width } = this.node.getBoundingClientRect();
    const at = ({ clientX }) => (Math.max(0, Math.min(width, clientX - left)) / width) * this._domain.total;
    const first = at(event);
    this.node.setPointerCapture(event.pointerId);
    const move = (moved) => {
      const last = at(moved);
      if (Math.abs(moved.clientX - event.clientX) < 3) return;
      this._domain.set(Math.min(first, last), Math.max(first, last));
      this._onChange();
    };
    const stop = (ended) => {
      this.node.removeEventListener("pointermove", move);
      if (Math.abs(ended.clientX - event.clientX) >= 3) return;
      const span = this._domain.to - this._domain.from;
      if (this._domain.isZoomed) this._domain.set(first - span / 2, first + span / 2);
      this._onChange();
    };
    this.node.addEventListener("pointermove", move);
    this.node.addEventListener("pointerup", stop, { once: true });
    this.node.addEventListener("pointercancel", stop, { once: true });
  }
}
