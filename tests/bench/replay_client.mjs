/**
 * Opens an execution once with the browser client, in a process that has opened nothing before, and prints
 * {ms, events, frames, characters}: the time to the state at `stream:live`, and what arrived until then.
 *
 *     node replay_client.mjs URL TOKEN EXECUTION COMPACT
 */
import process from "node:process";
import { Fold, RuncastClient } from "../../broker/web/client/index.js";

const [url, token, executionId, compact] = process.argv.slice(2);
const client = new RuncastClient({ baseUrl: url, token });
await client.agents(); // the first request of a process is no part of it
const fold = new Fold(executionId);
const seen = { events: 0, frames: 0, characters: 0 };
const began = performance.now();
const stream = client.stream({
  executionId,
  compact: compact === "true",
  onEvent(event, size) {
    seen.events += 1;
    seen.frames += 1;
    seen.characters += size;
    fold.apply(event);
  },
  onControl({ type }) {
    seen.frames += 1;
    if (type !== "stream:live") return;
    const text = fold.state().text.length;
    console.log(JSON.stringify({ ms: performance.now() - began, text, ...seen }));
    stream.close();
    process.exit(0);
  },
});
stream.start();
