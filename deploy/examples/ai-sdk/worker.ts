// The same agent for others to start: from the console, a chat (`useChat`), A2A, a schedule, or
// `runcast run tidy "Tidy it" --follow`.
//
//   export RUNCAST_URL=http://localhost:8080 RUNCAST_TOKEN=…    # scope: jobs:run
//   npm ci && node worker.ts /path/to/a/folder
import { pipe } from "@runcast/emitter/ai-sdk";
import { stopOnSignal } from "@runcast/emitter/node";
import { createWorker } from "@runcast/emitter/worker";
import { tidy } from "./tidy.ts";

const { RUNCAST_URL: url = "http://localhost:8080", RUNCAST_TOKEN: token = "" } = process.env;
const folder = process.argv[2] ?? ".";

const worker = createWorker({
  url,
  token,
  concurrency: 4,
  agents: {
    tidy: {
      description: "Removes the largest file of a folder, if you approve",
      maxAttempts: 3,
      timeLimit: 3600,
      async run({ emitter, task }) {
        const { text } = await pipe(tidy(folder), emitter, { prompt: task });
        return text;
      },
    },
  },
  onError: (error, job) => console.error(job?.executionId ?? "edge", error),
});
stopOnSignal(worker); // running jobs finish, or go to other workers
await worker.run();
