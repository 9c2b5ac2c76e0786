// The list of executions, and reference-counted sources. Pure: `node --test`.
import assert from "node:assert/strict";
import { test } from "node:test";
import { ExecutionList } from "../../../broker/web/client/execution-list.js";
import { ExecutionFailed, failureOf } from "../../../broker/web/client/outcome.js";
import { RefCounted } from "../../../broker/web/client/ref-count.js";

let ordinal = 0;
const event = (executionId, type, data = {}) => ({ id: `1000-${++ordinal}`, type, executionId, ts: 1, data });
const summary = (executionId, state, createdAt = 1) => ({ executionId, state, createdAt });
const states = (list) => list.items().map(({ executionId, state }) => `${executionId} ${state}`);

function listWith(...summaries) {
  const list = new ExecutionList(3);
  list.replace(summaries);
  return list;
}

test("events move an execution through its states, and its end is final", () => {
  const list = listWith(summary("a", "queued"));
  const steps = [
    ["execution:started", { task: "t", attempt: 1 }, "running"],
    ["input:required", { inputId: "q1" }, "waiting_input"],
    ["input:required", { inputId: "q2" }, "waiting_input"],
    ["input:received", { inputId: "q1" }, "waiting_input"],
    ["input:received", { inputId: "q2" }, "running"],
    ["thinking", { thought: "…" }, "running"],
    ["input:required", { inputId: "q3" }, "waiting_input"],
    ["execution:superseded", { attempt: 2 }, "queued"],
    ["input:received", { inputId: "q3" }, "queued"],
    ["execution:started", { task: "t", attempt: 2 }, "running"],
    ["execution:error", { error: "x" }, "failed"],
    ["execution:started", { task: "t", attempt: 3 }, "failed"],
  ];
  for (const [type, data, state] of steps) {
    list.apply(event("a", type, data));
    assert.deepEqual(states(list), [`a ${state}`], type);
  }
  assert.equal(list.items()[0].attempt, 2);
});

test("progress is the execution's own, and ends with the attempt", () => {
  const list = listWith(summary("a", "running"));
  list.apply(event("a", "phase:start", { phaseId: "p", phaseName: "Look" }));
  list.apply(event("a", "progress", { progress: 10 }));
  list.apply(event("a", "progress", { progress: 90, specialist: "tests", currentAction: "mine" }));
  assert.deepEqual([list.items()[0].progress, list.items()[0].activity], [10, "Look"]);
  list.apply(event("a", "progress", { progress: 20, currentAction: "Reading" }));
  assert.deepEqual([list.items()[0].progress, list.items()[0].activity], [20, "Reading"]);
  list.apply(event("a", "execution:superseded", { attempt: 2 }));
  assert.deepEqual([list.items()[0].progress, list.items()[0].activity], [null, null]);
});

test("the list of the edge replaces the items, and events since its request may be applied again", () => {
  const list = listWith(summary("a", "running"), summary("b", "running"));
  const asked = event("a", "input:required", { inputId: "q1" });
  const ended = event("b", "execution:complete", { result: 1 });
  list.apply(asked);
  list.apply(ended);
  list.replace([summary("a", "waiting_input"), summary("b", "completed")]);
  list.apply(asked);
  list.apply(ended);
  assert.deepEqual(states(list), ["a waiting_input", "b completed"]);
  assert.deepEqual(list.items()[0].openInputs, [{ inputId: "q1" }]);
  list.replace([summary("a", "running"), summary("b", "completed")]);
  assert.deepEqual(list.items()[0].openInputs, [], "it was answered while nobody looked");
});

test("a new execution is listed at once, and the list is read again for the rest of it", () => {
  const list = listWith(summary("a", "running"));
  const queued = event("b", "execution:queued", { task: "t", agent: "x" });
  assert.equal(list.apply(queued), true);
  assert.deepEqual(states(list), ["b queued", "a running"]);
  list.replace([summary("a", "running")]); // read before b began
  assert.equal(list.apply(queued), true, "it is not forgotten");
  list.replace([{ ...summary("b", "queued", 2), metadata: { k: 1 } }, summary("a", "running")]);
  assert.equal(list.apply(event("b", "execution:started", { task: "t", attempt: 1 })), false);
  assert.deepEqual([states(list)[0], list.items()[0].metadata], ["b running", { k: 1 }]);
});

test("the list is read once for an execution that is too old to be in it", () => {
  const list = listWith(summary("a", "running"));
  assert.equal(list.apply(event("old", "thinking")), true);
  list.replace([summary("a", "running")]);
  assert.equal(list.apply(event("old", "thinking")), false);
  assert.deepEqual(states(list), ["a running"]);
});

