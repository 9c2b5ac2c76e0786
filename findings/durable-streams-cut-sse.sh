#!/usr/bin/env bash
# The Durable Streams client for TypeScript comes back after an SSE response that ends, and gives up after one that is
# cut; which of them a dead server is depends on how its body was framed.
#
# Seen with @durable-streams/client 0.2.7 and Node 20. Requests that fail are repeated for ever, and a stream that ends
# without `streamClosed` is opened again. But an error while its body is read ends the session with that error
# ("terminated"). A server process that is killed leaves a closed TCP connection: in a chunked body (what HTTP servers
# choose for a stream) this is an error, and in a body that ends with its connection (`Connection: close`, no
# `Transfer-Encoding`) it is the end. So the same death is fatal with the usual framing, and goes unnoticed with the old
# one. A good guess would have been that a client made for resuming does so in both cases.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{"type":"module"}' >package.json
npm install --silent --no-audit --no-fund @durable-streams/client@0.2.7
cat >run.mjs <<'JS'
import net from "node:net";
import assert from "node:assert";
import { stream } from "@durable-streams/client";

// Item n is at offset n. Each live response brings one item, and then its connection is closed as a kernel closes that of
// a process which is gone. The third item closes the stream.
let framing;
const control = (at) => JSON.stringify(at < 3 ? { streamNextOffset: String(at), streamCursor: "1", upToDate: true } : { streamNextOffset: "3", streamClosed: true });
const body = (at) => `event: data\ndata: [${at}]\n\nevent: control\ndata: ${control(at + 1)}\n\n`;
const server = net.createServer((socket) => {
  socket.on("error", () => {});
  socket.once("data", (request) => {
    const query = new URL(String(request).split(" ")[1], "http://x").searchParams;
    const at = Math.max(0, Number(query.get("offset")));
    if (query.get("live") !== "sse")
      return socket.end(`HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nStream-Next-Offset: ${at}\r\nStream-Up-To-Date: true\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]`);
    const text = body(at);
    const head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";
    const chunked = `${head}Transfer-Encoding: chunked\r\n\r\n${text.length.toString(16)}\r\n${text}\r\n`;
    socket.write(framing === "chunked" ? chunked : `${head}Connection: close\r\n\r\n${text}`);
    setTimeout(() => socket.end(), 1100); // a shorter connection would count as broken by a proxy
  });
});
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));

async function read(how) {
  framing = how;
  const items = [];
  try {
    const response = await stream({ url: `http://127.0.0.1:${server.address().port}/s`, offset: "-1", live: "sse" });
    for await (const item of response.jsonStream()) items.push(item);
    return { items };
  } catch (error) {
    return { items, error: error.message };
  }
}

const plain = await read("connection");
const chunked = await read("chunked");
console.log("the body ends with the connection:", plain);
console.log("the body is chunked:              ", chunked);
assert.deepEqual(plain, { items: [0, 1, 2] });
assert.deepEqual(chunked, { items: [0], error: "terminated" });
process.exit(0);
JS
node --no-warnings run.mjs
