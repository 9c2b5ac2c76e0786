#!/usr/bin/env bash
# The MCP client for Python asks a server of 2026-07-28 for a resumption that this revision does not have.
#
# Seen with mcp 2.3.0, Python 3.11. The stream of a `tools/call` breaks. If none of its events had an `id:`, the client
# raises at once. If one had, it sends two GETs with `Last-Event-ID` and `MCP-Protocol-Version: 2026-07-28`, and raises
# when both have failed, seconds later: "SSE stream ended and reconnection attempts were exhausted". In 2026-07-28 there is
# no GET and no resumption (basic/transports/streamable-http): servers answer 405, and a client is to call again. A good
# guess would have been that ids are ignored there, as the revision has it. So a server of both eras that puts ids into its
# streams must leave them out for clients of the new one: they only delay the error.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check mcp==2.3.0
cat >try.py <<'PY'
import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
from mcp import MCPError
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

ABOUT = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "private"}
seen = []
with_id = False


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        seen.append(("GET", self.headers.get("Last-Event-ID"), self.headers.get("MCP-Protocol-Version")))
        self.send_response(405)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self):
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        seen.append(("POST", message["method"]))
        if "id" not in message:
            self.send_response(202)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if message["method"] == "tools/call":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            told = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "at work"}}
            id_ = b"id: 7\n" if with_id else b""
            self.wfile.write(b"%bdata: %b\n\n" % (id_, json.dumps(told).encode()))
            self.close_connection = True  # as when a server dies in the middle of a call
            return
        result = ABOUT if message["method"] == "server/discover" else {"tools": [], "ttlMs": 0, "cacheScope": "private"}
        body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": {"resultType": "complete", **result}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


async def main(url):
    async with httpx2.AsyncClient(timeout=10) as http:
        async with Client(streamable_http_client(url, http_client=http), mode="auto") as client:
            assert client.protocol_version == "2026-07-28"
            try:
                async with asyncio.timeout(20):
                    await client.call_tool("t", {})
            except MCPError as error:
                return str(error)


server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/mcp"
for with_id, gets in ((False, []), (True, [("GET", "7", "2026-07-28")] * 2)):
    seen.clear()
    error = asyncio.run(main(url))
    print("with an id:" if with_id else "without:", error, seen)
    assert error is not None
    assert [each for each in seen if each[0] == "GET"] == gets
PY
timeout 60 venv/bin/python try.py
