/**
 * The spans of the timeline, made from the items of the story: who did what when, one row each, in the order in which
 * they began. Pure.
 *
 * A span is `{key, kind, label, who, depth, begin, end, status, isPoint, item, shownAt}`: times in ms; `end` is null
 * while it goes on; `shownAt` is the key of the story's row that has it.
 */

import { textOf } from "./event-handlers.js";

/** Kind of an item → what makes the parts of its span that differ from `plain`. */
const KINDS = {
  phase: (item, story) => ({ label: item.name, end: item.endedAt ?? over(item, story), status: item.status }),
  tool: (item, story) => ({
    label: item.name,
    begin: item.params === undefined && item.duration ? item.endedAt - item.duration * 1000 : item.at,
    end: item.endedAt ?? over(item, story),
    status: item.status,
  }),
  text: (item) => said(item),
  thought: (item) => said(item),
  child: (item, story) => ({
    label: [item.agent ?? item.executionId, item.childKey].filter(Boolean).join(" · "),
    end: item.endedAt ?? over(item, story),
    status: CHILD_STATES[item.endedAt ? item.status : (item.live ?? item.status)] ?? item.status,
    who: null,
  }),
  input: (item, story) => ({
    kind: "person",
    label: item.prompt.slice(0, 200),
    end: item.answer?.at ?? over(item, story),
    status: item.answer ? "complete" : story.endedAt || item.isVoid ? "interrupted" : "waiting",
    who: item.answer?.by ?? null,
  }),
  said: (item, story) => ({
    kind: "person",
    label: item.text ?? textOf(item.value).slice(0, 200),
    end: item.state === "queued" ? (story.endedAt ?? null) : item.until,
    status: item.state === "queued" ? "waiting" : item.state === "taken" ? "complete" : "interrupted",
    who: item.by,
  }),
  note: (item) => ({
    kind: item.seconds === undefined ? "note" : "model",
    label: [item.label, item.title].filter(Boolean).join(": "),
    begin: item.seconds === undefined ? item.at : item.at - item.seconds * 1000,
    isPoint: item.seconds === undefined,
    status: item.tone === "bad" ? "error" : "complete",
  }),
  plan: (item) => ({ label: `Plan: ${item.goal}`.slice(0, 200), isPoint: true }),
  result: () => ({ label: "Partial result", isPoint: true }),
  artifact: (item) => ({ label: textOf(item.name ?? item.artifactId).slice(0, 200), end: item.until }),
  custom: (item) => ({ label: item.name, isPoint: true }),
  end: (item) => ({
    label: { completed: "Completed", failed: "Failed", cancelled: "Cancelled" }[item.state],
    isPoint: true,
    status: item.state === "failed" ? "error" : "complete",
  }),
};

/** What came at once is a moment. */
function said({ text, at, until }) {
  return { label: text.slice(0, 200), end: until, isPoint: until === at };
}

const CHILD_STATES = {
  completed: "complete",
  failed: "error",
  cancelled: "interrupted",
  queued: "running",
  waiting_input: "waiting",
};

/** `passes(item)`: whether the filter lets an item through. */
export function spansOf(story, passes = () => true) {
  const several = story.items.some((item) => item.kind === "attempt");
  const spans = [];
  for (const item of story.items) {
    if (item.kind === "mark" || item.kind === "attempt") spans.push(...ofAttempt(item, story, several));
    else if (passes(item)) add(spans, item, story, Number(several));
  }
  for (const span of spans) if (span.who === story.agent) span.who = null;
  return spans;
}

/** When something ended that its own event has not ended; null while it goes on. */
const over = (item, story) => item.voidedAt ?? story.endedAt ?? null;

function add(spans, item, story, base) {
  const depth = base + Number(item.phase !== null && item.kind !== "phase");
  if (item.kind === "team") return addTeam(spans, item, story, depth);
  spans.push(made(item, story, depth, item.key));
}

function addTeam(spans, team, story, depth) {
  for (const member of team.members.values()) {
    const { name, at, endedAt, status } = member;
    const more = { end: endedAt ?? team.voidedAt ?? null, status: status === "active" ? "running" : status };
    spans.push({
      ...plain(team, depth, team.key),
      key: `${team.key} ${name}`,
      kind: "team",
      label: name,
      begin: at,
      ...more,
    });
    for (const step of member.steps) spans.push(made(step, story, depth + 1, team.key));
  }
}

function made(item, story, depth, shownAt) {
  const span = { ...plain(item, depth, shownAt), ...KINDS[item.kind]?.(item, story) };
  if (span.isPoint) span.end = span.begin;
  if (span.isVoid && span.status === "running") span.status = "interrupted";
  return span;
}

function plain(item, depth, shownAt) {
  return {
    key: item.key,
    kind: item.kind,
    label: item.kind,
    who: item.agent,
    depth,
    begin: item.at,
    end: item.at,
    status: "complete",
    isPoint: false,
    isVoid: item.isVoid,
    item,
    shownAt,
  };
}

/** The wait that begins with an item, and the attempt, where there are several. */
function ofAttempt(item, story, several) {
  const wait = story.waits.find((each) => each.key === item.key);
  if (wait) {
    const status = wait.until === null ? "waiting" : "complete";
    return [{ ...plain(item, 0, item.key), kind: "queue", label: "Queued", end: wait.until, status, isVoid: false }];
  }
  if (!several) return [];
  const lostAt = story.attemptEnds.get(item.attempt);
  const end = lostAt ?? story.endedAt ?? null;
  const status = lostAt !== undefined ? "interrupted" : end === null ? "running" : "complete";
  return [{ ...plain(item, 0, item.key), kind: "attempt", label: `Attempt ${item.attempt}`, end, status }];
}
