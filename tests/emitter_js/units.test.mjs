// The parts of @runcast/emitter: `node --test units.test.mjs`.
import assert from "node:assert/strict";
import { test } from "node:test";
import { AgentEmitter, Cancelled, EdgeUnavailable, ExecutionEnded, newExecutionId } from "../../emitter/js/index.js";
import { backoffMs } from "../../emitter/js/backoff.js";
import { mended, misfit, shorter } from "../../emitter/js/catalogue.js";
import { describe, errorOf, isTemporary, retryAfterMs } from "../../emitter/js/errors.js";
import { cutText } from "../../emitter/js/event-methods.js";
import { Halves } from "../../emitter/js/halves.js";
import { Outbox } from "../../emitter/js/outbox.js";
import { EventQueue, MERGED_BYTES } from "../../emitter/js/queue.js";
import { HELD_BYTES, Sent } from "../../emitter/js/sent.js";
import { FrameParser } from "../../emitter/js/sse.js";
import { asciiBytes, clip, storable } from "../../emitter/js/storable.js";
import { plus, usageOf } from "../../emitter/js/usage.js";
import { createWorker } from "../../emitter/js/worker.js";

const chunk = (delta, messageId = "m", agent) => ({ type: "message:delta", ts: 1, agent, data: { messageId, delta } });
const event = (name) => ({ spoken: { type: name, ts: 1, data: {} }, line: JSON.stringify({ type: name }), size: 20 });
const bodies = (batch) => batch.body.split("\n").map((line) => JSON.parse(line));

test("a value that throws everywhere has a form", () => {
  const hostile = new Proxy(
    {},
    {
      get() {
        throw new Error("no");
      },
      ownKeys() {
        throw new Error("no");
      },
      getPrototypeOf() {
        throw new Error("no");
      },
    },
  );
  assert.equal(storable(hostile), "<object>");
  assert.deepEqual({ ...storable({ toJSON: () => ({ a: 1 }) }) }, { a: 1 });
  assert.equal(
    storable({
      toJSON() {
        throw new Error("no");
      },
    }),
    "<object>",
  );
  const endless = { toJSON: () => endless };
  assert.ok(JSON.stringify(storable(endless)).includes("cycle"));
  assert.equal(storable(Symbol("s")), "<symbol>");
  assert.equal(storable(Promise.resolve(1)), "<Promise>");
  assert.equal(storable(new Date(NaN)), null);
});

test("a value is bounded in number and depth, in time that is bounded by it", () => {
  const wide = { a: 1 };
  for (let level = 0; level < 40; level += 1)
    wide[level] = wide.a === 1 && level === 0 ? {} : [wide[level - 1], wide[level - 1]];
  const began = performance.now();
  assert.ok(JSON.stringify(storable(wide)).length < 2_000_000);
  assert.ok(performance.now() - began < 3000);
  assert.deepEqual(storable(Array(30_000).fill(1)).at(-1), { clipped: true, items: 30_000 });
});

test("a cut value fits, and says how much there was", () => {
  for (const value of [
    "x".repeat(999),
    "ä".repeat(999),
    "😀".repeat(500),
    { a: "x".repeat(999), b: 1 },
    Array(999).fill("é"),
    { a: Array(99).fill({ b: "c".repeat(99) }) },
  ]) {
    for (const room of [60, 100, 333, 900]) {
      const cut = clip(value, room);
      assert.ok(asciiBytes(cut) <= room, `${asciiBytes(cut)} > ${room}`);
      assert.match(JSON.stringify(cut), /clipped/);
    }
    assert.equal(clip(value, 1e6), value);
  }
  assert.match(clip(clip("x".repeat(5000), 900), 100), /\[clipped: 5000 characters\]$/);
});

test("mended data is what the catalogue allows", () => {
  for (const value of [undefined, null, 1, "x", [], {}, NaN, { status: 1, message: { a: 1 } }, new Map()]) {
    for (const type of [
      "status",
      "progress",
      "plan:created",
      "usage",
      "tool:start",
      "timeout",
      "synthesis",
      "execution:complete",
      "message:complete",
      "custom:a",
    ]) {
      const made = mended(type, value);
      assert.equal(misfit(made.type, made.data), null, `${type} of ${String(value)}`);
    }
  }
  assert.match(misfit("progress", { progress: 101 }), /\$\.progress/);
  assert.match(misfit("status", { status: "s", message: "m", extra: 1 }), /\$\.extra/);
  assert.match(misfit("execution:queued", {}), /cannot|not an event/);
  assert.equal(misfit("status", shorter("status", { status: "s", message: "m".repeat(999) }, 100)), null);
});

