/** The parts of the client that need no edge. Run by tests/web/test_client_units.py. */
import assert from "node:assert/strict";
import http from "node:http";
import { after, afterEach, before, beforeEach, describe, mock, test } from "node:test";

const CLIENT = "../../../broker/web/client/";
const { backoffMs, CAP_MS } = await import(CLIENT + "backoff.js");
const { pause } = await import(CLIENT + "clock.js");
const { Sequence } = await import(CLIENT + "cursor.js");
const { retryAfterMs } = await import(CLIENT + "errors.js");
const { RecentEvents } = await import(CLIENT + "shared-worker/recent-events.js");
const { identityOf } = await import(CLIENT + "shared-worker/shared-connection.js");
const { SharedStreams } = await import(CLIENT + "shared-worker/shared-streams.js");
const { Watchdog } = await import(CLIENT + "watchdog.js");
const { RuncastClient } = await import(CLIENT + "index.js");

describe("Sequence", () => {
  const from = (options) => new Sequence({ cursor: null, isFiltered: false, isFromNow: false, ...options });

  test("takes a log's events once and in order, and sees what is missing", () => {
    const sequence = from({});
    assert.equal(sequence.take("10-2"), "gap");
    assert.equal(sequence.take("10-1"), "next");
    assert.equal(sequence.take("10-1"), "known");
    assert.equal(sequence.take("12-3"), "gap");
    assert.equal(sequence.cursor, "10-1");
    assert.equal(sequence.take("12-2"), "next");
    assert.equal(sequence.cursor, "12-2");
  });

  test("resumes after a cursor", () => {
    const sequence = from({ cursor: "10-7" });
    assert.equal(sequence.take("10-7"), "known");
    assert.equal(sequence.take("11-8"), "next");
  });

  test("starts anywhere with `from: now`, and is dense from there", () => {
    const sequence = from({ isFromNow: true });
    sequence.moveTo("5-40");
    assert.equal(sequence.cursor, "5-40");
    assert.equal(sequence.take("6-42"), "gap");
    assert.equal(sequence.take("6-41"), "next");
  });

  test("accepts gaps only with a filter", () => {
    const sequence = from({ isFiltered: true });
    assert.equal(sequence.take("10-4"), "next");
    sequence.moveTo("11-9");
    assert.equal(sequence.cursor, "11-9");
    assert.equal(sequence.take("11-8"), "known");
    assert.equal(sequence.take("12-15"), "next");
    sequence.moveTo("11-9");
    assert.equal(sequence.cursor, "12-15");
  });

  test("accepts gaps before a delta of a compact replay, and before nothing else", () => {
    const sequence = from({ isCompact: true });
    assert.equal(sequence.take("10-4", "message:delta"), "next");
    assert.equal(sequence.take("10-3", "message:delta"), "known");
    assert.equal(sequence.take("10-6", "tool:start"), "gap");
    assert.equal(sequence.take("10-5", "tool:start"), "next");
    assert.equal(sequence.take("11-9", "thinking:delta"), "next");
    assert.equal(sequence.take("12-11", "message:delta", true), "gap", "live");
    assert.equal(sequence.take("12-10", "message:delta", true), "next");
    assert.equal(from({}).take("10-4", "message:delta"), "gap", "not compact");
  });

  test("jumps once after a reset, and never back in the same history", () => {
    const sequence = from({ cursor: "10-4" });
    sequence.reset("trimmed");
    assert.equal(sequence.take("10-3"), "known");
    assert.equal(sequence.take("20-9"), "next");
    assert.equal(sequence.take("20-11"), "gap");
    sequence.reset("diverged");
    assert.equal(sequence.cursor, "20-9");
    assert.equal(sequence.take("15-1"), "next");
    assert.equal(sequence.take("15-2"), "next");
  });

  test("does not trust a cursor that is not an id", () => {
    const sequence = from({ cursor: "rubbish" });
    assert.equal(sequence.take("10-3"), "next");
    assert.equal(sequence.take("10-5"), "gap");
  });
});

describe("waiting", () => {
  test("the backoff doubles, up to a limit, and any time up to it may be chosen", () => {
    const most = (failures) => backoffMs(failures, 1000, () => 1);
    assert.deepEqual([0, 1, 2, 5, 500].map(most), [1000, 2000, 4000, CAP_MS, CAP_MS]);
    assert.equal(backoffMs(3, 1000, () => 0), 0);
  });

  test("Retry-After is seconds or a date", () => {
    const now = Date.UTC(2026, 0, 1);
    assert.equal(retryAfterMs("7", now), 7000);
    assert.equal(retryAfterMs("Thu, 01 Jan 2026 00:00:10 GMT", now), 10_000);
    assert.equal(retryAfterMs("Wed, 31 Dec 2025 00:00:00 GMT", now), 0);
    for (const text of [null, "", "soon", "-1.5e3x"]) assert.equal(retryAfterMs(text, now), null);
  });
});

