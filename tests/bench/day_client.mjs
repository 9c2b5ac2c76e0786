/**
 * A page that is open all day: the watch of an execution, and the list of all. Prints `{"live": true}` once, and for
 * each line on stdin `{heap, events}`: bytes after a collection, and what the watch got so far.
 *
 *     node --expose-gc day_client.mjs URL TOKEN EXECUTION
 */
import process from "node:process";
import readline from "node:readline";
import { RuncastClient } from "../../broker/web/client/index.js";
import { ExecutionFeed } from "../../broker/web/client/feed.js";

const [baseUrl, token, executionId] = process.argv.slice(2);
const client = new RuncastClient({ baseUrl, token });
const say = (what) => process.stdout.write(JSON.stringify(what) + "\n");
let events = 0;
const onControl = ({ type }) => type === "stream:live" && say({ live: true });
const watch = client.watch(executionId, { onEvent: () => (events += 1), onControl, keepEvents: 500 });
const feed = new ExecutionFeed(client);
// As components do: they look whenever something has changed.
for (const each of [watch, feed]) each.subscribe(() => each.getSnapshot());
watch.start();
feed.start();

readline.createInterface({ input: process.stdin }).on("line", () => {
  globalThis.gc();
  say({ heap: process.memoryUsage().heapUsed, events });
});