test("adjacent chunks of one text merge, up to a size", () => {
  const queue = new EventQueue(100, 1e6);
  queue.putChunk(chunk("a"), 1);
  queue.putChunk(chunk("b"), 1);
  queue.put(event("status"));
  queue.putChunk(chunk("c"), 1);
  queue.putChunk(chunk("d", "other"), 1);
  queue.putChunk(chunk("e", "other", "agent"), 1);
  const batch = queue.take(100, 1e6);
  assert.deepEqual(
    bodies(batch).map(({ type, data }) => data?.delta ?? type),
    ["ab", "status", "c", "d", "e"],
  );
  queue.putChunk(chunk("x".repeat(MERGED_BYTES)), MERGED_BYTES);
  queue.putChunk(chunk("y"), 1);
  assert.equal(queue.length, 7);
});

test("a chunk that is on its way grows no more", () => {
  const queue = new EventQueue(100, 1e6);
  queue.putChunk(chunk("a"), 1);
  const batch = queue.take(100, 1e6);
  queue.putChunk(chunk("b"), 1);
  assert.deepEqual(
    bodies(batch).map(({ data }) => data.delta),
    ["a"],
  );
  assert.equal(batch.first, 1);
  queue.done(batch);
  const next = queue.take(100, 1e6);
  assert.equal(next.first, 2);
  queue.done(next);
  assert.equal(queue.size, 0);
  assert.equal(queue.settled, 2);
});

test("an event that may be refused is a batch of its own", () => {
  const queue = new EventQueue(100, 1e6);
  queue.put(event("a"));
  queue.put({ ...event("b"), isAlone: true });
  queue.put(event("c"));
  const types = [];
  while (queue.waits) {
    const batch = queue.take(100, 1e6);
    types.push(bodies(batch).map(({ type }) => type));
    queue.done(batch);
  }
  assert.deepEqual(types, [["a"], ["b"], ["c"]]);
});

test("a batch is bounded in events and bytes", () => {
  const queue = new EventQueue(100, 1e6);
  for (let number = 0; number < 10; number += 1) queue.put(event("e"));
  const first = queue.take(3, 1e6);
  assert.equal(first.items.length, 3);
  queue.done(first);
  assert.equal(queue.take(100, 45).items.length, 2);
});

test("half a character waits for its other half", () => {
  const halves = new Halves();
  assert.equal(halves.join("message:delta", "m", "a\ud83d"), "a");
  assert.equal(halves.join("message:delta", "n", "b"), "b");
  assert.equal(halves.join("message:delta", "m", "\ude00"), "\u{1f600}");
  assert.equal(halves.join("message:delta", "m", "\ud83d"), "");
  assert.deepEqual(
    halves.release().map(({ data }) => data.delta),
    ["\ufffd"],
  );
  assert.deepEqual(halves.release(), []);
});

test("a text is not cut within a character", () => {
  const parts = [...cutText("a😀b😀", 2)];
  assert.equal(parts.join(""), "a😀b😀");
  for (const part of parts) assert.ok(part.isWellFormed?.() ?? true);
});

test("frames come in pieces of any size", () => {
  const text = 'retry: 5\n: hb\n\nid: 1-1\nevent: a\ndata: {"x":\n\ndata: é\ndata: 2\n\nid: 1-2\n\n';
  const bytes = new TextEncoder().encode(text);
  for (const size of [1, 2, 3, 7, 1000]) {
    const parser = new FrameParser();
    const frames = [];
    for (let at = 0; at < bytes.length; at += size) frames.push(...parser.feed(bytes.subarray(at, at + size)));
    assert.deepEqual(frames, [
      { id: "1-1", event: "a", data: '{"x":' },
      { id: undefined, event: "message", data: "é\n2" },
      { id: "1-2", event: "message", data: "" },
    ]);
    assert.equal(parser.retryMs, 5);
  }
});

test("usage as several APIs report it", () => {
  assert.deepEqual(usageOf({ prompt_tokens: 1, completion_tokens: 2, total_tokens: 3 }), {
    inputTokens: 1,
    outputTokens: 2,
    totalTokens: 3,
  });
  assert.deepEqual(usageOf({ input_tokens: 1, output_tokens: 2, cache_read_input_tokens: 4 }), {
    inputTokens: 5,
    outputTokens: 2,
    totalTokens: 7,
  });
  assert.deepEqual(usageOf({ inputTokens: { total: 1 }, outputTokens: undefined, model: "m" }), {
    inputTokens: 1,
    outputTokens: 0,
    totalTokens: 1,
    model: "m",
  });
  assert.deepEqual(usageOf("x"), { inputTokens: 0, outputTokens: 0, totalTokens: 0 });
  assert.equal(plus(usageOf({ costUsd: 0.1 }), usageOf(null)).costUsd, 0.1);
});

