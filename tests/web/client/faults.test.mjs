/** The client with faulty edges and forbidden features. Run by tests/web/test_client_units.py. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, mock, test } from "node:test";

const CLIENT = "../../../broker/web/client/";
const { SharedStreams } = await import(CLIENT + "shared-worker/shared-streams.js");
const { ExecutionFeed } = await import(CLIENT + "feed.js");
const { RuncastClient } = await import(CLIENT + "index.js");
const { ExecutionTree } = await import(CLIENT + "tree.js");

const encoder = new TextEncoder();
const OPEN = 'event: stream:open\ndata: {"retryMs":1000,"heartbeatSeconds":10}\n\n';
const LIVE = 'event: stream:live\ndata: {"replayed":0}\n\n';
const END = 'event: stream:end\ndata: {"reason":"slow"}\n\n';
const BOUND = { timeout: 30_000 };

/** A response with these frames, which stays open unless it `isOver`. */
function streamed(text, isOver = false) {
  const start = (controller) => (controller.enqueue(encoder.encode(text)), isOver && controller.close());
  return new Response(new ReadableStream({ start }), { headers: { "Content-Type": "text/event-stream" } });
}

function events(from, to, thought = "") {
  const data = JSON.stringify({ type: "thinking", executionId: "x", ts: 1, data: { thought } });
  return Array.from({ length: to - from + 1 }, (_, index) => `id: 1-${from + index}\ndata: ${data}\n\n`).join("");
}

/** The ordinal after which a request resumes. */
function cursorOf(init) {
  return Number((new Headers(init.headers).get("Last-Event-ID") ?? "0-0").split("-")[1]);
}

async function until(isSo) {
  for (let tries = 0; !isSo(); tries += 1) {
    assert.ok(tries < 1000, "it does not come");
    await sleep(10);
  }
}

/** The clock stands still, so that a time until then is the time that was chosen. Timers go on. */
function stopClock() {
  const now = Date.now();
  mock.method(Date, "now", () => now);
}

afterEach(() => mock.restoreAll());

describe("a stream that is live for a moment only, each time", () => {
  for (const [name, last] of [
    ["is cut", ""],
    ["is ended", END],
  ]) {
    test(`is opened later and later when it ${name}`, BOUND, async () => {
      stopClock();
      mock.method(Math, "random", () => 1 - 1e-9);
      const waits = [];
      const once = async () => (await sleep(1), streamed("retry: 20\n\n" + LIVE + last, true));
      const client = new RuncastClient({ baseUrl: "http://edge", token: "t", fetch: once });
      const onStatus = ({ phase, retryAt }) => phase === "waiting" && waits.push(retryAt - Date.now());
      const stream = client.stream({ executionId: "x", onStatus }).start();
      await until(() => waits.length >= 4);
      stream.close();
      const doubled = waits.slice(1, 4).map((wait, index) => Math.round(wait / waits[index]));
      assert.deepEqual(doubled, [2, 2, 2]);
    });
  }

  test("is opened again at once if it was live for long", BOUND, async () => {
    mock.method(Math, "random", () => 1 - 1e-9);
    let [now, connects, beat] = [Date.now(), 0, () => {}];
    mock.method(Date, "now", () => now);
    const waits = [];
    const answer = async () => {
      connects += 1;
      if (connects < 4) return streamed("retry: 20\n\n", true);
      const response = streamed(OPEN.replace("1000", "20") + LIVE);
      const body = response.body.pipeThrough(
        new TransformStream({ start: (given) => void (beat = (text) => given.enqueue(encoder.encode(text))) }),
      );
      return new Response(body, response);
    };
    const client = new RuncastClient({ baseUrl: "http://edge", token: "t", fetch: answer });
    const onStatus = ({ phase, retryAt }) => phase === "waiting" && waits.push(retryAt - now);
    const stream = client.stream({ executionId: "x", onStatus }).start();
    await until(() => (waits.length < 3 ? ((now += 100), false) : ((now += 100), stream.status.phase === "live")));
    now += 11_000;
    beat(": hb\n");
    beat(END);
    await until(() => connects === 5); // nothing was waited for
    stream.close();
    assert.equal(waits.length, 3);
  });

  test("is not opened again without a pause if `retry:` is 0", BOUND, async () => {
    mock.method(Math, "random", () => 1 - 1e-9);
    let connects = 0;
    const once = async () => ((connects += 1), streamed("retry: 0\n\n", true));
    const client = new RuncastClient({ baseUrl: "http://edge", token: "t", fetch: once });
    const stream = client.stream({ executionId: "x" }).start();
    await sleep(300);
    stream.close();
    assert.ok(connects < 8, `${connects} connects`);
  });
});

