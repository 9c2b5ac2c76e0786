/** Why a request to an edge failed, or a stream cannot go on. */
export class RuncastError extends Error {
  /**
   * @param {string} message
   * @param {RuncastErrorFields} [fields]
   */
  constructor(message, fields = {}) {
    super(message, fields.cause === undefined ? undefined : { cause: fields.cause });
    this.name = "RuncastError";
    /** HTTP status; 0 when there was no answer. */
    this.status = fields.status ?? 0;
    /** Kind of the problem, as `urn:runcast:problem:…` of the edge or of this client. */
    this.type = fields.type ?? "about:blank";
    this.title = fields.title ?? message;
    this.detail = fields.detail ?? "";
    /** Under which the edge's log has more, or null. */
    this.requestId = fields.requestId ?? null;
    /** How long the edge asks to wait, or null. */
    this.retryAfterMs = fields.retryAfterMs ?? null;
    /** The answer's members beyond the standard ones are here too. @type {unknown} */
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

/** An error of this client's own making. @param {string} slug @param {string} detail @param {unknown} [cause] */
export function clientError(slug, detail, cause) {
  const title = slug.replaceAll("-", " ");
  return new RuncastError(detail, { type: PREFIX + slug, title, detail, cause });
}

/** What an answer that is no success says (RFC 9457, or whatever a proxy made of it). @param {Response} response */
export async function errorOf(response) {
  const text = await response.text().catch(() => "");
  const requestId = response.headers.get("X-Request-ID") ?? "";
  const wait = retryAfterMs(response.headers.get("Retry-After"), Date.now());
  return problemError(parsed(text), response.status, response.statusText, requestId, wait);
}

/** The error that a problem (RFC 9457) stands for. @param {unknown} body @param {number} status @param {string} reason
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
