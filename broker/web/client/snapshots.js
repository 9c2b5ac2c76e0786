/** What changes often, shown seldom: snapshots that listeners are told of at most once a frame. */
import { nextFrame } from "./frames.js";

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
    const each = () => listener(); // two subscriptions of one function are two
    this.#listeners.add(each);
    return () => {
      this.#listeners.delete(each);
      if (this.#listeners.size === 0) this.#cancel();
    };
  }

  /** The same object until something changed; while there are listeners, until they are told. @returns {S} */
  getSnapshot() {
    if (this.#isStale && this.#cancelFrame === null) this.#renew();
    this.#snapshot ??= this.#make(); // before the first frame; listeners will be told all the same
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