test("errors are told in one line", () => {
  assert.equal(describe(new RangeError("no")), "RangeError: no");
  assert.equal(describe(new AggregateError([new Error("a"), new Error("b")])), "Error: a and 1 more");
  assert.equal(describe("text"), "text");
  assert.equal(
    describe({
      toString() {
        throw new Error("x");
      },
    }),
    "an error that cannot be shown",
  );
  assert.equal(new Cancelled("why").name, "AbortError");
  assert.ok(isTemporary(new EdgeUnavailable("x")) && !isTemporary(new ExecutionEnded("x", { status: 409 })));
});

test("waits are bounded", () => {
  assert.equal(retryAfterMs("2", 0), 2000);
  assert.equal(retryAfterMs("Thu, 01 Jan 1970 00:00:03 GMT", 1000), 2000);
  assert.equal(retryAfterMs("soon", 0), null);
  for (let failures = 0; failures < 99; failures += 1) {
    const wait = backoffMs(failures, 100, 5000);
    assert.ok(wait >= 50 && wait <= 5000);
  }
});

test("wrong options are refused at once", () => {
  assert.throws(() => new AgentEmitter({ token: "t" }), TypeError);
  assert.throws(() => new AgentEmitter({ url: "localhost:8080", token: "t" }), TypeError);
  assert.throws(() => new AgentEmitter({ url: "http://x" }), TypeError);
  assert.throws(() => new AgentEmitter({ url: "http://x", token: "t", executionId: "a/b" }), /executionId/);
  assert.match(newExecutionId(), /^ex_[0-9a-z]{26}$/);
});

test("the token is renewed once for all who need it", async () => {
  const asked = [];
  const used = [];
  const fetch = async (url, { headers }) => {
    used.push(headers.Authorization);
    if (headers.Authorization !== "Bearer new")
      return Response.json({ type: "urn:runcast:problem:unauthorized" }, { status: 401 });
    return Response.json({ executionId: "e", cursor: "1-1", appended: 1 }, { status: 202 });
  };
  const token = ({ refresh }) => (asked.push(refresh), refresh ? "new" : "old");
  const emitter = new AgentEmitter({ url: "http://x/", token, fetch, userId: "u", org: "o", renewSeconds: 0 });
  await emitter.executionStarted({ task: "t" });
  await emitter.executionComplete({ result: 1 });
  assert.deepEqual(used.slice(0, 2), ["Bearer old", "Bearer new"]);
  assert.equal(asked.filter(Boolean).length, used.filter((each) => each === "Bearer old").length);
});

/** An edge that knows what the log has, and may forget of it. */
function logged() {
  const state = { log: [], known: new Map(), forgotten: false, refused: "" };
  const edge = {
    async request(_method, _path, { body, headers }) {
      const lines = body.split("\n").map((line) => JSON.parse(line).data.message);
      const first = Number(headers["Producer-Seq"]);
      const reached = state.known.get(headers["Producer-Id"]) ?? 0;
      const problem = (slug, more) => {
        const text = JSON.stringify({ type: `urn:runcast:problem:${slug}`, detail: slug, ...more });
        return errorOf(new Response(text, { status: 409 }), text);
      };
      if (first > reached + 1) throw problem("producer-gap", { expected: reached + 1, forgotten: state.forgotten });
      if (lines.includes(state.refused)) throw problem("already-answered");
      state.log.push(...lines.slice(Math.max(0, reached + 1 - first)));
      state.known.set(headers["Producer-Id"], Math.max(reached, first + lines.length - 1));
    },
  };
  const outbox = new Outbox(edge, "ex_1", {}, {});
  const say = async (message, { isAlone = false, size = 200 } = {}) => {
    const spoken = { type: "status", ts: 1, data: { message } };
    const settled = isAlone ? () => {} : undefined;
    await outbox.put({ spoken, line: JSON.stringify(spoken), size, isAlone, settled });
    await outbox.flush(5000);
  };
  /** What was said since then is lost. */
  const lose = (count) => {
    state.log.length -= count;
    for (const [name, number] of state.known) state.known.set(name, number - count);
  };
  return { state, say, lose };
}