describe("the reason of stream:end", () => {
  const PROBLEM = { type: "urn:runcast:problem:capacity", title: "full", status: 503, detail: "this edge is full" };
  const end = (reason, problem) => `event: stream:end\ndata: ${JSON.stringify({ reason, problem })}\n\n`;

  /** The statuses of a stream that an edge ends once, and the number of token renewals. */
  async function after(text) {
    mock.method(Math, "random", () => 1 - 1e-9);
    const [statuses, answers] = [[], [LIVE + text, LIVE]];
    let renewals = 0;
    const token = ({ refresh }) => (refresh ? `t${(renewals += 1)}` : "t");
    const answer = async () => streamed("retry: 300\n\n" + answers.shift());
    const client = new RuncastClient({ baseUrl: "http://edge", token, fetch: answer });
    const stream = client.stream({ executionId: "x", onStatus: (status) => statuses.push(status) }).start();
    await until(() => statuses.filter(({ phase }) => phase === "live").length === 2 || stream.status.phase === "ended");
    stream.close();
    assert.ok(stream.status.error === null, "an error outlives what it was about");
    return { waiting: statuses.find(({ phase }) => phase === "waiting"), renewals, statuses };
  }

  for (const [reason, message] of [
    ["aged", null],
    ["draining", null],
    ["refused", "the edge accepts no stream at the moment"],
    ["replaced", "the stream was opened a second time"],
    ["failed", "the edge could not show an event"],
  ])
    test(`${reason}: it waits for the time that the edge gives, with an error`, BOUND, async () => {
      const { waiting, renewals } = await after(end(reason));
      assert.equal(waiting.error?.message ?? null, message);
      assert.ok(waiting.retryAt - Date.now() < 300);
      assert.equal(renewals, 0);
    });

  for (const reason of ["refused", "replaced", "failed"])
    test(`${reason}: the edge's problem is the error`, BOUND, async () => {
      const { error, retryAt } = (await after(end(reason, PROBLEM))).waiting;
      assert.ok(retryAt !== null);
      const { status, type, title, detail, retryAfterMs } = error;
      assert.deepEqual({ status, type, title, detail }, PROBLEM);
      assert.equal(retryAfterMs, 300);
    });

  test("refused: a wait of two minutes is kept", BOUND, async () => {
    const statuses = [];
    const answer = async () => streamed("retry: 120000\n" + end("refused", PROBLEM));
    const client = new RuncastClient({ baseUrl: "http://edge", token: "t", fetch: answer });
    const stream = client.stream({ executionId: "x", onStatus: (status) => statuses.push(status) }).start();
    await until(() => stream.status.phase === "waiting");
    stream.close();
    const { retryAt } = statuses.find(({ phase }) => phase === "waiting");
    assert.ok(retryAt - Date.now() > 110_000);
  });

  for (const [reason, expected] of [
    ["expired", 1],
    ["revoked", 1],
    ["slow", 0],
    ["lost_redis", 0],
    ["one of a later version", 0],
  ])
    test(`${reason}: it resumes at once`, BOUND, async () => {
      const { waiting, renewals } = await after(end(reason));
      assert.equal(waiting, undefined);
      assert.equal(renewals, expected);
    });

  test("slow, repeatedly: the status has an error", BOUND, async () => {
    const statuses = [];
    const answer = async () => streamed("retry: 20\n\n" + LIVE + end("slow"));
    const client = new RuncastClient({ baseUrl: "http://edge", token: "t", fetch: answer });
    const stream = client.stream({ executionId: "x", onStatus: (status) => statuses.push(status) }).start();
    await until(() => statuses.some(({ phase }) => phase === "waiting"));
    stream.close();
    const { error } = statuses.find(({ phase }) => phase === "waiting");
    assert.equal(error.message, "the stream was read too slowly");
  });

  test("finished: it is over", BOUND, async () => {
    const { statuses } = await after(end("finished"));
    assert.equal(statuses.find(({ phase }) => phase === "ended").error, null);
  });
});

