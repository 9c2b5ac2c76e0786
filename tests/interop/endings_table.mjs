// What clients have of executions that ended: `node endings_table.mjs`. In: for each a JSON line {log: [{id, event}],
// threads: [[body]], page: body}. Out: for each a JSON line {fold, threads, page}: what the client's fold, AG-UI's client
// (its verifier on; each body is a run of one thread) and the AI SDK make of them.
import readline from "node:readline";
import { HttpAgent } from "@ag-ui/client";
import { readUIMessageStream } from "ai7";
import { Fold } from "../../broker/web/client/fold.js";

let warnings = [];
console.warn = (...words) => warnings.push(words.join(" "));
console.error = () => {}; // a failed run is reported by what it throws
process.on("unhandledRejection", () => {});

function folded(log) {
  const fold = new Fold();
  for (const { id, event } of log) fold.apply({ id, ...event });
  return fold.state();
}

async function ran(bodies) {
  warnings = [];
  const rest = [...bodies];
  const agent = new HttpAgent({
    url: "http://recorded",
    threadId: "t",
    initialMessages: [{ id: "u1", role: "user", content: "t" }],
    fetch: async () => new Response(rest.shift(), { headers: { "Content-Type": "text/event-stream" } }),
  });
  const errors = [];
  const failures = [];
  let pending = [];
  agent.subscribe({
    onRunFinishedEvent: ({ pendingToolCallIds }) => void (pending = pendingToolCallIds ?? []),
    onRunErrorEvent: ({ event }) => void failures.push(event.message),
  });
  while (rest.length) {
    const resume = agent.pendingInterrupts?.map(({ id }) => ({ interruptId: id, status: "resolved", payload: true }));
    await agent.runAgent(resume?.length ? { resume } : {}).catch((error) => errors.push(error.message));
  }
  return { errors, warnings, failures, pending, messages: agent.messages, state: agent.state };
}

async function read(body) {
  const chunks = body.split("\n\n").filter((frame) => frame.startsWith("data: {")).map((frame) => JSON.parse(frame.slice(6)));
  const stream = new ReadableStream({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(chunk);
      controller.close();
    },
  });
  const errors = [];
  let message = null;
  for await (const each of readUIMessageStream({ stream, onError: (error) => errors.push(error.message) })) message = each;
  return { errors, message };
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  const { log, threads, page } = JSON.parse(line);
  const found = { fold: folded(log), threads: [], page: await read(page) };
  for (const bodies of threads) found.threads.push(await ran(bodies));
  process.stdout.write(JSON.stringify(found) + "\n");
}
process.exit(0);
