/** Snapshots of a value that changes often: listeners are called at most once per animation frame. */
import { nextFrame } from "./animation-frame.js";

/** `subscribe` and `getSnapshot` fit `useSyncExternalStore`. @template S */
export class Snapshots {
  #make;
  /** @type {Set<() => void>} */
  #listeners = new Set();
  /** @type {S | undefined} */
  #snapshot;
  #isStale = true;
  /** @type {(() => void) | null} */
  #cancelFrame = null;

  /** @param {() => S} make */
  constructor(make) {
    this.#make = make;
  }

  /** @param {() => void} listener @returns {() => void} ends the subscription */
  subscribe(listener) {
    const each = () => listener(); // one function may subscribe twice
    this.#listeners.add(each);
    return () => {
      this.#listeners.delete(each);
      if (this.#listeners.size === 0) this.#cancel();
    };
  }

  /** The same object until the value changes; with listeners, until they are called. @returns {S} */
  getSnapshot() {
    if (this.#isStale && this.#cancelFrame === null) this.#renew();
    this.#snapshot ??= this.#make(); // before the first frame; listeners are called all the same
    return this.#snapshot;
  }

  changed() {
    this.#isStale = true;
    if (this.#listeners.size === 0 || this.#cancelFrame !== null) return;
    this.#cancelFrame = nextFrame(() => this.#flush());
  }

  #flush() {
    this.#cancelFrame = null;
    if (!this.#isStale) return;
    this.#renew();
    for (const listener of [...this.#listeners]) listener();
  }

  #cancel() {
    this.#cancelFrame?.();
    this.#cancelFrame = null;
  }

  #renew() {
    this.#isStale = false;
    this.#snapshot = this.#make();
  }
}