test("a control event of a later version is no event of the log, and may move the cursor", BOUND, async () => {
  const [seen, cursors] = [[], []];
  const text = OPEN + events(1, 1) + "event: stream:later\ndata: {}\n\n" + "event: stream:place\nid: 1-7\ndata: {}\n\n";
  const answer = async (_url, init) => (cursors.push(cursorOf(init)), streamed(cursors.length === 1 ? text : OPEN, cursors.length === 1));
  const client = new RuncastClient({ baseUrl: "http://edge", token: "t", fetch: answer });
  const stream = client.stream({ executionId: "x", types: ["thinking"], onEvent: ({ type }) => seen.push(type) }).start();
  await until(() => cursors.length === 2);
  stream.close();
  assert.deepEqual([seen, cursors], [["thinking"], [0, 7]]);
});

describe("an edge that does not answer", () => {
  const never = () => new Promise(() => {});

  test("is waited for, with an error in the status after some seconds", BOUND, async () => {
    mock.timers.enable({ apis: ["setTimeout"] });
    const client = new RuncastClient({ baseUrl: "http://edge", token: "t", fetch: never });
    const stream = client.stream({ executionId: "x" }).start();
    for (let turn = 0; turn < 5; turn += 1) await Promise.resolve();
    assert.equal(stream.status.error, null);
    mock.timers.tick(5_000);
    const { phase, error } = stream.status;
    assert.deepEqual([phase, error.type, error.message], [
      "connecting",
      "urn:runcast:problem:no-answer",
      "the edge has not answered yet",
    ]);
    stream.close();
    mock.timers.reset();
  });
});

describe("several iterators of one stream", () => {
  const COUNT = 12_000;

  test("one that ends while it lags does not block the others", BOUND, async () => {
    const answer = async (_url, init) => streamed(OPEN + events(cursorOf(init) + 1, COUNT) + LIVE);
    const stream = new RuncastClient({ baseUrl: "http://edge", token: "t", fetch: answer }).stream({
      executionId: "x",
    });
    const lagging = stream[Symbol.asyncIterator]();
    const first = lagging.next();
    let seen = 0;
    const all = (async () => {
      for await (const event of stream)
        if (event.id === `1-${COUNT}`) return void (seen += 1);
        else seen += 1;
    })();
    await first;
    let before = -1;
    while (before !== seen) await sleep(100, (before = seen));
    assert.ok(seen < COUNT, "nobody lagged");
    await lagging.return();
    await all;
    assert.equal(seen, COUNT);
  });

  test("the size of queued events counts, not only their number", BOUND, async () => {
    const thought = "x".repeat(60_000);
    let [sent, isLeft] = [0, false];
    const answer = async (_url, init) => {
      let next = cursorOf(init) + 1;
      const pull = async (controller) => {
        await sleep(0);
        controller.enqueue(encoder.encode(events(next, (sent = next += 10) - 1, thought)));
      };
      const body = new ReadableStream({ pull, cancel: () => void (isLeft = true) });
      return new Response(body, { headers: { "Content-Type": "text/event-stream" } });
    };
    const stream = new RuncastClient({ baseUrl: "http://edge", token: "t", fetch: answer }).stream({
      executionId: "x",
    });
    const iterator = stream[Symbol.asyncIterator]();
    await iterator.next();
    await until(() => isLeft || sent > 3_000);
    assert.ok(isLeft && sent < 1_500, `${sent} events of 60 KB each`);
    await iterator.return();
  });
});

