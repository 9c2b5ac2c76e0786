/**
 * Two transports, `fetch` and `EventSource`: each reads one connection from its opening to its end, and does not
 * reconnect.
 */

/**
 * @import { Frame } from "./parser.js"
 * @import { RuncastClient } from "./api.js"
 */

/**
 * @typedef {object} Opening
 * @property {string} path
 * @property {Record<string, string | null>} query
 * @property {string | null} cursor
 * @property {string | null} token
 * @property {string} [executionId] for the ticket, if one is needed
 * @property {AbortSignal} signal ends the connection; its reason is thrown
 */

/**
 * @typedef {object} Listener
 * @property {() => void} opened the edge has answered
 * @property {() => void} bytes bytes arrived; a heartbeat counts
 * @property {(frame: Frame) => void} frame
 * @property {(id: string) => void} position the cursor moves without an event
 * @property {(milliseconds: number) => void} retry
 */

/**
 * @typedef {"finished" | "closed"} Ending `finished`: 204, no event will ever follow the cursor
 */

/**
 * @typedef {(client: RuncastClient, opening: Opening, listener: Listener) => Promise<Ending>} Transport
 */
import { clientError, errorOf, RuncastError } from "./errors.js";
import { EventStreamParser } from "./parser.js";

const SSE = "text/event-stream";
export const CONTROLS = ["stream:open", "stream:live", "stream:reset", "stream:token_expiring", "stream:end"];
const NAMED = [...CONTROLS, "stream:cursor", "heartbeat", "ops"];

/** With the token in a header, the cursor in `Last-Event-ID`, and heartbeats as comments. @type {Transport} */
export async function readByFetch(client, opening, listener) {
  const response = await openByFetch(client, opening, opening.token);
  if (response === null) return "finished";
  listener.opened();
  const parser = new EventStreamParser({ onEvent: listener.frame, onId: listener.position, onRetry: listener.retry });
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  // A broken body cannot be cancelled; that error is not of interest.
  const leave = () => void reader.cancel().catch(() => undefined);
  opening.signal.addEventListener("abort", leave, { once: true });
  try {
    for (;;) {
      const { done, value } = await reader.read();
      opening.signal.throwIfAborted();
      if (done) return "closed";
      parser.feed(value);
      listener.bytes();
      opening.signal.throwIfAborted(); // a frame may have ended the connection; the next read could wait for ever
    }
  } catch (error) {
    if (opening.signal.aborted) throw opening.signal.reason;
    throw error instanceof RuncastError ? error : clientError("connection-lost", "the connection was lost", error);
  } finally {
    leave();
  }
}

/** The response with an event stream, or null for 204. @param {RuncastClient} client @param {Opening} opening
 * @param {string | null} token */
async function openByFetch(client, { path, query, cursor, signal }, token) {
  const headers = { Accept: SSE, ...(cursor === null ? {} : { "Last-Event-ID": cursor }) };
  const response = await client.send(client.url(path, query), { headers, signal, token });
  if (response.status === 204) return null;
  if (!response.ok) throw await errorOf(response);
  const type = response.headers.get("Content-Type") ?? "";
  if (type.startsWith(SSE) && response.body !== null) return response;
  await response.body?.cancel();
  throw clientError("no-event-stream", `the answer is not an event stream, but ${type || "without a content type"}`);
}

/**
 * With the cookie, or with a ticket if there is a token. The browser's own reconnects have no backoff, and do not
 * happen after an error status: each `EventSource` is used for one connection.
 * @type {Transport}
 */
export async function readByEventSource(client, opening, listener) {
  const { path, query, cursor, token, signal } = opening;
  const ticket = token === null ? null : (await client.ticket(opening.executionId, { signal })).ticket;
  signal.throwIfAborted();
  const more = { named: "false", heartbeat: "event", lastEventId: cursor, ticket };
  const source = new EventSource(client.url(path, { ...query, ...more }), { withCredentials: token === null });
  const isBroken = await followed(source, signal, listener);
  if (isBroken) throw clientError("connection-lost", "the connection was lost");
  // Refused, or 204: `EventSource` does not show the status, so a `fetch` asks for it.
  const response = await openByFetch(client, opening, token);
  if (response === null) return "finished";
  await response.body?.cancel();
  throw clientError("connection-lost", "the connection was lost");
}

/** Resolves when the source has ended: true if its connection was lost, false if it was refused.
 * @param {EventSource} source
 * @param {AbortSignal} signal @param {Listener} listener @returns {Promise<boolean>} */
function followed(source, signal, listener) {
  /** @type {(value: boolean) => void} */
  let over;
  let isOpen = false;
  const ended = new Promise((/** @type {(value: boolean) => void} */ resolve, reject) => {
    over = resolve;
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
  /** @param {MessageEvent<string>} message */
  const take = (message) => {
    try {
      frameOf(message, listener);
      listener.bytes();
    } catch (error) {
      reportError(error);
    }
  };
  source.onopen = () => ((isOpen = true), listener.opened());
  source.onmessage = take;
  for (const name of NAMED) source.addEventListener(name, take);
  source.onerror = () => over(isOpen || source.readyState !== EventSource.CLOSED);
  return ended.finally(() => source.close());
}

/** @param {MessageEvent<string>} message @param {Listener} listener */
function frameOf({ type, data, lastEventId }, listener) {
  if (type === "message" && lastEventId !== "") return listener.frame({ id: lastEventId, event: type, data });
  // The id of an earlier frame, maybe of one without data, which EventSource does not deliver.
  if (lastEventId !== "") listener.position(lastEventId);
  listener.frame({ id: undefined, event: type, data });
}
