/**
 * End the execution with the process: as cancelled by a signal, and as an error when nothing is left to run. After a
 * signal the process ends by that signal, unless the application listens to it as well: then its own listener ends it.
 * Returns a function that takes this back.
 *
 * @param {AgentEmitter} emitter @param {ExitOptions} [options]
 */
export function endOnExit(emitter: AgentEmitter, { signals, timeoutMs }?: ExitOptions): () => void;
/**
 * Stop a worker when the process is told to end: its jobs finish within the worker's `graceSeconds`, or go to others.
 * `worker.run()` then resolves. A second signal ends the process at once. Returns a function that takes this back.
 *
 * @param {Worker} worker @param {{signals?: readonly string[]}} [options]
 */
export function stopOnSignal(worker: Worker, { signals }?: {
    signals?: readonly string[];
}): () => void;
export type ExitOptions = {
    /**
     * by default SIGTERM and SIGINT
     */
    signals?: readonly string[] | undefined;
    /**
     * how long the end of the process waits for the last word
     */
    timeoutMs?: number | undefined;
};
import type { AgentEmitter } from "./agent-emitter.js";
import type { Worker } from "./worker.js";
