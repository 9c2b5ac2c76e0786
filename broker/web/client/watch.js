/**
 * A watched execution: its stream, folded into its state; listeners are called at most once per animation frame.
 */

/**
 * @import { RuncastClient } from "./api.js"
 * @import { Status, StreamOptions } from "./stream.js"
 * @import * as wire from "./events.js"
 */

/**
 * @typedef {Partial<Omit<StreamOptions, "client" | "executionId" | "path" | "types">> & {keepEvents?: number}}
 *   WatchOptions `keepEvents`: how many of the last events a snapshot has
 */

/**
 * @typedef {object} Snapshot
 * @property {wire.ExecutionState | null} state null until the first event
 * @property {Status} status
 * @property {readonly any[]} [events] the last `keepEvents`, if the option is given
 */
import { Fold } from "./fold.js";
import { Snapshots } from "./snapshots.js";
import { AgentStream } from "./stream.js";

export class ExecutionWatch {
  #options;
  #fold;
  /** @type {any[]} */
  #events = [];
  /** @type {Snapshots<Snapshot>} */
  #snapshots = new Snapshots(() => this.#build());

  /** @param {RuncastClient} client @param {string} executionId @param {WatchOptions} [options] */
  constructor(client, executionId, { keepEvents = 0, ...options } = {}) {
    this.executionId = executionId;
    this.keepEvents = keepEvents;
    this.#options = options;
    this.#fold = new Fold(executionId);
    this.stream = new AgentStream({
      ...options,
      client,
      executionId,
      onEvent: (event, size) => this.#event(event, size),
      onControl: (control) => this.#control(control),
      onStatus: (status) => this.#status(status),
    });
  }

  start() {
    this.stream.start();
    return this;
  }

  close() {
    this.stream.close();
  }

  /** Call the listener when the snapshot has changed, until the returned function is called.
   * @param {() => void} listener */
  subscribe(listener) {
    return this.#snapshots.subscribe(listener);
  }

  /** The same object until it changes; with listeners, until they are called. @returns {Snapshot} */
  getSnapshot() {
    return this.#snapshots.getSnapshot();
  }

  /** @param {any} event @param {number} size */
  #event(event, size) {
    this.#fold.apply(event);
    if (this.keepEvents > 0) this.#keep(event);
    this.#snapshots.changed();
    this.#options.onEvent?.(event, size);
  }

  /** @param {any} event */
  #keep(event) {
    this.#events.push(event);
    if (this.#events.length >= 2 * this.keepEvents) this.#events = this.#events.slice(-this.keepEvents);
  }

  /** @param {wire.StreamControl} control */
  #control(control) {
    if (control.type === "stream:reset" && control.data.reason !== "trimmed") {
      this.#fold = new Fold(this.executionId); // another history, from its beginning
      this.#events = [];
      this.#snapshots.changed();
    }
    this.#options.onControl?.(control);
  }

  /** @param {Status} status */
  #status(status) {
    this.#snapshots.changed();
    this.#options.onStatus?.(status);
  }

  /** @returns {Snapshot} */
  #build() {
    const events = this.keepEvents > 0 ? { events: Object.freeze(this.#events.slice(-this.keepEvents)) } : {};
    const state = this.#fold.isEmpty ? null : this.#fold.state();
    return Object.freeze({ state, status: this.stream.status, ...events });
  }
}
