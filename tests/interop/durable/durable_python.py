"""An execution as `durable-streams` reads it, unmodified: `durable_python.py <mode> <url> <token>`. Prints each item as
it comes, and at the end where the stream stands.

The client (0.1.0) knows no end of a stream and does not come back by itself: who uses it looks for the last event, and
asks again after an error, from the offset that it has."""

import json
import sys
import time

import httpx
from durable_streams import DurableStreamError, stream

LAST = ("execution:complete", "execution:error", "execution:cancelled")


def read(mode: str, url: str, token: str) -> str:
    live = {"catch-up": False}.get(mode, mode)
    offset, is_over = "-1", False
    headers = {"Authorization": lambda: f"Bearer {token}"}
    until = time.monotonic() + 40
    while not is_over and time.monotonic() < until:
        try:
            with stream(url, offset=offset, live=live, headers=headers) as response:
                for event in response.iter_events("json"):
                    for item in event.data if isinstance(event.data, list) else [event.data]:
                        print(json.dumps({"item": item}), flush=True)
                        is_over = is_over or item["type"] in LAST
                    offset = event.next_offset
                    if is_over:
                        break
            if live is False:
                break
        except (DurableStreamError, httpx.HTTPError):
            time.sleep(0.1)
    return offset


print(json.dumps({"offset": read(*sys.argv[1:])}))
