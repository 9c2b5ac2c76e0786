/** The connection of a stream in words: for the top bar, the banner, and the details. */

import { h, setAttribute, setText } from "./dom.js";
import { plural, running } from "./format.js";

/** The phase of a stream's status → a word, and a tone. */
const PHASES = {
  idle: ["Idle", "quiet"],
  connecting: ["Connecting", "busy"],
  replaying: ["Catching up", "busy"],
  live: ["Live", "good"],
  waiting: ["Reconnecting", "warn"],
  offline: ["Offline", "warn"],
  ended: ["Complete", "quiet"],
  failed: ["Not connected", "bad"],
  closed: ["Closed", "quiet"],
};

const NO_ANSWER =
  "The edge has not answered yet. Browsers open at most six connections to a host: closing other tabs may help.";

/** `{word, tone}` of a status. A later connection is "reconnecting". */
export function described(status) {
  const [word, tone] = PHASES[status.phase] ?? PHASES.idle;
  if (status.phase === "connecting" && (status.reconnects > 0 || status.lastEventId))
    return { word: "Reconnecting", tone: "warn" };
  return { word, tone };
}

/** A sentence about a problem of the connection; null without one. */
export function trouble(status, now) {
  const { word } = described(status);
  if (status.phase === "failed" && isMissing(status.error)) return "There is no such execution, or it is not yours.";
  if (status.phase === "failed") return `Not connected: ${reason(status.error)}`;
  if (status.phase === "offline") return "This device is offline. The stream resumes when the network is back.";
  if (word === "Connecting" && status.error?.type?.endsWith(":no-answer")) return NO_ANSWER;
  if (word !== "Reconnecting") return null;
  const left = status.retryAt ? Math.max(0, status.retryAt - now) : 0;
  const when = left >= 1000 ? `Trying again in ${running(left)}.` : "Trying again.";
  return `${whatHappened(status)}. ${when} ${resumeWord(status)}`;
}

/** The reason is shown if an edge gave it, or if no edge was ever reached. */
function whatHappened({ error, connectedAt }) {
  const hasReason = error && (error.status > 0 || connectedAt === null);
  return hasReason ? `Not connected: ${reason(error).replace(/\.$/, "")}` : "The connection was lost";
}

function resumeWord({ lastEventId }) {
  if (!lastEventId) return "";
  return `The stream resumes after event ${lastEventId.slice(lastEventId.indexOf("-") + 1)}; no event is lost.`;
}

const reason = (error) => error?.detail || error?.message || "the edge refused the stream";
const isMissing = (error) => error?.status === 404;

/** A sentence about lost history, from the last `stream:reset`; null without one. */
export function losses(resets) {
  const last = resets.at(-1);
  if (!last) return null;
  if (last.lostFrom && last.lostTo) {
    return `Events ${last.lostFrom} to ${last.lostTo} are no longer available: the log was ${last.reason === "trimmed" ? "trimmed" : "changed"}.`;
  }
  if (last.reason === "diverged") return "A failover removed events from the log. The story shows the current log.";
  return "The last event was not in the log. The log was read again from its start.";
}

/** The dot and the word in the top bar. */
export class ConnectionPill {
  constructor() {
    this._dot = h("i", { class: "dot" });
    this._word = h("span", {});
    this.node = h("span", { class: "pill", title: "Connection of the list" }, this._dot, this._word);
  }

  show(status) {
    const { word, tone } = described(status);
    setAttribute(this.node, "data-tone", tone);
    setText(this._word, word);
    const late = status.latencyMs === null ? "" : `, latency ${Math.round(status.latencyMs)} ms`;
    setAttribute(this.node, "title", `Feed: ${word.toLowerCase()}${late}, ${plural(status.reconnects, "reconnect")}`);
  }
}

/** A line above the page while the connection has a problem. It appears with a delay: short interruptions need none. */
export class Banner {
  constructor(announce) {
    this._announce = announce;
    this._since = 0;
    this._text = h("span", {});
    this.node = h("p", { class: "banner", hidden: true }, h("i", { class: "dot" }), this._text);
  }

  show(status, now) {
    const text = trouble(status, now);
    this._since = text ? this._since || now : 0;
    const isLong =
      text !== null && (status.phase === "failed" || status.phase === "offline" || now - this._since > 700);
    if (isLong && this.node.hidden) this._announce(text);
    this.node.hidden = !isLong;
    setAttribute(this.node, "data-tone", status.phase === "failed" ? "bad" : "warn");
    if (isLong) setText(this._text, text);
  }
}
