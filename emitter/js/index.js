/** Publish what an agent is doing, from JavaScript and TypeScript. */

/**
 * @typedef {import("./agent-emitter.js").EmitterOptions} EmitterOptions
 * @typedef {import("./inbox.js").UserMessage} UserMessage
 * @typedef {import("./edge.js").TokenFunction} TokenFunction
 * @typedef {import("./event-methods.js").Speaker} Speaker
 * @typedef {import("./event-methods.js").ToolCall} ToolCall
 * @typedef {import("./inputs.js").AskOptions} AskOptions
 * @typedef {import("./inputs.js").InputKind} InputKind
 */
export { AgentEmitter, AgentSSEEmitter } from "./agent-emitter.js";
export {
  Cancelled,
  Conflict,
  Declined,
  EdgeUnavailable,
  EmitterClosed,
  EventsLost,
  ExecutionEnded,
  Forbidden,
  HookFailed,
  InputExpired,
  InvalidEvent,
  PayloadTooLarge,
  QueueFull,
  RuncastError,
  Superseded,
  TooManyInputs,
  Unauthorized,
  UnknownExecution,
} from "./errors.js";
export { newExecutionId } from "./ids.js";
export { VERSION } from "./version.js";
