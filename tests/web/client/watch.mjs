/**
 * Watches an execution that has many events to its end, and reads it with an iterator that is slow at first.
 * Argument: {url, token, executionId}. Prints {told, frames, isStable, isSame, kept, phase, ids, connects}.
 */
import assert from "node:assert/strict";
import process from "node:process";
import { RuncastClient } from "../../../broker/web/client/index.js";

const { url, token, executionId } = JSON.parse(process.argv[2]);
let connects = 0;
/** Of the last stream. @type {AbortSignal} */
let left;
function counting(target, init) {
  if (String(target).includes("/stream")) [connects, left] = [connects + 1, init.signal];
  return fetch(target, init);
}
const client = new RuncastClient({ baseUrl: url, token, fetch: counting });

let frames = 0;
const frame = setInterval(() => (frames += 1), 16);
const watch = client.watch(executionId, { keepEvents: 10 });
let [told, isStable] = [0, true];
let before = watch.getSnapshot();
isStable &&= before === watch.getSnapshot();
const ended = new Promise((resolve) => {
  watch.subscribe(() => {
    told += 1;
    const snapshot = watch.getSnapshot();
    isStable &&= snapshot !== before && snapshot === watch.getSnapshot() && Object.isFrozen(snapshot.state);
    before = snapshot;
    if (snapshot.status.phase === "ended") resolve(undefined);
  });
});
watch.start();
await ended;
clearInterval(frame);
const { state, status, events } = watch.getSnapshot();
assert.deepEqual(JSON.parse(JSON.stringify(state)), await client.execution(executionId));

const ids = [];
connects = 0;
for await (const event of client.stream({ executionId })) {
  ids.push(event.id);
  if (ids.length === 1) await new Promise((resolve) => left.addEventListener("abort", resolve));
}
const kept = events.map((event) => event.id);
console.log(JSON.stringify({ told, frames, isStable, kept, phase: status.phase, ids, connects }));
