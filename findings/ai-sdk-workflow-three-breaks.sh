#!/usr/bin/env bash
# WorkflowChatTransport gives up at the third broken connection of a run, however much arrived in between.
#
# Seen with @ai-sdk/workflow 2.0.43 and Node 20. `maxConsecutiveErrors` (3) is the "maximum number of consecutive errors
# allowed during reconnection attempts". But a reconnect that delivers chunks and breaks later counts as an error like one
# that delivers nothing; only a response that ends by itself sets the count back. So a run of hours, whose connection
# breaks once an hour and is resumed each time, fails at the third break. The break of the POST is not counted. A good
# guess would have been that progress ends a row of errors. A server that has to close a stream early does it no harm if
# it ends the response cleanly without `finish`.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{"type":"module"}' >package.json
npm install --silent --no-audit --no-fund --legacy-peer-deps @ai-sdk/workflow@2.0.43 zod@4.1.12
cat >run.mjs <<'JS'
import http from "node:http";
import assert from "node:assert";
import { WorkflowChatTransport } from "@ai-sdk/workflow/client";

// A run of 40 chunks. Each response brings five more; then its connection breaks, or the response ends.
const chunks = [{ type: "start" }, { type: "text-start", id: "t" }];
while (chunks.length < 38) chunks.push({ type: "text-delta", id: "t", delta: `${chunks.length} ` });
chunks.push({ type: "text-end", id: "t" }, { type: "finish" });
let breaks;
const server = http.createServer((request, response) => {
  const from = Number(new URL(request.url, "http://x").searchParams.get("startIndex") ?? 0);
  response.writeHead(200, { "content-type": "text/event-stream", "x-workflow-run-id": "run" });
  for (const chunk of chunks.slice(from, from + 5)) response.write(`data: ${JSON.stringify(chunk)}\n\n`);
  setTimeout(() => (breaks ? response.destroy() : response.end()), 20);
});
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
console.error = () => {};

async function received(how) {
  breaks = how === "breaks";
  const transport = new WorkflowChatTransport({ api: `http://127.0.0.1:${server.address().port}/chat` });
  const stream = await transport.sendMessages({ chatId: "c", messages: [], trigger: "submit-message" });
  let count = 0;
  try {
    for await (const _ of stream) count++;
    return { count };
  } catch (error) {
    return { count, error: error.message };
  }
}

const ended = await received("ends");
const broken = await received("breaks");
console.log("each response ends: ", ended);
console.log("each response breaks:", broken);
assert.deepEqual(ended, { count: 40 });
assert.equal(broken.count, 20); // five by the POST, and five by each of three GETs
assert.match(broken.error, /Failed to reconnect after 3 consecutive errors/);
process.exit(0);
JS
node --no-warnings run.mjs
