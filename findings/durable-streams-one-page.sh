#!/usr/bin/env bash
# The Durable Streams client for TypeScript reads one page and stops, if it is asked for no more than what there is.
#
# Seen with @durable-streams/client 0.2.7 and Node 20. A server may answer a read with a part (no `Stream-Up-To-Date`),
# and the client goes on from `Stream-Next-Offset`. But with `live: false` ("catch-up only, stop at first upToDate") it
# stops after the first response, without an error: `json()` has the first page of a longer stream, and `upToDate` is
# false. With any other `live` the same `json()` has all pages and stops there, too. The client for Python
# (durable-streams 0.1.0) goes over all pages with `live=False`. A good guess would have been that both do.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{"type":"module"}' >package.json
npm install --silent --no-audit --no-fund @durable-streams/client@0.2.7
cat >run.mjs <<'JS'
import http from "node:http";
import assert from "node:assert";
import { stream } from "@durable-streams/client";

// Three pages of one item each.
const server = http.createServer((request, response) => {
  const at = Math.max(0, Number(new URL(request.url, "http://x").searchParams.get("offset")));
  const headers = { "content-type": "application/json", "Stream-Next-Offset": String(Math.min(at + 1, 3)) };
  if (at >= 2) headers["Stream-Up-To-Date"] = "true";
  response.writeHead(200, headers).end(JSON.stringify(at < 3 ? [at] : []));
});
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
const url = `http://127.0.0.1:${server.address().port}/s`;

async function read(live) {
  const response = await stream({ url, offset: "-1", live });
  return { items: await response.json(), upToDate: response.upToDate };
}

const once = await read(false);
const all = await read("long-poll");
console.log("live: false      ", once);
console.log('live: "long-poll"', all);
assert.deepEqual(once, { items: [0], upToDate: false });
assert.deepEqual(all, { items: [0, 1, 2], upToDate: true });
process.exit(0);
JS
node --no-warnings run.mjs
