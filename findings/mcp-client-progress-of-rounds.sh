#!/usr/bin/env bash
# The MCP client for TypeScript calls `onprogress` with the numbers of its own input rounds, between those of the server.
#
# Seen with @modelcontextprotocol/client 2.4.0, Node 20.20. A server of 2026-07-28 sends progress 50 for a call, which then
# ends with `input_required`; the client asks its user, calls again, and the server sends progress 80. The caller's
# `onprogress` gets 50, 1, 80: the 1 is made by the client, which counts rounds. A bar that shows it goes back, and a caller
# that takes a smaller value for a fault of the server blames the wrong one. The specification has progress rise with each
# notification (basic/patterns/progress). A good guess would have been that `onprogress` gets what the server sends.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{"type":"module"}' >package.json
npm install --silent --no-audit --no-fund @modelcontextprotocol/client@2.4.0
cat >try.mjs <<'JS'
import assert from "node:assert";
import http from "node:http";
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

const discovered = { supportedVersions: ["2026-07-28"], capabilities: { tools: {} }, ttlMs: 0, cacheScope: "private" };
const question = {
  method: "elicitation/create",
  params: { mode: "form", message: "?", requestedSchema: { type: "object", properties: { a: { type: "string" } } } },
};

/** What a request is answered with, after a progress of this value. */
function answer({ method, params }) {
  if (method === "server/discover") return [null, { resultType: "complete", ...discovered }];
  if (method === "tools/list") return [null, { resultType: "complete", tools: [], ttlMs: 0, cacheScope: "private" }];
  if (!params.inputResponses) return [50, { resultType: "input_required", inputRequests: { q: question } }];
  return [80, { resultType: "complete", content: [{ type: "text", text: "done" }] }];
}

const server = http.createServer(async (request, response) => {
  let body = "";
  for await (const piece of request) body += piece;
  if (request.method !== "POST") return response.writeHead(405).end();
  const message = JSON.parse(body);
  if (message.id === undefined) return response.writeHead(202).end();
  const [progress, result] = answer(message);
  const progressToken = message.params?._meta?.progressToken;
  response.writeHead(200, { "Content-Type": "text/event-stream" });
  if (progress !== null) {
    const told = { jsonrpc: "2.0", method: "notifications/progress", params: { progressToken, progress } };
    response.write(`data: ${JSON.stringify(told)}\n\n`);
  }
  response.end(`data: ${JSON.stringify({ jsonrpc: "2.0", id: message.id, result })}\n\n`);
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));

const client = new Client(
  { name: "t", version: "1" },
  { capabilities: { elicitation: {} }, versionNegotiation: { mode: "auto" } },
);
client.setRequestHandler("elicitation/create", async () => ({ action: "accept", content: { a: "b" } }));
await client.connect(new StreamableHTTPClientTransport(new URL(`http://127.0.0.1:${server.address().port}/mcp`)));
const seen = [];
await client.callTool({ name: "t", arguments: {} }, { onprogress: ({ progress }) => seen.push(progress) });
await client.close();
server.close();
console.log(seen);
assert.deepEqual(seen, [50, 1, 80]);
JS
timeout 60 node try.mjs
