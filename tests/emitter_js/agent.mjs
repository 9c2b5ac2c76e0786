// Agents for the tests: `node agent.mjs SCENE JSON`. Each prints JSON lines, `{name: value}`.
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { AgentEmitter, AgentSSEEmitter, ExecutionEnded } from "../../emitter/js/index.js";
import { endOnExit } from "../../emitter/js/node.js";

const [scene, json] = process.argv.slice(2);
const given = JSON.parse(json);
const { url, token, executionId, options = {} } = given;
const make = (more = {}) => new AgentEmitter({ url, token, executionId, ...options, ...more });
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const named = (error) => ({
  name: error.name,
  kind: error.constructor.name,
  status: error.status,
  type: error.type,
  message: error.message,
  state: error.state,
});
const failure = (promise) => promise.then(() => null, named);

const scenes = {
  /** One of each. */
  async everything() {
    const emitter = new AgentSSEEmitter({ url, token, executionId, agent: "writer" });
    await emitter.executionStarted({ task: "everything" });
    await emitter.planCreated({ goal: "g", phases: [{ id: "a", name: "A" }, ["b", "B"]] });
    const result = await emitter.phase("a", "A", async () => {
      await emitter.thinking({ thought: "hm", iteration: 1, visible: false });
      return emitter.tool("search", { q: "x" }, async (call) => {
        await call.progress({ progress: 50, message: "half" });
        return { found: 2 };
      });
    });
    say({ result });
    const failed = await failure(
      emitter.tool("broken", undefined, () => {
        throw new RangeError("no");
      }),
    );
    say({ failed: failed.name });
    await emitter.text("Hello, ");
    await emitter.text("world");
    await emitter.endText();
    await emitter.messageComplete({
      messageId: "own",
      text: "whole",
      usage: { inputTokens: 1, outputTokens: 2, totalTokens: 3 },
    });
    await emitter.thinkingDelta({ messageId: "t", delta: "…" });
    await emitter.status({ status: "searching", message: "far" }, { agent: "helper", parentId: "c1_1" });
    await emitter.progress({ progress: 7 * (100 / 7), currentAction: "a" });
    await emitter.specialistActivated({ specialist: "s", task: "t" });
    await emitter.specialistComplete({ specialist: "s", summary: "u" });
    await emitter.partialResult({ result: [1], specialist: "s" });
    await emitter.synthesis({ message: "m", specialistsComplete: ["s"] });
    await emitter.artifact({ artifactId: "f", mediaType: "text/plain", name: "n", text: "t", last: true });
    await emitter.usage({ inputTokens: 1, outputTokens: 2 });
    await emitter.usage({ add: { prompt_tokens: 10, completion_tokens: 5, total_tokens: 15 } });
    await emitter.modelCall({ callId: "m", model: "x", inputTokens: 3, outputTokens: 4, duration: 1.5 });
    await emitter.timeout({ message: "slow", action: "continuing" });
    await emitter.sandboxViolation({ rule: "r", detail: "d" });
    await emitter.custom("my.own", { any: ["thing"] });
    await emitter.toolStart({ callId: "open", toolName: "t" });
    await emitter.phaseStart({ phaseId: "z", phaseName: "Z" });
    await emitter.executionComplete({ result: { ok: true }, tokensUsed: 9 });
    say({ after: await failure(emitter.thinking({ thought: "late" })) });
  },

  /** Chunks and events without a pause, as fast as the queue takes them. */
  async many() {
    const emitter = make({ maxQueueEvents: 300 });
    await emitter.executionStarted({ task: "many" });
    for (let number = 0; number < given.count; number += 1) {
      await emitter.text(`<${number}>`);
      if (number % 7 === 0) await emitter.status({ status: "n", message: String(number) });
      if (number % 50 === 0) await sleep(given.pauseMs ?? 5);
      if (number === given.tellAt) say({ reached: number });
    }
    if (given.waits) {
      await new Promise((resolve) => process.stdin.once("data", resolve));
      process.stdin.destroy();
    }
    await emitter.executionComplete({ result: given.count });
    say({ done: true });
  },

  async cancelled() {
    const emitter = make();
    const { signal } = emitter;
    await emitter.executionStarted({ task: "long" });
    await emitter.flush();
    say({ started: true });
    await new Promise((resolve) => signal.addEventListener("abort", resolve));
    say({ reason: { ...named(signal.reason), reason: signal.reason.reason, by: signal.reason.by } });
    say({ thinking: await failure(emitter.thinking({ thought: "?" })) });
    say({ complete: await failure(emitter.executionComplete({ result: 1 })) });
    say({ cancelled: await failure(emitter.executionCancelled({ reason: "told" })) });
    say({ close: await failure(emitter.close()) });
  },

  /** Nobody looks at `signal`, nor at the promises: a cancel is noticed all the same, and crashes nothing. */
  async careless() {
    const errors = [];
    const emitter = make({ renewSeconds: 0.2, onError: (error) => errors.push(named(error)) });
    emitter.executionStarted({ task: "careless" });
    say({ started: true });
    while (errors.length === 0) {
      if (given.talk) emitter.thinking({ thought: "x" });
      await sleep(50);
    }
    emitter.thinking({ thought: "x" });
    emitter.executionComplete({ result: 1 });
    await sleep(50);
    say({ errors });
    say({ aborted: emitter.cancelled });
  },

  async run() {
    const emitter = make();
    const end = await failure(
      emitter.run("a task", async () => {
        say({ started: true });
        if (given.fails) throw new TypeError("it broke");
        if (given.waits)
          await new Promise((_, reject) =>
            emitter.signal.addEventListener("abort", () => reject(emitter.signal.reason)),
          );
        return "fine";
      }),
    );
    say({ end });
  },

  async ask() {
    const emitter = make();
    await emitter.executionStarted({ task: "ask" });
    const asked = (prompt, more) =>
      emitter.ask(prompt, more).then(
        (value) => ({ value }),
        (error) => ({ error: named(error) }),
      );
    say({ asking: true });
    for (const { prompt, ...more } of given.questions) say({ [prompt]: await asked(prompt, more) });
    if (given.leave) process.exit(0);
    await emitter.executionComplete({ result: "asked" });
    say({ done: true });
  },

  async listens() {
    const emitter = make();
    await emitter.executionStarted({ task: "listens" });
    say({ listening: true });
    for await (const { text, data, by, mode } of emitter.messages()) {
      say({ [text]: { data, by, mode } });
      if (text === "stop") break;
    }
    if (given.ends) await emitter.executionComplete({ result: "told" });
    else for await (const { text } of emitter.messages()) say({ late: text }); // until it is cancelled
    say({ done: true });
  },

  async refusals() {
    const emitter = make();
    const found = await failure(emitter.executionStarted({ task: "t" }).then(() => emitter.flush()));
    say({ found, later: await failure(emitter.thinking({ thought: "t" })) });
    say({ closed: await failure(emitter.close()) });
    say({ after: await failure(emitter.thinking({ thought: "t" })) });
  },

  async unknown() {
    const emitter = make();
    await emitter.thinking({ thought: "t" });
    say({ found: await failure(emitter.flush()) });
  },

  async hurt() {
    const emitter = make();
    await emitter.executionStarted({ task: "hurt" });
    const cycle = { name: "c" };
    cycle.self = cycle;
    const hostile = {
      get boom() {
        throw new Error("boom");
      },
      toString() {
        throw new Error("no");
      },
    };
    const deep = { v: 1 };
    for (let at = deep, level = 0; level < 200; level += 1) at = at.v = { v: level };
    await emitter.toolStart({
      callId: 7,
      toolName: null,
      params: {
        cycle,
        hostile,
        deep,
        big: 10n ** 30n,
        small: 5n,
        nan: NaN,
        date: new Date(0),
        map: new Map([["a", 1]]),
        set: new Set([1]),
        bytes: new Uint8Array(3),
        fn() {},
        url: new URL("http://x.test/a"),
        error: new TypeError("t"),
        nothing: undefined,
        half: "a\ud83d",
        ["__proto__"]: 1,
      },
    });
    await emitter.thinking({ thought: "x".repeat(200_000) });
    await emitter.toolComplete({
      callId: "7",
      toolName: "t",
      result: { rows: Array.from({ length: 50_000 }, (_, at) => ({ at, text: "é" })) },
      duration: "1.5",
    });
    await emitter.progress({ progress: 250 });
    await emitter.progress({ progress: "x", unknown: 1 });
    await emitter.status();
    await emitter.planCreated({ goal: ["g"], phases: "only" });
    await emitter.usage({ inputTokens: "12", outputTokens: null, costUsd: "free" });
    await emitter.timeout({ message: "m", action: "whatever" });
    await emitter.custom("Not A Name!", [1]);
    await emitter.artifact({
      artifactId: "a",
      mediaType: "image/png",
      url: "data:image/png;base64," + "A".repeat(100_000),
    });
    await emitter.messageComplete({ messageId: "long", text: "ä".repeat(40_000) });
    await emitter.messageDelta({ messageId: "e", delta: "\ud83d" });
    await emitter.messageDelta({ messageId: "e", delta: "\ude00!" });
    await emitter.messageDelta({ messageId: "e", delta: "end\ud83d" });
    say({ sync: await failure(emitter.emit("no:such", {})) });
    say({
      strict: await failure(new AgentEmitter({ url, token, executionId, strict: true }).progress({ progress: 101 })),
    });
    say({ question: await failure(emitter.ask("q".repeat(100_000))) });
    await emitter.executionComplete({ result: cycle });
  },

  /** `signal` is open when the execution ends; nothing is closed. */
  async signalled() {
    const emitter = make();
    emitter.signal.addEventListener("abort", () => say({ aborted: true }));
    await emitter.executionStarted({ task: "signalled" });
    await emitter.flush();
    await sleep(500);
    await emitter.executionComplete({ result: 1 });
    say({ done: true });
  },

  async silent() {
    const emitter = make();
    await emitter.executionStarted({ task: "silent" });
    await emitter.flush();
    say({ started: true });
    if (given.seconds) await sleep(given.seconds * 1000);
    else return; // nothing keeps the process alive
    await emitter.executionComplete({ result: 1 });
    say({ done: true });
  },

  async full() {
    const emitter = make({ maxQueueEvents: 5, ...given.more });
    const first = emitter.executionStarted({ task: "full" });
    await emitter.flush().catch(() => {});
    say({ started: true });
    await new Promise((resolve) => process.stdin.once("data", resolve));
    const calls = [];
    for (let number = 0; number < 30; number += 1) {
      calls.push(emitter.messageDelta({ messageId: `m${number}`, delta: `<${number}>` }));
      if (given.events) calls.push(emitter.status({ status: "n", message: String(number) }));
    }
    say({ failures: (await Promise.all(calls.map(failure))).filter(Boolean).map(({ name }) => name) });
    await new Promise((resolve) => process.stdin.once("data", resolve));
    await emitter.flush();
    await emitter.status({ status: "after", message: "" });
    await emitter.executionComplete({ result: 1 });
    process.stdin.destroy();
    await first;
    say({ done: true });
  },

  async lost() {
    const emitter = make({ flushTimeoutMs: 300, closeTimeoutMs: 300 });
    emitter.executionStarted({ task: "lost" });
    say({ flush: await failure(emitter.flush()) });
    say({ complete: await failure(emitter.executionComplete({ result: 1 })) });
    const began = Date.now();
    const close = await failure(emitter.close());
    say({ close, took: Date.now() - began });
  },

  async exit() {
    const emitter = make();
    endOnExit(emitter);
    await emitter.executionStarted({ task: "exit" });
    if (given.own)
      process.on("SIGTERM", () => {
        say({ own: true });
        setTimeout(() => process.exit(3), 5000);
      });
    say({ started: true });
    if (given.waits) await sleep(60_000);
  },

  async cancels() {
    const emitter = make();
    await emitter.executionStarted({ task: "cancels" });
    say({ end: await failure(emitter.executionCancelled({ reason: "enough" })) });
  },
};

try {
  await scenes[scene]();
} catch (error) {
  if (error instanceof ExecutionEnded) say({ ended: named(error) });
  else throw error;
}