describe("Watchdog", () => {
  let stalls;
  let watchdog;

  beforeEach(() => {
    mock.timers.enable({ apis: ["setInterval", "setTimeout", "Date"], now: 1_000_000 });
    const began = Date.now();
    mock.method(performance, "now", () => Date.now() - began);
    stalls = [];
    // An interval of the mock goes on when it is cleared by its own callback, so that a stall is reported again here.
    watchdog = new Watchdog((stall) => stalls.includes(stall) || stalls.push(stall));
  });
  const passed = (seconds) => {
    for (let second = 0; second < seconds; second += 1) mock.timers.tick(1000);
  };
  const slept = (seconds) => mock.timers.setTime(Date.now() + seconds * 1000);
  afterEach(() => mock.reset());

  test("reports a connection that is silent for two and a half heartbeats", () => {
    watchdog.heartbeatMs = 10_000;
    passed(25);
    assert.deepEqual(stalls, []);
    watchdog.received();
    passed(25);
    assert.deepEqual(stalls, []);
    passed(10);
    assert.deepEqual(stalls, ["silence"]);
  });

  test("reports one that does not open", () => {
    passed(20);
    assert.deepEqual(stalls, []);
    passed(1);
    assert.deepEqual(stalls, ["silence"]);
  });

  for (const seconds of [20, 600]) {
    test(`reports one over which the machine slept for ${seconds} s, longer than a heartbeat, at once`, () => {
      watchdog.heartbeatMs = 15_000;
      slept(seconds);
      passed(1);
      assert.equal(stalls[0], "sleep");
    });
  }

  test("trusts one that received something, even if timers are late", () => {
    watchdog.heartbeatMs = 15_000;
    slept(55);
    watchdog.received();
    slept(5);
    passed(1);
    assert.deepEqual(stalls, []);
  });

  test("reports nothing after its stop", () => {
    watchdog.stop();
    passed(60);
    assert.deepEqual(stalls, []);
  });

  test("a pause does not go on after a sleep", async () => {
    const paused = pause(30_000, new AbortController().signal);
    slept(31);
    passed(1);
    assert.equal(await paused, false);
  });
});

describe("RecentEvents", () => {
  const event = (seq) => ({ id: `${1000 + seq}-${seq}` });

  test("has the events after an id that it keeps, and after no other id", () => {
    const recent = new RecentEvents("0-0");
    for (const seq of [1, 2, 3]) recent.push(event(seq), 10);
    assert.deepEqual([recent.has("0-0"), recent.has("1002-2"), recent.has("7-2")], [true, true, false]);
    assert.deepEqual(recent.after("1001-1").map((kept) => kept.event.id), ["1002-2", "1003-3"]);
    assert.deepEqual([recent.spans("7-2"), recent.spans("7-4")], [true, false]);
    recent.clear();
    assert.deepEqual([recent.has("1002-2"), recent.spans("7-2"), recent.last], [false, false, null]);
  });

  test("does not take an ordinal within a delta for a place between events", () => {
    const recent = new RecentEvents("0-0", true);
    const [start, delta, end] = ["tool:start", "message:delta", "tool:complete"];
    for (const [seq, type] of [[1, start], [9, delta], [10, end]]) recent.push({ ...event(seq), type }, 10);
    assert.deepEqual([recent.has("1009-9"), recent.has("7-5")], [true, false]);
    assert.deepEqual([1, 5, 8, 9, 10].map((seq) => recent.spans(`7-${seq}`)), [false, false, false, true, true]);
    const plain = new RecentEvents("0-0");
    for (const [seq, type] of [[1, start], [9, delta]]) plain.push({ ...event(seq), type }, 10);
    assert.equal(plain.spans("7-5"), true, "a filter left out what is between");
  });

  test("drops the oldest, by number and by size", () => {
    const many = new RecentEvents("0-0");
    for (let seq = 1; seq <= 1500; seq += 1) many.push(event(seq), 10);
    assert.deepEqual([many.has("1499-499"), many.has("1500-500"), many.after("1500-500").length], [false, true, 1000]);
    const large = new RecentEvents("0-0");
    for (let seq = 1; seq <= 100; seq += 1) large.push(event(seq), 65_536);
    assert.equal(large.after("1068-68").length, 32);
    assert.equal(large.has("1067-67"), false);
  });
});

