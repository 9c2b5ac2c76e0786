/** The axis of the timeline: a window of time, and round times to mark on it. Pure. */

import { duration } from "./format.js";

const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 15e3, 3e4, 6e4, 12e4, 3e5, 6e5, 9e5, 18e5, 36e5];
const LONG_STEPS = [72e5, 108e5, 216e5, 432e5, 864e5, 1728e5, 6048e5];
/** The shortest window, in ms. */
const MIN_MS = 1;

/** A window over `total` ms; without a zoom it is all of them, also while they grow. */
export class TimeWindow {
  constructor() {
    this.total = 1;
    this._zoom = null;
  }

  get isZoomed() {
    return this._zoom !== null;
  }

  get from() {
    return this._zoom?.[0] ?? 0;
  }

  get to() {
    return this._zoom?.[1] ?? this.total;
  }

  /** Show from `from` to `to`, within the whole; the whole of it is no zoom. */
  set(from, to) {
    const span = Math.min(this.total, Math.max(MIN_MS, to - from));
    const begin = Math.max(0, Math.min(from, this.total - span));
    this._zoom = span >= this.total * 0.999 ? null : [begin, begin + span];
  }

  reset() {
    this._zoom = null;
  }

  /** Zoom by a factor (2: twice as close) around a place of the window, 0 to 1. */
  zoom(factor, place = 0.5) {
    const span = this.to - this.from;
    const at = this.from + span * place;
    this.set(at - (span / factor) * place, at + (span / factor) * (1 - place));
  }

  /** Move by a share of the window. */
  pan(share) {
    if (!this.isZoomed) return;
    const by = (this.to - this.from) * share;
    this.set(this.from + by, this.to + by);
  }

  /** A time as a percentage of the window. */
  percent(ms) {
    return ((ms - this.from) / (this.to - this.from)) * 100;
  }

  /** Round times in the window, at most about `most`: `{at, label}`. */
  ticks(most) {
    const span = this.to - this.from;
    const step = [...STEPS, ...LONG_STEPS].find((each) => span / each <= most) ?? LONG_STEPS.at(-1);
    const ticks = [];
    for (let at = Math.ceil(this.from / step) * step; at <= this.to && ticks.length < 100; at += step)
      ticks.push({ at, label: at === 0 ? "0" : tickLabel(at, step) });
    return ticks;
  }
}

/** Exact, as ticks may be closer than `duration` tells apart. */
function tickLabel(ms, step) {
  if (ms < 1000) return `${ms} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(step < 10 ? 3 : step < 100 ? 2 : step < 1000 ? 1 : 0)} s`;
  if (step >= 60_000) return duration(ms / 1000);
  const digits = step < 10 ? 3 : step < 100 ? 2 : step < 1000 ? 1 : 0;
  const [minutes, seconds] = [Math.floor(ms / 60_000), (ms % 60_000) / 1000];
  return `${minutes}:${seconds.toFixed(digits).padStart(digits ? digits + 3 : 2, "0")}`;
}