describe("a token that is refused", () => {
  test("is renewed once for all requests and streams that had it", BOUND, async () => {
    let asked = 0;
    const token = async ({ refresh }) => {
      if (!refresh) return "old";
      asked += 1;
      await sleep(20);
      return "new";
    };
    const answer = async (url, init) => {
      await sleep(Math.random() * 60); // some hear of it when the others have the new one already
      if (new Headers(init.headers).get("Authorization") !== "Bearer new") return new Response("{}", { status: 401 });
      return url.endsWith("/stream") ? streamed(OPEN + LIVE) : new Response("{}");
    };
    const client = new RuncastClient({ baseUrl: "http://edge", token, fetch: answer });
    const streams = ["a", "b", "c"].map((executionId) => client.stream({ executionId }).start());
    await Promise.all([client.agents(), client.agents(), client.executions()]);
    await until(() => streams.every(({ status }) => status.phase === "live"));
    for (const stream of streams) stream.close();
    assert.equal(asked, 1);
  });

  test("is renewed again if the renewal gave the same token, or failed", BOUND, async () => {
    const answers = ["old", () => assert.fail("no network"), "new"];
    const token = async ({ refresh }) => {
      const answer = refresh ? answers.shift() : "old";
      return typeof answer === "function" ? answer() : answer;
    };
    const client = new RuncastClient({ token });
    assert.equal(await client.newerToken("old"), "old");
    await assert.rejects(client.newerToken("old"), /no network/);
    assert.equal(await client.newerToken("old"), "new");
    assert.equal(await client.newerToken("old"), "new");
    assert.deepEqual(answers, []);
  });
});

describe("a shared stream", () => {
  let opened;

  beforeEach(() => {
    opened = [];
    globalThis.SharedWorker = class {
      constructor() {
        const { port1, port2 } = new MessageChannel();
        this.port = port1;
        this.worker = port2;
        opened.push(this);
      }
    };
  });
  afterEach(() => {
    delete globalThis.SharedWorker;
    delete globalThis.navigator;
    for (const { port, worker } of opened) (port.close(), worker.close());
  });

  /** The next message of a kind that a tab sends to its worker. */
  const heard = (worker, kind) =>
    new Promise((resolve) => {
      worker.onmessage = ({ data }) => data.kind === kind && resolve(data);
    });

  test("starts without delay where locks are forbidden", BOUND, async () => {
    const denied = async () => {
      throw new DOMException("denied", "SecurityError");
    };
    Object.defineProperty(globalThis, "navigator", { value: { locks: { request: denied } }, configurable: true });
    const client = new RuncastClient({ baseUrl: "http://edge", token: "t" });
    const stream = client.stream({ executionId: "x", mode: "shared" }).start();
    await until(() => opened.length === 1);
    const { lock } = await heard(opened[0].worker, "open");
    assert.equal(lock, null);
    stream.close();
  });

  test("is of the user whom its client reads", BOUND, async () => {
    const urls = [];
    mock.method(globalThis, "fetch", async (url) => (urls.push(new URL(url)), streamed(OPEN + LIVE)));
    const client = new RuncastClient({ baseUrl: "http://edge/runs", token: "t", as: { user: "bob" } });
    const stream = client.stream({ executionId: "x", mode: "shared" }).start();
    await until(() => opened.length === 1);
    new SharedStreams().connect(opened[0].worker);
    await until(() => stream.status.phase === "live");
    stream.close();
    await once(opened[0].worker, "close");
    assert.equal(stream.status.mode, "shared");
    assert.equal(urls[0].pathname, "/runs/api/agent/executions/x/stream");
    assert.equal(urls[0].searchParams.get("user"), "bob");
  });

  test("is not tried again where no worker is available", BOUND, async () => {
    let tried = 0;
    globalThis.SharedWorker = class {
      constructor() {
        tried += 1;
        throw new DOMException("not here", "SecurityError");
      }
    };
    const answer = mock.method(globalThis, "fetch", async () => streamed(OPEN + LIVE));
    const client = new RuncastClient({ baseUrl: "http://edge", token: "t" });
    for (const executionId of ["x", "y"]) {
      const stream = client.stream({ executionId, mode: "shared", workerUrl: "http://elsewhere/worker.js" }).start();
      await until(() => stream.status.phase === "live");
      assert.deepEqual([stream.status.mode, stream.status.fallback], ["fetch", "not here"]);
      stream.close();
    }
    assert.deepEqual([tried, answer.mock.callCount()], [1, 2]);
  });

  test("uses the current token after its page was frozen", BOUND, async () => {
    let [late, tokens] = [0, 0];
    const { now } = Date;
    mock.method(Date, "now", () => now() + late);
    const client = new RuncastClient({ baseUrl: "http://edge", token: () => `t${(tokens += 1)}` });
    const stream = client.stream({ executionId: "x", mode: "shared" }).start();
    await until(() => opened.length === 1);
    assert.equal((await heard(opened[0].worker, "open")).token, "t1");
    const pong = heard(opened[0].worker, "pong");
    opened[0].worker.postMessage({ kind: "ping" });
    await pong;
    late = 40_000;
    await until(() => opened.length === 2);
    assert.equal((await heard(opened[1].worker, "open")).token, "t2");
    stream.close();
  });
});