test("tabs are identified by the claims about the user, not by the expiry of the token", () => {
  const token = (claims) => `x.${Buffer.from(JSON.stringify(claims)).toString("base64url")}.y`;
  const alice = { sub: "älice?>", org: "o", scope: "a b", iss: "i", exp: 1 };
  assert.equal(identityOf(token(alice)), identityOf(token({ ...alice, exp: 2, jti: "z" })));
  for (const other of [{ sub: "bob" }, { org: "p" }, { scope: "a" }, { iss: "j" }]) {
    assert.notEqual(identityOf(token(alice)), identityOf(token({ ...alice, ...other })));
  }
  assert.equal(identityOf("opaque"), "opaque");
  assert.equal(identityOf(null), null);
  assert.equal(identityOf(null, "alice"), "cookie alice");
});

/** A server with scripted answers. */
function served(answer) {
  const server = http.createServer(answer);
  before(() => new Promise((resolve) => server.listen(0, "127.0.0.1", resolve)));
  after(() => (server.closeAllConnections(), server.close()));
  return () => `http://127.0.0.1:${server.address().port}`;
}

describe("a tab that reads nothing", () => {
  const EVENTS = 30_000;
  const url = served((request, response) => {
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    response.write('event: stream:open\ndata: {"retryMs":10,"heartbeatSeconds":10}\n\n');
    const cursor = Number((request.headers["last-event-id"] ?? "0-0").split("-")[1]);
    for (let seq = cursor + 1; seq <= EVENTS; seq += 1) {
      response.write(`id: 1-${seq}\ndata: {"type":"thinking","executionId":"x","ts":1,"data":{"thought":""}}\n\n`);
    }
    response.write('event: stream:live\ndata: {"replayed":1}\n\n');
  });

  test("is sent no more than a few thousand items, and all of them once it reads", { timeout: 30_000 }, async () => {
    const { port1, port2 } = new MessageChannel();
    new SharedStreams().connect(port2);
    const query = { types: null, from: null };
    const target = { path: "/api/agent/executions/x/stream", executionId: "x", query, mode: "shared" };
    const open = { kind: "open", key: "k", baseUrl: url(), target, cursor: null, isFromNow: false, token: null, lock: null };
    let [unread, total] = [0, 0];
    const ids = [];
    let isReading = false;
    const all = new Promise((resolve) => {
      port1.onmessage = ({ data }) => {
        if (data.kind !== "items") return;
        total += data.items.length;
        for (const item of data.items) if ("event" in item) ids.push(item.event.id);
        if (isReading) port1.postMessage({ kind: "ack", count: data.items.length, size: data.size });
        else unread += data.items.length;
        if (ids.length >= EVENTS) resolve(undefined);
      };
    });
    port1.postMessage(open);
    let before = -1;
    while (before !== total || total === 0) {
      before = total;
      await new Promise((resolve) => setTimeout(resolve, 300));
    }
    assert.ok(ids.length < 12_000, `${ids.length} events for a tab that reads none`);
    isReading = true;
    port1.postMessage({ kind: "ack", count: unread, size: 0 });
    await all;
    assert.deepEqual(ids, Array.from({ length: EVENTS }, (_, index) => `1-${index + 1}`));
    port1.postMessage({ kind: "close" });
    port1.close();
  });
});

test("a watch has a snapshot at once, the same one until its listeners are called", async () => {
  const client = new RuncastClient({ token: "t", fetch: () => new Promise(() => {}) });
  const watch = client.watch("x");
  const told = new Promise((resolve) => watch.subscribe(() => resolve(undefined)));
  watch.start();
  const first = watch.getSnapshot();
  assert.equal(first.state, null); // of which nothing is known yet
  assert.equal(watch.getSnapshot(), first);
  await told;
  assert.notEqual(watch.getSnapshot(), first);
  assert.equal(watch.getSnapshot().status.phase, "connecting");
  watch.close();
});

