/** The worker that all tabs share: the script of a `SharedWorker`. */
import { Hubs } from "./hubs.js";

const hubs = new Hubs();
/** @type {any} */ (globalThis).onconnect = (/** @type {MessageEvent} */ event) => hubs.connect(event.ports[0]);
