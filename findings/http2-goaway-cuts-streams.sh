#!/usr/bin/env bash
# A server that leaves an HTTP/2 connection in good order, and finishes its streams, cuts off every stream of httpx and of
# undici at once; and what httpx raises is none of its own errors.
#
# Seen with httpx 0.28.1, httpcore 1.0.9 and h2 4.4.1 (Python 3.11), and undici 7.30.2 with `allowH2` (Node 20). The server
# sends GOAWAY with NO_ERROR and the number of the client's stream as the last one: it takes no new streams, and this one
# goes on to its end (RFC 9113, section 6.8). nginx sends it to every connection at a reload. curl and node:http2 read on to
# the end. To h2 a connection is closed once GOAWAY was received, so the next event is a `h2.exceptions.ProtocolError`, which
# passes through httpcore and httpx as it is, though their other errors of a lost connection are `httpx.TransportError`.
# undici ends the body with "terminated", whose cause is the frame's code 0. A good guess would have been that streams up to
# the frame's last one go on, or that at least `except httpx.TransportError` is told.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv home
home/bin/pip install --quiet --disable-pip-version-check httpx==0.28.1 httpcore==1.0.9 h2==4.4.1
echo '{"type":"module"}' >package.json
npm install --silent --no-audit --no-fund undici@7.30.2
openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=x -addext subjectAltName=IP:127.0.0.1 \
  2>openssl.log
cat >read.py <<'PY'
import json
import sys

import httpx

events, kind = [], "ended"
with httpx.Client(http2=True, verify="cert.pem") as client:
    try:
        with client.stream("GET", sys.argv[1]) as response:
            assert response.http_version == "HTTP/2"
            for line in response.iter_lines():
                events += [line] if line else []
    except Exception as error:
        kind = f"{type(error).__module__}.{type(error).__name__}: {error}"
        assert not isinstance(error, httpx.HTTPError)
print(json.dumps([len(events), kind]))
PY
cat >run.mjs <<'JS'
import assert from "node:assert";
import { execFile } from "node:child_process";
import fs from "node:fs";
import http2 from "node:http2";
import { promisify } from "node:util";
import { Agent, fetch } from "undici";

const ca = fs.readFileSync("cert.pem");
const server = http2.createSecureServer({ key: fs.readFileSync("key.pem"), cert: ca }, (request, response) => {
  response.writeHead(200, { "content-type": "text/event-stream" });
  let number = 0;
  const timer = setInterval(() => {
    response.write(`data: ${number}\n\n`);
    if (number === 2) response.stream.session.goaway(0, response.stream.id);
    if (++number === 6) response.end(), clearInterval(timer);
  }, 200);
  response.on("close", () => clearInterval(timer));
});
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
const url = `https://127.0.0.1:${server.address().port}/`;
const count = (text) => text.match(/data/g)?.length ?? 0;

const readers = {
  curl: async () => {
    const { stdout } = await promisify(execFile)("curl", ["-sSN", "--http2", "--cacert", "cert.pem", url]);
    return [count(stdout), "ended"];
  },
  "node:http2": () =>
    new Promise((told) => {
      let text = "";
      const session = http2.connect(url, { ca });
      const stream = session.request({ ":path": "/" });
      stream.on("data", (data) => (text += data)).on("error", (error) => told([count(text), error.message]));
      stream.on("end", () => told([count(text), "ended"]));
    }),
  httpx: async () => JSON.parse((await promisify(execFile)("home/bin/python", ["read.py", url])).stdout),
  undici: async () => {
    let text = "";
    try {
      const response = await fetch(url, { dispatcher: new Agent({ allowH2: true, connect: { ca } }) });
      for await (const part of response.body.pipeThrough(new TextDecoderStream())) text += part;
      return [count(text), "ended"];
    } catch (error) {
      return [count(text), `${error.message}: ${error.cause?.message}`];
    }
  },
};
const found = {};
for (const [name, read] of Object.entries(readers)) {
  found[name] = await read();
  console.log(`${name}: ${found[name][0]} of 6 events, then ${found[name][1]}`);
}
for (const name of ["curl", "node:http2"]) assert.deepEqual(found[name], [6, "ended"]);
assert(found.httpx[0] <= 3 && found.httpx[1].startsWith("h2.exceptions.ProtocolError: "));
assert(found.undici[0] <= 3 && found.undici[1] === 'terminated: HTTP/2: "GOAWAY" frame received with code 0');
console.log("as described");
process.exit(0);
JS
node --no-warnings run.mjs