describe("AgentStream", () => {
  const asked = [];
  let script = [];
  const url = served((request, response) => {
    asked.push(request.headers["last-event-id"] ?? null);
    const [status, headers, ...frames] = script.shift();
    response.writeHead(status, { "Content-Type": "text/event-stream", ...headers });
    for (const frame of frames) response.write(frame);
    if (frames.at(-1) !== LASTING) response.end();
  });
  const LASTING = ": hb\n";
  const LIVE = 'event: stream:live\ndata: {"replayed":0}\n\n';
  const opened = (retryMs) => `event: stream:open\ndata: {"retryMs":${retryMs},"heartbeatSeconds":10}\n\n`;
  const event = (seq) => `id: 1-${seq}\ndata: {"type":"thinking","executionId":"x","ts":1,"data":{"thought":""}}\n\n`;
  let [stream, ids, statuses] = [null, [], []];

  /** Follow the scripted answers until a status fits. */
  function followed(isEnough) {
    [ids, statuses] = [[], []];
    asked.splice(0);
    return new Promise((resolve) => {
      const client = new RuncastClient({ baseUrl: url(), token: "t" });
      const onStatus = (status) => {
        statuses.push(status);
        if (isEnough(status)) resolve(undefined);
      };
      stream = client.stream({ executionId: "x", onEvent: ({ id }) => ids.push(id), onStatus }).start();
    });
  }
  /** The times that it waits. */
  const waits = () => statuses.filter(({ phase }) => phase === "waiting").map((status) => status.retryAt - Date.now());
  const isWaiting = ({ phase }) => phase === "waiting";

  beforeEach(() => {
    mock.method(Math, "random", () => 1 - 1e-9);
    const now = Date.now();
    mock.method(Date, "now", () => now); // a time until then is the time that was chosen; timers go on
  });
  afterEach(() => (mock.restoreAll(), stream?.close()));

  test("waits for the time of `retry:`, doubled at each failure, and from the start again after an event", async () => {
    const broken = [200, {}, "retry: 50\n\n"];
    script = [broken, broken, broken, [200, {}, event(1)], [204]];
    const retryAts = [];
    let [began, base] = [0, 0];
    await followed((status) => {
      if (status.phase === "waiting" && status.retryAt !== base) retryAts.push(status.retryAt - Date.now());
      base = status.retryAt ?? base;
      return status.phase === "ended";
    });
    assert.deepEqual(retryAts.map((ms) => Math.round(ms / 50)), [1, 2, 4, 1]);
    assert.deepEqual([ids, asked], [["1-1"], [null, null, null, null, "1-1"]]);
  });

  test("uses the time of `stream:open`, too, and never waits for more than 30 s", async () => {
    script = [[200, {}, opened(7000)]];
    await followed(isWaiting);
    assert.equal(Math.round(waits()[0] / 1000), 7);
    stream.close();
    script = [[200, {}, "retry: 86400000\n\n"]];
    await followed(isWaiting);
    assert.equal(Math.round(waits()[0] / 1000), 30);
  });

  test("adds its backoff to `Retry-After`, so that not all clients come back at once", async () => {
    script = [[503, { "Retry-After": "5" }]];
    await followed(isWaiting);
    assert.equal(Math.round(waits()[0] / 1000), 6);
    assert.equal(statuses.at(-1).error.retryAfterMs, 5000);
  });

  test("ends after 204", async () => {
    script = [[204]];
    await followed(({ phase }) => phase === "ended");
    assert.deepEqual([ids, stream.status.error], [[], null]);
  });

  test("accepts only event streams", async () => {
    script = [[200, { "Content-Type": "text/html" }, event(1)]];
    await followed(isWaiting);
    assert.deepEqual([ids, statuses.at(-1).error.type], [[], "urn:runcast:problem:no-event-stream"]);
  });

  test("delivers no event that is not JSON, and resumes before it", async () => {
    script = [[200, {}, "retry: 1\n\n", event(1), "id: 1-2\ndata: {\n\n", event(3)], [200, {}, event(2), event(3)], [204]];
    await followed(({ phase }) => phase === "ended");
    assert.deepEqual([ids, asked], [["1-1", "1-2", "1-3"], [null, "1-1", "1-3"]]);
  });

  test("keeps the error of a lost connection until it is live again", async () => {
    script = [[200, {}, "retry: 1\n\n", event(1)], [200, {}, opened(1), LIVE, LASTING]];
    await followed(({ phase, reconnects }) => phase === "live" && reconnects === 1);
    assert.equal(statuses.find(isWaiting).error.type, "urn:runcast:problem:connection-lost");
    assert.equal(stream.status.error, null);
  });
});

