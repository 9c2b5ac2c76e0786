#!/usr/bin/env bash
# The A2A SDK for Python codes the bytes of a file twice in base 64 over HTTP+JSON, and once over JSON-RPC.
#
# Seen with a2a-sdk 0.3.26 and httpx 0.28.1, Python 3.11. `FileWithBytes.bytes` is text, base 64 already, as the
# specification of 0.3 has it (section 6.6.2). Over JSON-RPC it is sent as it is. The REST transport makes a protobuf
# message of it first, whose field is bytes; it puts the text there without decoding it, and ProtoJSON codes bytes in
# base 64 once more. A server that decodes once has base 64 where the file should be. A good guess would have been that
# both transports of one client send the same `bytes`.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/home"
"$folder/home/bin/pip" install --quiet --disable-pip-version-check a2a-sdk==0.3.26 httpx==0.28.1
"$folder/home/bin/python" - <<'PY'
import asyncio
import base64
import contextlib
import json

import httpx
from a2a.client import ClientConfig, ClientFactory
from a2a.types import AgentCapabilities, AgentCard, FilePart, FileWithBytes, Message, Part, Role

FILE = b"what the file holds"
sent = {}


def answer(request: httpx.Request) -> httpx.Response:
    sent[request.url.path] = json.loads(request.content)
    return httpx.Response(500)


def found(value: object) -> str | None:
    """The first text that stands under a key that begins like `fileWithBytes` or `bytes`."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name in ("fileWithBytes", "file_with_bytes", "bytes") and isinstance(item, str):
                return item
            if (inner := found(item)) is not None:
                return inner
    if isinstance(value, list):
        for item in value:
            if (inner := found(item)) is not None:
                return inner
    return None


async def send(transport: str) -> None:
    card = AgentCard(
        name="n", description="d", version="1", url=f"http://agent.invalid/{transport}", preferred_transport=transport,
        capabilities=AgentCapabilities(streaming=False), default_input_modes=[], default_output_modes=[], skills=[],
    )
    file = FilePart(file=FileWithBytes(bytes=base64.b64encode(FILE).decode(), name="f.txt", mime_type="text/plain"))
    message = Message(message_id="m", role=Role.user, parts=[Part(root=file)])
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        config = ClientConfig(httpx_client=http, streaming=False, supported_transports=[transport])
        client = ClientFactory(config).create(card)
        with contextlib.suppress(Exception):  # the answer is an error on purpose: only what is sent matters
            async for _ in client.send_message(message):
                pass


for transport in ("JSONRPC", "HTTP+JSON"):
    asyncio.run(send(transport))
once, twice = (found(body) for _, body in sorted(sent.items(), key=lambda item: "HTTP" in item[0]))
print("JSON-RPC:", once)
print("HTTP+JSON:", twice)
assert base64.b64decode(once) == FILE
assert base64.b64decode(twice) != FILE
assert base64.b64decode(base64.b64decode(twice)) == FILE
PY
