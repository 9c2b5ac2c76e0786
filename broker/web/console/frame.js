/** When things are drawn: once a frame, and the clock of what is running once a second. */

/** A function that has `draw` called once in the next frame, however often it is called before. */
export function perFrame(draw) {
  let pending = 0;
  const request = () => {
    pending ||= requestAnimationFrame(() => {
      pending = 0;
      draw();
    });
  };
  request.cancel = () => {
    cancelAnimationFrame(pending);
    pending = 0;
  };
  return request;
}

/** Calls its listeners once a second, with the time, as long as it has any and the page is seen. */
export class Ticker {
  constructor() {
    this._listeners = new Set();
    this._timer = 0;
  }

  /** Returns the function that ends it. */
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

/** The emitter's clock, as far as it can be told from here: events cannot come from the future. */
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