describe("RuncastClient", () => {
  const seen = [];
  let script = [];
  const url = served((request, response) => {
    let body = "";
    request.on("data", (piece) => (body += piece));
    request.on("end", () => {
      seen.push({ ...request.headers, method: request.method, url: request.url, body });
      const [status, headers, answer] = script.shift();
      if (status === 0) return response.destroy();
      response.writeHead(status, headers).end(JSON.stringify(answer));
    });
  });
  beforeEach(() => seen.splice(0));
  const problem = { type: "urn:runcast:problem:rate-limited", title: "Rate limited", detail: "too many", requestId: "r1", limit: 3 };

  test("repeats the start of an execution, with the same key, until there is an answer", async (context) => {
    context.mock.method(Math, "random", () => 0);
    const accepted = { executionId: "ex_1", state: "queued", streamUrl: "/s" };
    script = [[0], [503, { "Retry-After": "0" }, {}], [202, {}, accepted]];
    const client = new RuncastClient({ baseUrl: url() + "/", token: "t" });
    assert.deepEqual(await client.execute({ task: "t" }), accepted);
    assert.equal(seen.length, 3);
    assert.equal(new Set(seen.map((request) => request["idempotency-key"])).size, 1);
    assert.match(seen[0]["idempotency-key"], /^[0-9a-f]{32}$/);
    script = [[202, {}, accepted]];
    await client.execute({ task: "t" }, { idempotencyKey: "mine" });
    assert.equal(seen[3]["idempotency-key"], "mine");
  });

  test("reports why a request failed, and does not repeat a refused one", async () => {
    script = [[429, { "Retry-After": "7" }, { ...problem, status: 429 }]];
    const client = new RuncastClient({ baseUrl: url(), token: "t" });
    const error = await client.execute({ task: "t" }).catch((raised) => raised);
    assert.equal(error.name, "RuncastError");
    const { status, type, title, detail, requestId, retryAfterMs: retry, body } = error;
    assert.deepEqual([status, type, title, detail, requestId, retry], [429, problem.type, "Rate limited", "too many", "r1", 7000]);
    assert.equal(body.limit, 3);
    script = [[502, {}, "no JSON of ours"]];
    assert.equal((await client.execution("x").catch((raised) => raised)).status, 502);
    script = [[0]];
    assert.equal((await client.answer("x", "i", true).catch((raised) => raised)).type, "urn:runcast:problem:unreachable");
    assert.equal(seen.length, 3);
  });

  test("repeats a GET without an answer, once", async () => {
    const client = new RuncastClient({ baseUrl: url(), token: "t" });
    script = [[0], [200, {}, { agents: [] }]];
    assert.deepEqual(await client.agents(), { agents: [] });
    script = [[0], [0]];
    assert.equal((await client.agents().catch((raised) => raised)).status, 0);
    assert.equal(seen.length, 4);
  });

  test("renews a refused token once", async () => {
    const asked = [];
    const token = ({ refresh }) => (asked.push(refresh), refresh ? "new" : "old");
    const client = new RuncastClient({ baseUrl: url(), token });
    script = [[401, {}, {}], [200, {}, { agents: [] }]];
    assert.deepEqual(await client.agents(), { agents: [] });
    assert.deepEqual(seen.map((request) => request.authorization), ["Bearer old", "Bearer new"]);
    script = [[401, {}, {}], [401, {}, {}]];
    const another = new RuncastClient({ baseUrl: url(), token });
    assert.equal((await another.agents().catch((raised) => raised)).status, 401);
    assert.deepEqual(asked, [false, true, false, true]);
  });

  test("sends the documented requests", async () => {
    const client = new RuncastClient({ baseUrl: url(), token: "t" });
    script = Array.from({ length: 11 }, () => [200, {}, {}]);
    await client.executions({ state: "running", limit: 5 });
    await client.events("a/b", { after: "1-2" });
    await client.cancel("x", "why");
    await client.answer("x", "i", { a: 1 });
    await client.ticket("x");
    await client.ticket();
    await client.sendMessage("x", "shorter");
    await client.sendMessage("x", { data: 1, mode: "interrupt", messageId: "m" });
    await client.messages("x");
    await client.withdrawMessage("x", "m");
    const lines = await client.exportEvents("x");
    assert.equal((await lines.getReader().read()).value, "{}");
    assert.deepEqual(
      seen.map(({ method, url: path, body }) => `${method} ${path} ${body}`.trim().replace(/[0-9a-f]{32}/, "KEY")),
      [
        "GET /api/agent/executions?state=running&limit=5",
        "GET /api/agent/executions/a%2Fb/events?after=1-2",
        'POST /api/agent/executions/x/cancel {"reason":"why"}',
        'POST /api/agent/executions/x/input {"inputId":"i","value":{"a":1}}',
        'POST /api/agent/stream-tickets {"executionId":"x"}',
        "POST /api/agent/stream-tickets {}",
        'POST /api/agent/executions/x/messages {"messageId":"KEY","text":"shorter"}',
        'POST /api/agent/executions/x/messages {"messageId":"m","data":1,"mode":"interrupt"}',
        "GET /api/agent/executions/x/messages",
        "DELETE /api/agent/executions/x/messages/m",
        "GET /api/agent/executions/x/events",
      ],
    );
    assert.equal(seen[10].accept, "application/x-ndjson");
  });
});
