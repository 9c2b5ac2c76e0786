/** For Node, Deno and Bun: the last word of a process that ends. A library takes over no signal unless it is told to. */
import { pause } from "./backoff.js";

/**
 * @import { AgentEmitter } from "./agent-emitter.js"
 * @import { Worker } from "./worker.js"
 *
 * @typedef {object} ExitOptions
 * @property {readonly string[]} [signals] by default SIGTERM and SIGINT
 * @property {number} [timeoutMs] how long the end of the process waits for the last word
 */

const SIGNALS = ["SIGTERM", "SIGINT"];
const TIMEOUT_MS = 5_000;

/**
 * End the execution with the process: as cancelled by a signal, and as an error when nothing is left to run. After a
 * signal the process ends by that signal, unless the application listens to it as well: then its own listener ends it.
 * Returns a function that takes this back.
 *
 * @param {AgentEmitter} emitter @param {ExitOptions} [options]
 */
export function endOnExit(emitter, { signals = SIGNALS, timeoutMs = TIMEOUT_MS } = {}) {
  /** @type {any} */
  const { process } = globalThis;
  const end = async (/** @type {() => Promise<void>} */ say) => {
    takeBack();
    if (emitter.ended || emitter.error !== null) return;
    const bound = new AbortController();
    const said = say()
      .then(() => emitter.close(timeoutMs))
      .catch(() => {})
      .finally(() => bound.abort());
    await Promise.race([said, pause(timeoutMs, bound.signal)]);
  };
  const onSignal = async (/** @type {string} */ name) => {
    await end(() => emitter.executionCancelled({ reason: `the agent's process was ended by ${name}` }));
    if (process.listenerCount(name) === 0) process.kill(process.pid, name);
  };
  const onDone = () => {
    const error = "the agent's process ended before the execution";
    void end(() => emitter.executionError({ error, code: "process_ended" }));
  };
  const takeBack = () => {
    for (const name of signals) process.off(name, onSignal);
    process.off("beforeExit", onDone);
  };
  for (const name of signals) process.on(name, onSignal);
  process.on("beforeExit", onDone);
  return takeBack;
}

/**
 * Stop a worker when the process is told to end: its jobs finish within the worker's `graceSeconds`, or go to others.
 * `worker.run()` then resolves. A second signal ends the process at once. Returns a function that takes this back.
 *
 * @param {Worker} worker @param {{signals?: readonly string[]}} [options]
 */
export function stopOnSignal(worker, { signals = SIGNALS } = {}) {
  /** @type {any} */
  const { process } = globalThis;
  const stop = () => {
    takeBack();
    void worker.stop();
  };
  const takeBack = () => {
    for (const name of signals) process.off(name, stop);
  };
  for (const name of signals) process.on(name, stop);
  return takeBack;
}
