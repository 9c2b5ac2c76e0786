/** The errors of this package. Each carries data; `status` and `type` are the edge's, where the edge refused. */

/**
 * @typedef {object} RefusalFields what an edge said of a request
 * @property {number} [status] of HTTP; 0 without an answer
 * @property {string} [type] `urn:runcast:problem:…`
 * @property {string} [detail]
 * @property {string | null} [requestId] of the request in the edge's log
 * @property {number | null} [retryAfterMs]
 * @property {Record<string, any>} [body] the whole problem
 * @property {unknown} [cause]
 */

const PREFIX = "urn:runcast:problem:";
const MAX_TEXT = 4000;

/** Base of every error that this package raises on purpose. */
export class RuncastError extends Error {
  /** @param {string} message @param {RefusalFields} [fields] */
  constructor(message, fields = {}) {
    super(message, fields.cause === undefined ? undefined : { cause: fields.cause });
    this.name = new.target.name;
    this.status = fields.status ?? 0;
    this.type = fields.type ?? "about:blank";
    this.detail = fields.detail ?? "";
    this.requestId = fields.requestId ?? null;
    this.retryAfterMs = fields.retryAfterMs ?? null;
    this.body = fields.body ?? {};
  }
}

/** 401: the token is not accepted. */
export class Unauthorized extends RuncastError {}

/** 403: the token lacks a scope, or the event is not this caller's to publish. */
export class Forbidden extends RuncastError {}

/** 404: there is no such execution for this user. Its first event must be `execution:started`. */
export class UnknownExecution extends RuncastError {}

/** 409: the log is closed. `state` is completed, failed or cancelled. */
export class ExecutionEnded extends RuncastError {
  get state() {
    return String(this.body.state ?? "ended");
  }
}

/** 409: a newer attempt owns the execution; this one must stop. */
export class Superseded extends RuncastError {
  get attempt() {
    return Number(this.body.attempt ?? 0);
  }
}

/** 409: too many inputs of the execution are open; this one was not opened. */
export class TooManyInputs extends RuncastError {}

/** 409 for any other reason. */
export class Conflict extends RuncastError {}

/** 413: what cannot be cut (a question, for example) is larger than the limit. */
export class PayloadTooLarge extends RuncastError {
  get limit() {
    return Number(this.body.limit ?? 0);
  }
}

/** An event or argument is not valid; `detail` has the path and the reason. */
export class InvalidEvent extends RuncastError {}

/** A hook of the edge failed on an event, which was not stored. */
export class HookFailed extends RuncastError {}

/** Nobody answered the question in time. */
export class InputExpired extends RuncastError {}

/** The person who was asked does not want to answer. */
export class Declined extends RuncastError {}

/** No edge answered within the bound. What is queued is still sent. */
export class EdgeUnavailable extends RuncastError {}

/** The queue was full for too long, or even the line of callers that wait for room was full. The event was dropped. */
export class QueueFull extends RuncastError {}

/** The emitter was closed before. */
export class EmitterClosed extends RuncastError {}

/** Closing could not get `count` queued events into the log. */
export class EventsLost extends RuncastError {
  /** @param {number} count @param {unknown} [cause] */
  constructor(count, cause) {
    super(`${count} events could not be written before closing`, { cause });
    this.count = count;
  }
}

/** The reason of `emitter.signal` after a cancel. Its name is that of aborts, as `fetch` and model SDKs expect it. */
export class Cancelled extends RuncastError {
  /** @param {string | null} [reason] as the person gave it @param {string | null} [by] */
  constructor(reason = null, by = null) {
    super(reason ? `the execution was cancelled: ${reason}` : "the execution was cancelled");
    this.name = "AbortError";
    this.reason = reason;
    this.by = by;
  }
}

/** @type {Record<string, typeof RuncastError>} */
const BY_SLUG = {
  "unknown-execution": UnknownExecution,
  "execution-ended": ExecutionEnded,
  ended: ExecutionEnded,
  superseded: Superseded,
  "too-many-inputs": TooManyInputs,
  "hook-failed": HookFailed,
  malformed: InvalidEvent,
  invalid: InvalidEvent,
};
/** @type {Record<number, typeof RuncastError>} */
const BY_STATUS = {
  400: InvalidEvent,
  401: Unauthorized,
  403: Forbidden,
  404: UnknownExecution,
  409: Conflict,
  413: PayloadTooLarge,
  422: InvalidEvent,
};

/** The error of an unsuccessful answer: a problem (RFC 9457), or any text of a proxy.
 * @param {Response} response @param {string} text its body */
export function errorOf(response, text) {
  const body = asObject(parsed(text));
  const type = typeof body.type === "string" ? body.type : "about:blank";
  const detail = typeof body.detail === "string" ? body.detail : "";
  const title = typeof body.title === "string" ? body.title : `HTTP ${response.status}`;
  const slug = type.startsWith(PREFIX) ? type.slice(PREFIX.length) : "";
  const Kind = BY_SLUG[slug] ?? BY_STATUS[response.status] ?? RuncastError;
  return new Kind(detail || title, {
    status: response.status,
    type,
    detail,
    requestId: typeof body.requestId === "string" ? body.requestId : response.headers.get("X-Request-ID"),
    retryAfterMs: retryAfterMs(response.headers.get("Retry-After"), Date.now()),
    body,
  });
}

/** Whether the same request may succeed later. @param {unknown} error @returns {error is RuncastError} */
export function isTemporary(error) {
  if (error instanceof EdgeUnavailable) return true;
  if (!(error instanceof RuncastError) || error instanceof HookFailed) return false;
  return error.status >= 500 || error.status === 408 || error.status === 425 || error.status === 429;
}

/** RFC 9110, section 10.2.3: seconds, or a date. @param {string | null} text @param {number} now */
export function retryAfterMs(text, now) {
  if (text === null || text.trim() === "") return null;
  if (/^\d{1,9}$/.test(text.trim())) return Number(text) * 1000;
  const date = Date.parse(text);
  return Number.isNaN(date) ? null : Math.max(0, date - now);
}

/** `Type: message` of anything that was thrown, for people to read. @param {unknown} error */
export function describe(error) {
  try {
    if (error instanceof AggregateError && error.errors.length > 0) {
      const more = error.errors.length > 1 ? ` and ${error.errors.length - 1} more` : "";
      return (describeOne(error.errors[0]) + more).slice(0, MAX_TEXT);
    }
    return describeOne(error).slice(0, MAX_TEXT);
  } catch {
    return "an error that cannot be shown";
  }
}

/** @param {unknown} error @returns {string} */
function describeOne(error) {
  if (!(error instanceof Error)) return typeof error === "string" ? error : `thrown: ${String(error)}`;
  const name = error.name || error.constructor.name;
  return error.message ? `${name}: ${error.message}` : name;
}

/** @param {string} text @returns {unknown} */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** @param {unknown} value @returns {Record<string, any>} */
function asObject(value) {
  return typeof value === "object" && value !== null ? value : {};
}
