// Agents of the AI SDK for the tests: `node ai_sdk.mjs <ai6|ai7> JSON`. The model is the package's own for tests.
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { AgentEmitter } from "../../emitter/js/index.js";
import { pipe } from "../../emitter/js/ai-sdk.js";

const [version, json] = process.argv.slice(2);
const { url, token, executionId, scene } = JSON.parse(json);
const ai = await import(version);
const testing = await import(`${version}/test`);
const Model = testing.MockLanguageModelV4 ?? testing.MockLanguageModelV3;
const { simulateReadableStream } = ai.simulateReadableStream ? ai : testing;
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");

const usage = (input, output) => ({
  inputTokens: { total: input, noCache: input, cacheRead: 0, cacheWrite: 0 },
  outputTokens: { total: output, text: output, reasoning: 0 },
});
const finish = (reason, input = 3, output = 10) => ({
  type: "finish",
  finishReason: { unified: reason, raw: reason },
  usage: usage(input, output),
});
const text = (id, ...chunks) => [
  { type: "text-start", id },
  ...chunks.map((delta) => ({ type: "text-delta", id, delta })),
  { type: "text-end", id },
];
const reasoning = (id, ...chunks) => [
  { type: "reasoning-start", id },
  ...chunks.map((delta) => ({ type: "reasoning-delta", id, delta })),
  { type: "reasoning-end", id },
];
const calls = (toolCallId, toolName, input) => ({
  type: "tool-call",
  toolCallId,
  toolName,
  input: JSON.stringify(input),
});

/** A model that answers each of its calls with the next of these streams; `heard` are the prompts. */
const heard = [];
function model(...answers) {
  let number = 0;
  return new Model({
    modelId: "mock-1",
    doStream: async ({ prompt }) => {
      heard.push(prompt);
      const chunks = [
        { type: "stream-start", warnings: [] },
        { type: "response-metadata", id: "r", modelId: "mock-1", timestamp: new Date(0) },
        ...answers[number++],
      ];
      return {
        stream: simulateReadableStream({
          chunks,
          initialDelayInMs: null,
          chunkDelayInMs: scene === "cancel" ? 200 : 1,
        }),
      };
    },
  });
}

const ran = [];
const tools = {
  weather: ai.tool({
    description: "w",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => {
      ran.push(city);
      return { city, degrees: 21 };
    },
  }),
  broken: ai.tool({
    description: "b",
    inputSchema: z.object({}),
    execute: async () => {
      throw new RangeError("no");
    },
  }),
  slow: ai.tool({
    description: "s",
    inputSchema: z.object({}),
    execute: async function* () {
      yield { done: 1 };
      yield { done: 2 };
    },
  }),
  remove: ai.tool({
    description: "r",
    inputSchema: z.object({ path: z.string() }),
    needsApproval: true,
    execute: async ({ path }) => {
      ran.push(path);
      return "removed";
    },
  }),
};
const stopWhen = (ai.isStepCount ?? ai.stepCountIs)(8);
const emitter = new AgentEmitter({ url, token, executionId });
const quiet = { onError() {} };

const scenes = {
  async result() {
    const two = model(
      [
        ...reasoning("0", "let ", "me see"),
        ...text("0", "I look. "),
        calls("c1", "weather", { city: "Ulm" }),
        calls("c2", "broken", {}),
        calls("c3", "slow", {}),
        finish("tool-calls"),
      ],
      [
        ...text("0", "It is ", "21."),
        { type: "source", sourceType: "url", id: "s1", url: "http://x.test/", title: "X" },
        {
          type: "file",
          mediaType: "image/png",
          data: version === "ai7" ? { type: "data", data: "iVBORw0K" } : "iVBORw0K",
        },
        finish("stop", 20, 5),
      ],
    );
    await emitter.executionStarted({ task: "weather" });
    say({ piped: await pipe(ai.streamText({ model: two, tools, stopWhen, prompt: "weather?", ...quiet }), emitter) });
    await emitter.executionComplete({ result: "ok" });
  },
  async task() {
    const result = ai.streamText({ model: model([...text("a", "Hello"), finish("stop")]), prompt: "hi", ...quiet });
    say({ piped: await pipe(result, emitter, { task: "greet" }) });
  },
  async agent() {
    const agent = new ai.ToolLoopAgent({
      model: model(
        [calls("c1", "weather", { city: "Ulm" }), finish("tool-calls")],
        [...text("a", "done"), finish("stop")],
      ),
      tools,
      stopWhen,
    });
    say({ piped: await pipe(agent, emitter, { task: "weather", prompt: "weather?" }) });
  },
  async approval() {
    const answers = model(
      [calls("c0", "weather", { city: "Ulm" }), finish("tool-calls")],
      [calls("c1", "remove", { path: "/a" }), calls("c2", "remove", { path: "/b" }), finish("tool-calls")],
      [...text("a", "done"), finish("stop")],
    );
    const start = (input) => ai.streamText({ model: answers, tools, stopWhen, ...quiet, ...input });
    const piped = await pipe(start, emitter, {
      task: "clean",
      prompt: "clean up",
      question: ({ params }) => `Remove ${params.path}?`,
    });
    say({ piped, ran });
    say({ last: heard.at(-1).filter(({ role }) => role === "tool") });
  },
  async failure() {
    const failing = new Model({
      doStream: async () => {
        throw new TypeError("the model is away");
      },
    });
    const result = ai.streamText({ model: failing, maxRetries: 0, prompt: "hi", ...quiet });
    say({ failed: await pipe(result, emitter, { task: "fail" }).catch(String) });
  },
  async cancel() {
    const long = model([calls("c1", "wait", {}), finish("tool-calls")]);
    const wait = ai.tool({
      description: "w",
      inputSchema: z.object({}),
      execute: async (_, { abortSignal }) => {
        await sleep(30_000, undefined, { signal: abortSignal });
      },
    });
    const start = (input) => ai.streamText({ model: long, tools: { wait }, stopWhen, ...quiet, ...input });
    const failed = await pipe(start, emitter, { task: "long", prompt: "wait" }).catch(({ name, reason }) => ({
      name,
      reason,
    }));
    say({ failed });
  },
};

await scenes[scene]();
say({ done: true });