test("an input that was answered stays answered when a later attempt repeats it", () => {
  const list = listWith();
  const steps = [
    ["execution:queued", { task: "t", agent: "x" }, "queued"],
    ["execution:started", { task: "t", attempt: 1 }, "running"],
    ["input:required", { inputId: "q1" }, "waiting_input"],
    ["input:received", { inputId: "q1" }, "running"],
    ["execution:superseded", { attempt: 2 }, "queued"],
    ["execution:started", { task: "t", attempt: 2 }, "running"],
    ["input:required", { inputId: "q1" }, "running"],
    ["input:required", { inputId: "q2" }, "waiting_input"],
  ];
  for (const [type, data, state] of steps) {
    list.apply(event("a", type, data));
    assert.deepEqual(states(list), [`a ${state}`], type);
  }
  assert.deepEqual(list.items()[0].openInputs, [{ inputId: "q2" }]);
});

test("the list is read again if a later attempt may repeat an input that was answered before", () => {
  const list = listWith({ ...summary("a", "running"), attempt: 2 }, { ...summary("b", "running"), attempt: 1 });
  assert.equal(list.apply(event("a", "input:required", { inputId: "q1" })), true);
  assert.equal(list.apply(event("b", "input:required", { inputId: "q1" })), false);
  list.replace([{ ...summary("a", "running"), attempt: 2 }, summary("b", "waiting_input")]);
  assert.deepEqual(states(list), ["a running", "b waiting_input"]);
});

test("the list is read again after an answer to an unknown input", () => {
  const list = listWith(summary("a", "waiting_input"));
  assert.equal(list.apply(event("a", "input:received", { inputId: "q1" })), true);
});

test("the newest are kept", () => {
  const list = listWith(summary("a", "running", 1), summary("b", "running", 2), summary("c", "running", 3));
  list.apply(event("d", "execution:queued", { task: "t", agent: "x" }));
  assert.deepEqual(states(list), ["d queued", "c running", "b running"]);
});

class Source {
  log = [];
  listeners = new Set();
  start = () => this.log.push("start");
  close = () => this.log.push("close");
  getSnapshot = () => this;
  subscribe(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
}

test("a source is open once per key, from the first subscriber until after the last", async () => {
  const [client, made] = [{}, []];
  const share = (key) => new RefCounted(client, key, () => (made.push(new Source()), made.at(-1)));
  assert.equal(share("k").getSnapshot(), undefined);
  const first = share("k").subscribe(() => {});
  const second = share("k").subscribe(() => {});
  assert.equal(made.length, 1);
  first();
  first();
  await new Promise((resolve) => setTimeout(resolve, 5));
  assert.deepEqual(made[0].log, ["start"], "the second is still there, however often the first says good-bye");
  second();
  const again = share("k").subscribe(() => {});
  await new Promise((resolve) => setTimeout(resolve, 5));
  assert.deepEqual([made.length, made[0].log], [1, ["start"]], "whoever comes back at once finds it open");
  again();
  await new Promise((resolve) => setTimeout(resolve, 5));
  assert.deepEqual([made[0].log, made[0].listeners.size], [["start", "close"], 0]);
  assert.equal(share("k").getSnapshot(), undefined);
  share("k").subscribe(() => {});
  new RefCounted({}, "k", () => (made.push(new Source()), made.at(-1))).subscribe(() => {});
  assert.equal(made.length, 3, "another client shares nothing");
});

test("an exception of one reader does not keep an event from the others", (context) => {
  const reports = [];
  context.mock.method(globalThis, "queueMicrotask", (report) => reports.push(report));
  let tell;
  const shared = new RefCounted({}, "k", (onEvent) => ((tell = onEvent), new Source()));
  const heard = [];
  const raise = () => {
    throw new Error("mine");
  };
  shared.subscribe(() => {}, raise);
  shared.subscribe(
    () => {},
    (event) => heard.push(event),
  );
  tell("e1");
  assert.deepEqual(heard, ["e1"]);
  assert.throws(reports[0], /mine/);
});

test("a failure is always the same error; an error after which a stream reconnects is none", () => {
  const state = { executionId: "a", error: { error: "broken", code: "agent_error" } };
  const status = { phase: "ended", error: null };
  const failed = failureOf(status, state);
  assert.ok(failed instanceof ExecutionFailed);
  assert.deepEqual([failed.message, failed.code, failed.executionId], ["broken", "agent_error", "a"]);
  assert.equal(failureOf(status, { ...state }), failed);
  const error = new Error("cut");
  assert.equal(failureOf({ phase: "waiting", error }, null), null);
  assert.equal(failureOf({ phase: "failed", error }, state), error);
});
