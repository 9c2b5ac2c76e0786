"""Print an execution's events, over as many connections as it takes. `pip install aiohttp`, then:

python aiohttp_reader.py 'http://localhost:8080/api/agent/executions/ID/stream?heartbeat=3' TOKEN
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

import aiohttp

LAST = ("execution:complete", "execution:error", "execution:cancelled")
LOST = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError)
SILENCE = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=10)


async def events(url: str, token: str) -> AsyncIterator[tuple[str, str]]:
    """Yield the id and the JSON of each event. Raises `ClientResponseError` for what another try does not mend."""
    cursor, retry = "", "2000"
    async with aiohttp.ClientSession(timeout=SILENCE, read_bufsize=2**20) as session:
        while True:
            headers = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream", "Last-Event-ID": cursor}
            with contextlib.suppress(*LOST):
                async with session.get(url, headers=headers) as response:
                    if response.status == 204:
                        return
                    if response.status < 500 and response.status != 429:
                        response.raise_for_status()
                    field: dict[str, str] = {}
                    async for line in response.content:
                        name, _, value = line.decode().rstrip("\n").partition(": ")
                        field[name] = value
                        if line == b"\n":
                            event, data = field.get("event", ""), field.get("data", "")
                            cursor, retry, field = field.get("id", cursor), field.get("retry", retry), {}
                            if data and not event.startswith("stream:"):
                                yield cursor, data
                            if event in LAST or (event == "stream:end" and '"reason":"finished"' in data):
                                return
            await asyncio.sleep(int(retry) / 1000)  # lost, silent, or over for now: it goes on where it was


async def main() -> None:
    async for event in events(*sys.argv[1:]):
        print(*event, flush=True)


asyncio.run(main())
