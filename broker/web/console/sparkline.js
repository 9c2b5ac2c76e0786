/** A small line chart of the last values, in SVG. */

import { setAttribute, svg } from "./dom.js";

const WIDTH = 120;
const HEIGHT = 28;
const SAMPLES = 90;

export class Sparkline {
  constructor() {
    this._values = [];
    this._area = svg("path", { class: "spark-area" });
    this._line = svg("path", { class: "spark-line" });
    this.node = svg(
      "svg",
      {
        class: "spark",
        viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
        preserveAspectRatio: "none",
        "aria-hidden": "true",
        focusable: "false",
      },
      this._area,
      this._line,
    );
  }

  add(value) {
    this._values.push(value);
    if (this._values.length > SAMPLES) this._values.shift();
    this._draw();
  }

  /** Any number of values fills the whole width. */
  _draw() {
    const values = this._values.length > 1 ? this._values : [...this._values, ...this._values];
    const top = Math.max(1e-9, ...values) * 1.1;
    const step = WIDTH / (values.length - 1);
    const points = values.map(
      (value, index) => `${(index * step).toFixed(1)} ${(HEIGHT - 1.5 - (value / top) * (HEIGHT - 4)).toFixed(1)}`,
    );
    const line = `M${points.join("L")}`;
    setAttribute(this._line, "d", line);
    setAttribute(this._area, "d", `${line}L${WIDTH} ${HEIGHT}L0 ${HEIGHT}Z`);
  }
}
