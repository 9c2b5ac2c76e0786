#!/usr/bin/env bash
# redis-py takes the code off the errors that it has a class for, and leaves it on all others.
#
# Seen with redis-py 8.1.0 and hiredis 3.5.0, Python 3.11. A reply `-CROSSSLOT Keys in request …` becomes a
# ClusterCrossSlotError whose text begins with "Keys": a test for `str(error).startswith("CROSSSLOT")` is never true.
# `-WRONGTYPE …` has no class of its own, becomes a ResponseError, and keeps its code; so does `-BUSY …`. A good guess
# would have been one rule for all: the text of an error is what the server sent.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/home"
"$folder/home/bin/pip" install --quiet --disable-pip-version-check redis==8.1.0 hiredis==3.5.0
"$folder/home/bin/python" - <<'PY'
import asyncio

from redis.asyncio import Redis

REPLIES = {
    "CROSSSLOT": b"-CROSSSLOT Keys in request don't hash to the same slot\r\n",
    "NOSCRIPT": b"-NOSCRIPT No matching script.\r\n",
    "READONLY": b"-READONLY You can't write against a read only replica.\r\n",
    "WRONGTYPE": b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
    "BUSY": b"-BUSY Redis is busy running a script.\r\n",
}


async def main() -> None:
    replies = iter(REPLIES.values())

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(4096):
            writer.write(next(replies))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = Redis(port=port, protocol=2, driver_info=None, single_connection_client=True)
    seen = {}
    for code in REPLIES:
        try:
            await client.get("k")
        except Exception as error:
            seen[code] = (type(error).__name__, str(error).startswith(code))
    print(seen)
    await client.aclose()
    server.close()
    assert seen == {
        "CROSSSLOT": ("ClusterCrossSlotError", False),
        "NOSCRIPT": ("NoScriptError", False),
        "READONLY": ("ReadOnlyError", False),
        "WRONGTYPE": ("ResponseError", True),
        "BUSY": ("ResponseError", True),
    }, seen


asyncio.run(main())
PY
echo "as described"
