"""Print an execution's events, over as many connections as it takes. `pip install httpx`, then:

python httpx_reader.py 'http://localhost:8080/api/agent/executions/ID/stream?heartbeat=3' TOKEN
"""

import contextlib
import sys
import time
from collections.abc import Iterator

import httpx

LAST = ("execution:complete", "execution:error", "execution:cancelled")


def events(url: str, token: str) -> Iterator[tuple[str, str]]:
    """Yield the id and the JSON of each event. Raises `httpx.HTTPStatusError` for what another try does not mend."""
    cursor, retry = "", "2000"
    while True:
        headers = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream", "Last-Event-ID": cursor}
        stream = httpx.stream("GET", url, headers=headers, timeout=10)
        with contextlib.suppress(httpx.TransportError), stream as response:
            if response.status_code == 204:
                return
            if response.status_code < 500 and response.status_code != 429:
                response.raise_for_status()
            field: dict[str, str] = {}
            for line in response.iter_lines():
                name, _, value = line.partition(": ")
                field[name] = value
                if not line:
                    event, data = field.get("event", ""), field.get("data", "")
                    cursor, retry, field = field.get("id", cursor), field.get("retry", retry), {}
                    if data and not event.startswith("stream:"):
                        yield cursor, data
                    if event in LAST or (event == "stream:end" and '"reason":"finished"' in data):
                        return
        time.sleep(int(retry) / 1000)  # lost, silent for ten seconds, or over for now: it goes on where it was


if __name__ == "__main__":
    for event in events(*sys.argv[1:]):
        print(*event, flush=True)
