// The clients in JavaScript of `test_all_clients.py`: `node all_clients.mjs KIND '{"urls", "token", "jobs"}'`.
// Each job follows an execution (`execution`, of `thread`, which somebody else started) or starts one (`agent`, `text`,
// `params`), to its end. When the connection is lost it goes on at the next of the URLs; where it is asked, it waits for
// a line if `waits`, and answers (`answer`). Prints what it is at, and in the end what it has of each job.
import { given, kind, say } from "./all_given.mjs";

const MODULES = {
  a2a03: "./all_a2a.mjs",
  a2a10: "./all_a2a.mjs",
  ai5: "./all_ai_sdk.mjs",
  ai6: "./all_ai_sdk.mjs",
  ai7: "./all_ai_sdk.mjs",
  "ai7-counted": "./all_ai_sdk.mjs",
  "ag-ui": "./all_ag_ui.mjs",
  native: "./all_native.mjs",
};

console.warn = (...words) => say({ at: "warned", words: words.join(" ") });
console.error = () => {};

const { follow } = await import(MODULES[kind]);
const outcomes = [];
for (const [number, job] of given.jobs.entries()) outcomes.push(await follow(job, number));
process.stdout.write(JSON.stringify({ outcomes }) + "\n", () => process.exit(0));
