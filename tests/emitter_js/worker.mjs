// A worker for the tests: `node worker.mjs worker JSON`.
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { Fatal, Retry, createWorker } from "../../emitter/js/worker.js";
import { stopOnSignal } from "../../emitter/js/node.js";

const { url, token, options = {} } = JSON.parse(process.argv[3]);
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");

const agents = {
  "js-count": {
    description: "Counts words",
    tags: ["test"],
    inputSchema: { type: "object" },
    maxAttempts: 2,
    async run({ emitter, task, params, attempt, owner, executionId }) {
      say({ began: executionId, attempt, owner, params });
      for (const word of task.split(" ")) await emitter.text(word + " ");
      return { words: task.split(" ").length };
    },
  },
  "js-listens": {
    acceptsMessages: true,
    async run({ emitter, executionId }) {
      say({ began: executionId });
      for await (const { text } of emitter.messages()) return { heard: text };
    },
  },
  "js-ask": async ({ ask }) => ({ answer: await ask("sure?", { kind: "text" }) }),
  "js-long": {
    maxAttempts: 3,
    async run({ signal, executionId, attempt }) {
      say({ began: executionId, attempt });
      await sleep(60_000, undefined, { signal }).catch(() => {
        throw signal.reason;
      });
    },
  },
  "js-deaf": {
    maxAttempts: 1,
    async run({ executionId, params }) {
      say({ began: executionId });
      await sleep(params.seconds * 1000);
      return "late";
    },
  },
  "js-limited": {
    timeLimit: 1,
    async run({ signal }) {
      await sleep(60_000, undefined, { signal });
    },
  },
  "js-fails": {
    maxAttempts: 3,
    async run({ params, attempt, failed }) {
      say({ attempt, failed });
      if (params.how === "retry" && attempt < 3) throw new Retry("not yet", { after: 0 });
      if (params.how === "always") throw new Retry("never", { after: 0 });
      if (params.how === "broken") {
        if (attempt === 1) throw Object.assign(new Error("reset"), { code: "ECONNRESET" });
        return "again";
      }
      if (params.how === "fatal") throw new Fatal("no use");
      if (params.how === "plain") throw new TypeError("a fault");
      return "at last";
    },
  },
  "js-brief": async ({ executionId, attempt }) => {
    say({ began: executionId, attempt });
    await sleep(300);
    return attempt;
  },
};

const worker = createWorker({
  url,
  token,
  agents,
  onError: (error, job) => say({ error: String(error), job }),
  ...options,
});
stopOnSignal(worker);
say({ name: worker.name });
try {
  await worker.run();
  say({ stopped: true });
} catch (error) {
  say({ refused: { kind: error.constructor.name, status: error.status } });
}
