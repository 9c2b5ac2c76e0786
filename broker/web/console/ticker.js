/** The tick of running times, once a second, and the clock that they are measured by. */

/** Calls its listeners once a second, with the time, while the page is visible. */
export class Ticker {
  constructor() {
    this._listeners = new Set();
    this._timer = 0;
  }

  /** Returns the function that removes the listener. */
  add(listener) {
    this._listeners.add(listener);
    this._timer ||= setInterval(() => this._tick(), 1000);
    return () => {
      this._listeners.delete(listener);
      if (this._listeners.size) return;
      clearInterval(this._timer);
      this._timer = 0;
    };
  }

  _tick() {
    if (document.hidden) return;
    const now = Date.now();
    for (const listener of this._listeners) listener(now);
  }
}

/** The emitter's clock, estimated: events cannot come from the future. */
export class Clock {
  constructor() {
    this._ahead = 0;
  }

  observe(ts) {
    this._ahead = Math.max(this._ahead, ts - Date.now());
  }

  now() {
    return Date.now() + this._ahead;
  }
}
