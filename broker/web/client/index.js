/** The client of Runcast: executions of agents, live, in a browser or in Node. */
export { RuncastClient } from "./api.js";
export { RuncastError } from "./errors.js";
export { Fold } from "./fold.js";
export { EventStreamParser } from "./parser.js";
export { AgentStream } from "./stream.js";
export { VERSION } from "./version.js";
export { ExecutionWatch } from "./watch.js";

/** @typedef {import("./api.js").ClientOptions} ClientOptions */
/** @typedef {import("./api.js").TokenFunction} TokenFunction */
/** @typedef {import("./events.js").Event} Event */
/** @typedef {import("./events.js").ExecutionState} ExecutionState */
/** @typedef {import("./events.js").StreamControl} StreamControl */
/** @typedef {import("./events.js").StreamEvent} StreamEvent */
/** @typedef {import("./stream.js").Status} Status */
/** @typedef {import("./stream.js").StreamOptions} StreamOptions */
/** @typedef {import("./watch.js").Snapshot} Snapshot */
/** @typedef {import("./watch.js").WatchOptions} WatchOptions */
