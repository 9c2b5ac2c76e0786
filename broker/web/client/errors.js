/** Why a request to an edge or a stream failed. */
export class RuncastError extends Error {
  /**
   * @param {string} message
   * @param {RuncastErrorFields} [fields]
   */
  constructor(message, fields = {}) {
    super(message, fields.cause === undefined ? undefined : { cause: fields.cause });
    this.name = "RuncastError";
    /** HTTP status; 0 without an answer. */
    this.status = fields.status ?? 0;
    /** Type of the problem, `urn:runcast:problem:…`, from the edge or this client. */
    this.type = fields.type ?? "about:blank";
    this.title = fields.title ?? message;
    this.detail = fields.detail ?? "";
    /** The id of the request in the edge's log, or null. */
    this.requestId = fields.requestId ?? null;
    /** The edge's `Retry-After`, or null. */
    this.retryAfterMs = fields.retryAfterMs ?? null;
    /** The whole body of the answer, with members beyond the standard ones. @type {unknown} */
    this.body = fields.body ?? null;
  }
}

/**
 * @typedef {object} RuncastErrorFields
 * @property {number} [status]
 * @property {string} [type]
 * @property {string} [title]
 * @property {string} [detail]
 * @property {string | null} [requestId]
 * @property {number | null} [retryAfterMs]
 * @property {unknown} [body]
 * @property {unknown} [cause]
 */

const PREFIX = "urn:runcast:problem:";

/** An error that the client itself detected. @param {string} slug @param {string} detail @param {unknown} [cause] */
export function clientError(slug, detail, cause) {
  const title = slug.replaceAll("-", " ");
  return new RuncastError(detail, { type: PREFIX + slug, title, detail, cause });
}

/** The error of an unsuccessful answer: a problem (RFC 9457), or any text of a proxy. @param {Response} response */
export async function errorOf(response) {
  const text = await response.text().catch(() => "");
  const requestId = response.headers.get("X-Request-ID") ?? "";
  const wait = retryAfterMs(response.headers.get("Retry-After"), Date.now());
  return problemError(parsed(text), response.status, response.statusText, requestId, wait);
}

/** The error of a problem (RFC 9457). @param {unknown} body @param {number} status @param {string} reason
 * @param {string} requestId @param {number | null} wait */
export function problemError(body, status, reason, requestId, wait) {
  const problem = /** @type {Record<string, unknown>} */ (typeof body === "object" && body !== null ? body : {});
  const title = textOr(problem.title, reason || `HTTP ${status}`);
  const detail = textOr(problem.detail, "");
  return new RuncastError(detail || title, {
    status,
    type: textOr(problem.type, "about:blank"),
    title,
    detail,
    requestId: textOr(problem.requestId, requestId) || null,
    retryAfterMs: wait,
    body,
  });
}

/** RFC 9110, section 10.2.3: seconds, or a date. @param {string | null} text @param {number} now */
export function retryAfterMs(text, now) {
  if (text === null || text.trim() === "") return null;
  if (/^\d{1,9}$/.test(text.trim())) return Number(text) * 1000;
  const date = Date.parse(text);
  return Number.isNaN(date) ? null : Math.max(0, date - now);
}

/** @param {string} text @returns {unknown} */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text.slice(0, 2000) || null;
  }
}

/** @param {unknown} value @param {string} otherwise */
function textOr(value, otherwise) {
  return typeof value === "string" ? value : otherwise;
}