test("what a failover has lost is sent again", async () => {
  const { state, say, lose } = logged();
  for (const message of "abcd") await say(message);
  lose(3);
  await say("e");
  lose(2);
  lose(1);
  await say("f");
  assert.equal(state.log.join(""), "abcdef");
});

test("numbers go on without what is lost and no longer held", async () => {
  const { state, say, lose } = logged();
  await say("a");
  await say("b", { size: HELD_BYTES });
  await say("c");
  lose(3);
  await say("d");
  await say("e");
  assert.equal(state.log.join(""), "cde");
});

test("a producer that the record has forgotten sends nothing twice", async () => {
  const { state, say, lose } = logged();
  for (const message of "abc") await say(message);
  state.known.clear();
  state.forgotten = true;
  await say("d");
  await say("e");
  assert.equal(state.log.join(""), "abcde");
  lose(1);
  state.forgotten = false;
  await say("f");
  assert.equal(state.log.join(""), "abcdef");
});

test("what the log refuses the second time ends nothing", async () => {
  const { state, say, lose } = logged();
  for (const message of "abcd") await say(message, { isAlone: true });
  lose(3);
  state.refused = "c";
  await say("e", { isAlone: true });
  assert.equal(state.log.join(""), "abde");
  await say("f");
  assert.equal(state.log.join(""), "abdef");
});

test("no more is held than fits", () => {
  const sent = new Sent();
  const batch = (first) => ({ first, items: [{}], body: "", size: HELD_BYTES / 4 });
  for (let first = 1; first < 20; first += 1) sent.add(batch(first), 0);
  assert.deepEqual(sent.takeAfter(17).map(({ first }) => first), [18, 19]);
  assert.deepEqual(sent.takeAfter(0).map(({ first }) => first), [16, 17]);
  sent.add(batch(20), 0);
  sent.add(batch(21), 90_000);
  assert.deepEqual(sent.takeAfter(0).map(({ first }) => first), [21]);
});

test("messages are taken once, also after a lost answer", async () => {
  const taken = [];
  const fetch = async (url, { body }) => {
    if (!url.endsWith("/messages/take"))
      return Response.json({ executionId: "e", cursor: "1-1", appended: 1 }, { status: 202 });
    taken.push(JSON.parse(body).takeId);
    if (taken.length === 1) throw new TypeError("fetch failed");
    if (taken.length > 3)
      return Response.json({ type: "urn:runcast:problem:ended", state: "completed" }, { status: 409 });
    return Response.json({
      executionId: "e",
      messages: [{ messageId: String(taken.length), text: "t", by: "u", mode: "queue", sentAt: 1 }],
    });
  };
  const emitter = new AgentEmitter({ url: "http://x", token: "t", fetch, renewSeconds: 0 });
  await emitter.executionStarted({ task: "t" });
  const heard = [];
  for await (const { messageId } of emitter.messages()) heard.push(messageId);
  assert.deepEqual(heard, ["2", "3"]);
  assert.equal(taken[0], taken[1]);
  assert.equal(new Set(taken).size, 3);
  await emitter.close();
});

test("a worker has no more jobs than it can renew", async () => {
  const told = [];
  let made = 0;
  const fetch = async (url, { body, signal }) => {
    const json = (value) => new Response(JSON.stringify(value), { status: 200 });
    if (url.endsWith("/events")) return json({ executionId: "x", cursor: "1-1", appended: 1 });
    if (url.endsWith("/release")) return json({ jobs: [] });
    const asked = JSON.parse(body);
    if (url.endsWith("/claim")) {
      told.push(asked.running.length);
      const jobs = Array.from({ length: asked.max }, () => ({ executionId: `ex_${++made}`, attempt: 1, agent: "a" }));
      return json({ jobs: jobs.map((job) => ({ ...job, fence: "f", task: "t", leaseSeconds: 15 })) });
    }
    told.push(asked.jobs.length);
    return new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  };
  const agents = { a: ({ signal }) => new Promise((_, reject) => signal.addEventListener("abort", reject)) };
  const worker = createWorker({ url: "http://x", token: "t", fetch, agents, concurrency: 5000 });
  const running = worker.run().catch(() => {});
  while (made < 1000) await new Promise((resolve) => setTimeout(resolve, 20));
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.deepEqual([made, worker.running, Math.max(...told) <= 1000], [1000, 1000, true]);
  await worker.stop({ graceSeconds: 0 });
  await running;
});
