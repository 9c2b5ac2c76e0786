/** What readers look for of a run: who, which agent and attempt, how long it waited. Pure. */

import { duration, isOver, moment, whole } from "./format.js";
import { line } from "./text.js";

/** The name in `metadata` under which a run that repeats another has that one's id. */
export const AGAIN = "runAgainOf";
const ID = /^[A-Za-z0-9_-]{1,64}$/;

/** Pairs of a name and a value: a text, `{text, href}` for a link, or null for what is not known. `request`: null
 * without one; `waits`: the waits of the story for a worker, `{from, until}` (null while it waits); `now`: in ms. */
export function runFacts(state, request, waits, now) {
  const { metadata = {} } = request ?? {};
  const again = ID.test(metadata?.[AGAIN]) ? metadata[AGAIN] : null;
  return [
    ["User", request ? userOf(request) : null],
    ["Started by", request ? starterOf(request) : null],
    ["Agent", state.agent ? line(state.agent, 80) : null],
    ["Attempt", state.startedAt || isOver(state.status) ? whole(state.attempt) : null],
    ["Conversation", request?.conversationId ? line(request.conversationId, 64) : null],
    ["Run again of", again ? { text: again, href: `#/x/${again}` } : null],
    ["Queued for", waits.length ? duration(total(waits, now)) || "0 s" : null],
    ["Started", state.startedAt ? moment(state.startedAt) : null],
    ["Ended", state.endedAt ? moment(state.endedAt) : null],
  ];
}

function userOf({ user, org }) {
  return line(org && org !== "default" ? `${user} of ${org}` : user, 120);
}

/** Who or what started it, if it was not its user. */
function starterOf({ by, user, parent, metadata }) {
  if (parent) return { text: line(parent, 64), href: `#/x/${parent}` };
  if (typeof metadata?.schedule === "string") return `schedule ${line(metadata.schedule, 80)}`;
  return by && by !== user ? line(by, 120) : null;
}

/** Seconds. */
function total(waits, now) {
  return waits.reduce((sum, { from, until }) => sum + Math.max(0, (until ?? now) - from), 0) / 1000;
}
