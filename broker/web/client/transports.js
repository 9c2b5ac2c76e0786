/**
 * Two ways to read a stream once, from its opening to its end: `fetch`, and `EventSource`. They do not reconnect.
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
 * @property {string} [executionId] the ticket's, where one is needed
 * @property {AbortSignal} signal its reason is thrown
 */

/**
 * @typedef {object} Listener
 * @property {() => void} opened the edge has answered
 * @property {() => void} bytes something came, be it a heartbeat
 * @property {(frame: Frame) => void} frame
 * @property {(id: string) => void} place the cursor moves without an event
 * @property {(milliseconds: number) => void} retry
 */

/**
 * @typedef {"nothing" | "closed"} Ending `nothing`: 204, nothing will ever follow the cursor
 */

/**
 * @typedef {(client: RuncastClient, opening: Opening, listener: Listener) => Promise<Ending>} Transport
 */
import { clientError, errorOf, RuncastError } from "./errors.js";
import { EventStreamParser } from "./parser.js";

const SSE = "text/event-stream";
export const CONTROLS = ["stream:open", "stream:live", "stream:reset", "stream:token_expiring", "stream:end"];
const NAMED = [...CONTROLS, "stream:cursor", "heartbeat", "ops"];

/** With a token in a header, the cursor in `Last-Event-ID`, and heartbeats as comments. @type {Transport} */
export async function readByFetch(client, opening, listener) {
  const response = await openByFetch(client, opening, opening.token);
  if (response === null) return "nothing";
  listener.opened();
  const parser = new EventStreamParser({ onEvent: listener.frame, onId: listener.place, onRetry: listener.retry });
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  // What broke cannot be cancelled, and need not be.
  const leave = () => void reader.cancel().catch(() => undefined);
  opening.signal.addEventListener("abort", leave, { once: true });
  try {
    for (;;) {
      const { done, value } = await reader.read();
      opening.signal.throwIfAborted();
      if (done) return "closed";
      parser.feed(value);
      listener.bytes();
      opening.signal.throwIfAborted(); // by what was read; the next read might wait for ever
    }
  } catch (error) {
    if (opening.signal.aborted) throw opening.signal.reason;
    throw error instanceof RuncastError ? error : clientError("connection-lost", "the connection broke", error);
  } finally {
    leave();
  }
}

/** The answer with a stream, or null for 204. @param {RuncastClient} client @param {Opening} opening
 * @param {string | null} token */
async function openByFetch(client, { path, query, cursor, signal }, token) {
  const headers = { Accept: SSE, ...(cursor === null ? {} : { "Last-Event-ID": cursor }) };
  const response = await client.send(client.url(path, query), { headers, signal, token });
  if (response.status === 204) return null;
  if (!response.ok) throw await errorOf(response);
  const type = response.headers.get("Content-Type") ?? "";
  if (type.startsWith(SSE) && response.body !== null) return response;
  await response.body?.cancel();
  throw clientError("no-event-stream", `something on the way answered with ${type || "no content type"}`);
}

/**
 * With the cookie, or a ticket where there is a token. The browser would reconnect by itself, but
 * without backoff, and never after an error status: each `EventSource` is used for one connection.
 * @type {Transport}
 */
export async function readByEventSource(client, opening, listener) {
  const { path, query, cursor, token, signal } = opening;
  const ticket = token === null ? null : (await client.ticket(opening.executionId, { signal })).ticket;
  signal.throwIfAborted();
  const more = { named: "false", heartbeat: "event", lastEventId: cursor, ticket };
  const source = new EventSource(client.url(path, { ...query, ...more }), { withCredentials: token === null });
  const isBroken = await followed(source, signal, listener);
  if (isBroken) throw clientError("connection-lost", "the connection broke");
  // Refused, or 204: only a request of our own can see which.
  const response = await openByFetch(client, opening, token);
  if (response === null) return "nothing";
  await response.body?.cancel();
  throw clientError("connection-lost", "the connection broke");
}

/** Resolves when the source is over: whether its connection broke, rather than was refused. @param {EventSource} source
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
  // The id of an earlier frame, perhaps of one without data, which EventSource does not show.
  if (lastEventId !== "") listener.place(lastEventId);
  listener.frame({ id: undefined, event: type, data });
}