describe("a worker", () => {
  const TARGET = {
    path: "/api/agent/executions/x/stream",
    executionId: "x",
    query: { types: null, from: null },
    mode: "shared",
  };
  const OPENING = {
    kind: "open",
    key: "k",
    baseUrl: "http://edge",
    target: TARGET,
    cursor: null,
    isFromNow: false,
    lock: null,
  };
  let ports;

  beforeEach(() => (ports = []));
  afterEach(async () => {
    for (const port of ports) port.postMessage({ kind: "close" });
    await Promise.all(ports.map((port) => once(port, "close"))); // by the worker
  });

  /** A tab of these streams, and the messages that it got. */
  function tab(streams, token) {
    const { port1, port2 } = new MessageChannel();
    const messages = [];
    port1.onmessage = ({ data }) => messages.push(data);
    streams.connect(port2);
    port1.postMessage({ ...OPENING, token });
    ports.push(port1);
    return messages;
  }

  test("sends at most a few megabytes to a tab that reads nothing", BOUND, async () => {
    const thought = "x".repeat(60_000);
    let made = 0;
    mock.method(globalThis, "fetch", async (_url, init) => {
      let next = cursorOf(init) + 1;
      const pull = async (controller) => {
        await sleep(0);
        controller.enqueue(encoder.encode(events(next, (made = next += 5) - 1, thought)));
      };
      return new Response(new ReadableStream({ pull }), { headers: { "Content-Type": "text/event-stream" } });
    });
    const messages = tab(new SharedStreams(), "t");
    await until(() => made > 1_000);
    const sent = messages.flatMap(({ items = [] }) => items).filter((item) => "event" in item).length;
    assert.ok(sent < 400, `${sent} events of 60 KB each`);
  });

  test("does not ping a frozen tab again and again", BOUND, async () => {
    mock.timers.enable({ apis: ["setInterval"] });
    mock.method(globalThis, "fetch", () => new Promise(() => {}));
    const messages = tab(new SharedStreams(), "t");
    await until(() => messages.length > 0);
    for (let tick = 0; tick < 5; tick += 1) mock.timers.tick(10_000);
    mock.timers.reset();
    const pings = () => messages.filter(({ kind }) => kind === "ping").length;
    await until(() => pings() > 0);
    await sleep(50);
    assert.equal(pings(), 1);
  });

  test("accepts a tab once an edge has accepted its token, also if no edge answered at first", BOUND, async () => {
    const answers = [503, 0, 200];
    mock.method(Math, "random", () => 0);
    mock.method(globalThis, "fetch", async (url) => {
      if (url.includes("/stream")) return streamed(OPEN + events(1, 1) + LIVE);
      const status = answers.shift();
      if (status === 0) throw new TypeError("fetch failed");
      return new Response("{}", { status });
    });
    const streams = new SharedStreams();
    tab(streams, "one");
    const messages = tab(streams, "other");
    const items = () => messages.flatMap(({ items: given = [] }) => given);
    await until(() => items().some((item) => "event" in item || "refused" in item));
    assert.deepEqual([answers, items().some((item) => "refused" in item)], [[], false]);
  });
});

