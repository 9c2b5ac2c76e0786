/**
 * The watchdog of one open connection: reports when it is silent for too long, when the machine slept, and when the
 * network is gone.
 *
 * Silence is measured by the wall clock too: while a laptop sleeps, no other clock advances.
 */
import { since, stamp } from "./clock.js";

const TICK_MS = 1_000;
/** A tick that is this late means that the machine slept, or that the browser throttles the page's timers. */
const JUMP_MS = 5_000;
const SILENT_HEARTBEATS = 2.5;
const SILENT_HEARTBEATS_AFTER_SLEEP = 1.25;
/** How long an edge may take to answer, until `stream:open` has given the interval of its heartbeats. */
const OPENING_MS = 20_000;

/** @typedef {"silence" | "sleep" | "offline"} Stall why a connection is taken for dead */

/** Runs from its creation until `stop` or its report: it calls `onStall` at most once. */
export class Watchdog {
  #onStall;
  #heartbeatMs = 0;
  #received = stamp();
  #ticked = stamp();
  #timer;

  /** @param {(stall: Stall) => void} onStall */
  constructor(onStall) {
    this.#onStall = onStall;
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
    globalThis.addEventListener?.("offline", this.#offline);
  }

  /** @param {number} milliseconds between heartbeats, from `stream:open` */
  set heartbeatMs(milliseconds) {
    this.#heartbeatMs = milliseconds;
  }

  /** Bytes arrived. */
  received() {
    this.#received = stamp();
  }

  stop() {
    clearInterval(this.#timer);
    globalThis.removeEventListener?.("offline", this.#offline);
  }

  #offline = () => this.#report("offline");

  #tick() {
    const jumped = since(this.#ticked) > TICK_MS + JUMP_MS;
    this.#ticked = stamp();
    const silent = since(this.#received);
    if (jumped && silent > SILENT_HEARTBEATS_AFTER_SLEEP * this.#heartbeatMs) this.#report("sleep");
    else if (silent > (this.#heartbeatMs === 0 ? OPENING_MS : SILENT_HEARTBEATS * this.#heartbeatMs))
      this.#report("silence");
  }

  /** @param {Stall} stall */
  #report(stall) {
    this.stop();
    this.#onStall(stall);
  }
}
