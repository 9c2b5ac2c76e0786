/** Two runs in pairs of texts, and which pairs differ. Pure. */

import { STATES, duration, label, money, plural, whole } from "./format.js";
import { summary } from "./json-view.js";
import { runFacts } from "./run-facts.js";
import { line, visible } from "./text.js";

const MAX_ROWS = 60;

/**
 * Parts of the comparison: `{title, rows: [{label, values: [one, other], differs}]}`. `sides`: two of `{state, request,
 * waits, spans, now}`.
 */
export function comparison(sides) {
  return [
    { title: "Run", rows: joined(sides.map(about)) },
    { title: "Input", rows: joined(sides.map(inputOf)) },
    { title: "Phases", rows: joined(sides.map((side) => timesOf(side, ["phase"]))) },
    { title: "Tools", rows: joined(sides.map((side) => timesOf(side, ["tool"]))) },
    { title: "Specialists and children", rows: joined(sides.map((side) => timesOf(side, ["team", "child"]))) },
  ].filter(({ rows }) => rows.length);
}

/** Entries `[label, text, ms]` of both, side by side, in the order of the first; `ms` for times. */
function joined(sides) {
  const maps = sides.map((entries) => new Map(entries.map(([name, ...value]) => [name, value])));
  const labels = [...new Set(maps.flatMap((map) => [...map.keys()]))].slice(0, MAX_ROWS);
  const rows = labels.map((name) => {
    const pair = maps.map((map) => map.get(name) ?? [null]);
    return { label: name, values: pair.map(([text]) => text ?? null), differs: differ(...pair) };
  });
  return rows.filter(({ values }) => values.some((value) => value !== null));
}

/** Times differ if one is longer by a quarter: no two runs take the same. */
function differ([text, ms], [otherText, otherMs]) {
  if (ms === undefined || otherMs === undefined) return (text ?? null) !== (otherText ?? null);
  return Math.max(ms, otherMs) > 1.25 * Math.min(ms, otherMs) + 20;
}

function about({ state, request, waits, spans, now }) {
  const facts = Object.fromEntries(runFacts(state, request, waits, now));
  const { usage } = state;
  const calls = spans.filter(({ kind, isVoid }) => kind === "tool" && !isVoid);
  const failed = calls.filter(({ status }) => status === "error").length;
  const questions = spans.filter(({ kind }) => kind === "person").length;
  return [
    ["State", STATES[state.status]],
    ["Task", state.task ? visible(line(state.task, 300)) : null],
    ["Agent", facts.Agent],
    ["Attempt", facts.Attempt],
    [
      "Queued for",
      facts["Queued for"],
      timeOf(
        spans.filter(({ kind }) => kind === "queue"),
        now,
      ),
    ],
    state.startedAt ? timed("Took", "", (state.endedAt ?? now) - state.startedAt) : ["Took", null],
    ["Tool calls", calls.length ? whole(calls.length) + (failed ? `, ${whole(failed)} failed` : "") : null],
    questions ? waited(spans, now, questions) : ["Waits for people", null],
    ["Tokens", usage ? `${whole(usage.inputTokens)} in, ${whole(usage.outputTokens)} out` : null],
    ["Cost", usage?.costUsd === null || usage?.costUsd === undefined ? null : money(usage.costUsd)],
    ["Started", facts.Started, 0],
  ];
}

function waited(spans, now, count) {
  const people = spans.filter(({ kind }) => kind === "person");
  return timed("Waits for people", `${plural(count, "time")}, `, timeOf(people, now));
}

const timed = (name, before, ms) => [name, before + duration(ms / 1000), ms];

function inputOf({ request }) {
  return Object.entries(request?.params ?? {}).map(([name, value]) => [
    visible(line(label(name), 60)),
    typeof value === "object" ? line(JSON.stringify(value), 200) : summary(value, 200),
  ]);
}

/** Name → how often and how long, of the spans of some kinds. */
function timesOf({ spans, now }, kinds) {
  const groups = new Map();
  for (const span of spans) {
    if (!kinds.includes(span.kind) || span.isVoid) continue;
    const name = visible(line(span.label, 80));
    groups.set(name, [...(groups.get(name) ?? []), span]);
  }
  return [...groups].map(([name, found]) =>
    timed(name, found.length > 1 ? `${whole(found.length)} × · ` : "", timeOf(found, now)),
  );
}

/** Milliseconds, all together. */
function timeOf(spans, now) {
  return spans.reduce((sum, { begin, end }) => sum + Math.max(0, (end ?? now) - begin), 0);
}
