/** The script of the `SharedWorker`: one for all tabs of a browser. */
import { SharedStreams } from "./shared-worker/shared-streams.js";

const streams = new SharedStreams();
/** @type {any} */ (globalThis).onconnect = (/** @type {MessageEvent} */ event) => streams.connect(event.ports[0]);
