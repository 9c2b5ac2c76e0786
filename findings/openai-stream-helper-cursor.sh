#!/usr/bin/env bash
# `responses.stream(response_id=…, starting_after=n)` of OpenAI's client for Python does not send the cursor.
#
# Seen with openai 3.57.0 for Python 3.11. The helper asks for the stream from its beginning, reads it all and hands on
# only what is after `n`. A server that keeps the beginning no longer, or that counts on the cursor to send little, is
# asked for all of it; and if it sends only the rest, the helper fails, since it needs `response.created` first.
# `responses.retrieve(id, stream=True, starting_after=n)` of the same client sends it. A good guess would have been that
# a parameter of one name is one parameter of the API.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/home"
"$folder/home/bin/pip" install --quiet --disable-pip-version-check openai==3.57.0
"$folder/home/bin/python" - <<'PY'
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlsplit

from openai import OpenAI

RESPONSE = {"id": "resp_1", "object": "response", "status": "in_progress", "output": [], "model": "m"}
EVENTS = [
    {"type": name, "sequence_number": number, "response": {**RESPONSE, "status": status}}
    for number, (name, status) in enumerate(
        [("response.created", "in_progress"), ("response.in_progress", "in_progress"), ("response.completed", "completed")]
    )
]
asked = []


class Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        asked.append(parse_qs(urlsplit(self.path).query))
        body = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in EVENTS).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


server = HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = OpenAI(base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key="k", max_retries=0)
with client.responses.stream(response_id="resp_1", starting_after=1) as stream:
    shown = [event.sequence_number for event in stream]
list(client.responses.retrieve("resp_1", stream=True, starting_after=1))
print("stream:  ", asked[0], "shows", shown)
print("retrieve:", asked[1])
assert "starting_after" not in asked[0]
assert shown == [2]
assert asked[1]["starting_after"] == ["1"]
PY
