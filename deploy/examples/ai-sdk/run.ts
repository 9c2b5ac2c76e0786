// A run that this process publishes itself: it shows in the console, waits there for an approval, and can be cancelled.
//
//   export RUNCAST_URL=http://localhost:8080 RUNCAST_TOKEN=…    # scopes: events:publish executions:read executions:write
//   npm ci && node run.ts /path/to/a/folder
import { AgentEmitter } from "@runcast/emitter";
import { pipe } from "@runcast/emitter/ai-sdk";
import { endOnExit } from "@runcast/emitter/node";
import { tidy } from "./tidy.ts";

const { RUNCAST_URL: url = "http://localhost:8080", RUNCAST_TOKEN: token = "" } = process.env;
const folder = process.argv[2] ?? ".";

const emitter = new AgentEmitter({ url, token });
endOnExit(emitter); // Ctrl-C cancels the execution
console.log(`watch it: ${url}/  execution ${emitter.executionId}`);

try {
  const { text, usage } = await pipe(tidy(folder), emitter, {
    task: `Tidy ${folder}`,
    prompt: "Tidy the folder.",
    question: ({ params }) => `Remove ${(params as { name: string }).name}?`,
    expiresIn: 600,
  });
  console.log(text, usage);
} catch (error) {
  if (!emitter.cancelled) throw error;
  console.log(String(emitter.signal.reason));
}