test("the list is requested again if no edge answers", BOUND, async () => {
  const { timeout } = AbortSignal;
  mock.method(AbortSignal, "timeout", () => timeout.call(AbortSignal, 30));
  mock.method(Math, "random", () => 0);
  let lists = 0;
  const answer = async (url, { signal }) => {
    if (url.includes("/stream")) return streamed(OPEN + LIVE);
    lists += 1;
    if (lists > 2) return new Response('{"executions":[]}');
    return new Promise((_resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  };
  const feed = new ExecutionFeed(new RuncastClient({ baseUrl: "http://edge", token: "t", fetch: answer }));
  feed.start();
  await until(() => feed.getSnapshot().isLoaded);
  feed.close();
  assert.equal(lists, 3);
});

test("the list is read again if a feed that is live loses events", BOUND, async () => {
  let [lists, tell] = [0, () => {}];
  const edge = async (url) => {
    if (!url.includes("/stream")) return ((lists += 1), new Response('{"executions":[]}'));
    const start = (controller) => (tell = (text) => controller.enqueue(encoder.encode(text)));
    return new Response(new ReadableStream({ start }), { headers: { "Content-Type": "text/event-stream" } });
  };
  const feed = new ExecutionFeed(new RuncastClient({ baseUrl: "http://edge", token: "t", fetch: edge }));
  const reset = 'event: stream:reset\ndata: {"reason":"trimmed"}\n\n';
  feed.start();
  await until(() => feed.getSnapshot().status.phase === "replaying");
  tell(OPEN + reset + LIVE);
  await until(() => feed.getSnapshot().isLoaded);
  assert.equal(lists, 1);
  tell(reset);
  await until(() => lists === 2);
  feed.close();
});

describe("what is said of an execution while the tree is read", () => {
  const node = (executionId, state, children = []) => ({ executionId, state, children });
  let [tree, tell, answer, reads] = [];

  /** A tree that is being read, and of which nothing is known yet. */
  beforeEach(async () => {
    reads = 0;
    const edge = async (url) => {
      if (url.includes("/stream")) {
        const start = (controller) => (tell = (text) => controller.enqueue(encoder.encode(text)));
        const body = new ReadableStream({ start });
        tell(OPEN + LIVE);
        return new Response(body, { headers: { "Content-Type": "text/event-stream" } });
      }
      reads += 1;
      return new Promise((resolve) => (answer = (root) => resolve(new Response(JSON.stringify(root)))));
    };
    tree = new ExecutionTree(new RuncastClient({ baseUrl: "http://edge", token: "t", fetch: edge }), "root");
    tree.start();
    await until(() => reads === 1);
  });

  afterEach(() => tree.close());

  async function say(type, executionId, data = {}) {
    tell(`id: 1-1\ndata: ${JSON.stringify({ type, executionId, ts: 1, data })}\n\n`);
    await until(() => tree.getSnapshot().status.lastEventId === "1-1");
  }

  test("is its state, also if the answer names it first", BOUND, async () => {
    await say("execution:cancelled", "child");
    answer(node("root", "completed", [node("child", "running")]));
    await until(() => tree.getSnapshot().tree !== null);
    assert.equal(tree.getSnapshot().tree.children[0].state, "cancelled");
  });

  test("has the tree read again", BOUND, async () => {
    await say("child:started", "child", { executionId: "grandchild", agent: "a", task: "t" });
    answer(node("root", "running", [node("child", "running")]));
    await until(() => reads === 2);
    answer(node("root", "running", [node("child", "running", [node("grandchild", "queued")])]));
    await until(() => tree.getSnapshot().tree.children[0].children.length === 1);
  });
});
