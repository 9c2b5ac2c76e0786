#!/usr/bin/env bash
# In Chromium a `fetch` of a stream may join the response that another `fetch` of its URL is still reading: it gets that one
# from its first byte, whatever its own `Last-Event-ID` said, and the server sees no second request.
#
# Seen with Chromium 156 (headless) and Node 20. The stream has `Cache-Control: max-age=60`, as a framework, a CDN or a
# proxy may add it; it needs neither a length nor an end. One fetch reads it from its cache entry, which is being written,
# live, and another 0.7 s later reads along: first at once what there was, then each event as it comes. Headers that the
# response does not name in `Vary` do not count, so one that resumes behind event 1 gets events 0 and 1 again. With
# `no-cache`, with `no-store`, and without the header, each fetch has a request of its own; so has an `EventSource` always.
# A good guess would have been that only a response that is complete can be taken from the cache, and that otherwise the
# second fetch waits for the first (as it does until the first has its head) or asks for itself.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/run.mjs" <<'JS'
import assert from "node:assert";
import { spawn } from "node:child_process";
import http from "node:http";

const page = `<script type="module">
const read = async (url, headers) => {
  const chunks = [];
  for await (const text of (await fetch(url, { headers })).body.pipeThrough(new TextDecoderStream())) chunks.push(text);
  return chunks.join("");
};
const viaEventSource = (url) => new Promise((told) => {
  const source = new EventSource(url);
  source.onmessage = (event) => { source.close(); told("data: " + event.data + "\\n\\n"); };
});
const found = {};
for (const control of ["max-age=60", "no-cache", "no-store", ""]) {
  const url = "/stream?" + control;
  const first = read(url, {});
  await new Promise((wake) => setTimeout(wake, 700));
  const second = read(url, { "Last-Event-ID": "1" });
  const source = viaEventSource(url);
  found[control] = [await first, await second, await source];
}
await fetch("/told", { method: "POST", body: JSON.stringify(found) });
</script>`;

let count = 0;
const told = new Promise((done) => {
  const server = http.createServer((request, response) => {
    if (request.method === "POST") {
      let body = "";
      request.on("data", (text) => (body += text)).on("end", () => done(JSON.parse(body)));
    } else if (request.url.startsWith("/stream")) {
      const control = decodeURIComponent(request.url.split("?")[1]);
      const name = `request ${++count}`;
      response.writeHead(200, { "Content-Type": "text/event-stream", ...(control && { "Cache-Control": control }) });
      let number = Number(request.headers["last-event-id"] ?? -1) + 1;
      const timer = setInterval(() => {
        response.write(`data: ${name}, event ${number}\n\n`);
        if (number++ === 5) response.end(), clearInterval(timer);
      }, 250);
      response.on("close", () => clearInterval(timer));
    } else response.writeHead(200, { "Content-Type": "text/html" }).end(page);
  });
  server.listen(0, "127.0.0.1", () => {
    const flags = ["--headless=new", "--no-sandbox", "--disable-gpu", `--user-data-dir=${process.argv[2]}/profile`];
    const url = `http://127.0.0.1:${server.address().port}/`;
    const browser = spawn("chromium", [...flags, url], { stdio: "ignore", detached: true });
    process.on("exit", () => process.kill(-browser.pid, "SIGKILL"));
  });
});
setTimeout(() => process.exit(2), 60_000).unref();

const found = await told;
const requests = (text) => [...new Set(text.match(/request \d+/g))].join(" and ");
const events = (text) => text.match(/(?<=event )\d/g).join(" ");
for (const [control, texts] of Object.entries(found))
  console.log(`${control || "without the header"}:`, texts.map((text) => `${requests(text)}: ${events(text)}`).join("; "));
const [first, second, source] = found["max-age=60"];
assert.equal(second, first, "the second fetch reads the first one's response");
assert.equal(events(second), "0 1 2 3 4 5");
assert.notEqual(requests(source), requests(first));
for (const control of ["no-cache", "no-store", ""]) {
  assert.notEqual(requests(found[control][1]), requests(found[control][0]));
  assert.equal(events(found[control][1]), "2 3 4 5");
}
console.log("as described");
process.exit(0);
JS
node "$folder/run.mjs" "$folder"
