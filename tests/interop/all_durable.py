"""A client of Durable Streams, unmodified, for `test_all_clients.py`: `all_durable.py '{"urls", "token", "jobs"}'`.

Each job follows an execution as a stream of its events, live by SSE. The client does not come back by itself: when the
connection is lost it is asked for the rest, from the offset that it has, at the next of the URLs.
"""

import json
import sys

import httpx
from durable_streams import DurableStreamError, stream

GIVEN = json.loads(sys.argv[1])
LAST = ("execution:complete", "execution:error", "execution:cancelled")


def say(**facts):
    print(json.dumps(facts), flush=True)


def follow(job):
    urls, offset, items, prompts = list(GIVEN["urls"]), "-1", [], []
    headers = {"Authorization": lambda: f"Bearer {GIVEN['token']}"}
    while not items or items[-1]["type"] not in LAST:
        url = f"{urls[0]}/ds/executions/{job['execution']}"
        try:
            with stream(url, offset=offset, live="sse", headers=headers) as response:
                for event in response.iter_events("json"):
                    for item in event.data if isinstance(event.data, list) else [event.data]:
                        items.append(item)
                        if item["type"] == "input:required":
                            prompts.append(item["data"]["prompt"])
                            say(at="asked", prompt=prompts[-1])
                    offset = event.next_offset
                    if items and items[-1]["type"] in LAST:
                        break
        except (DurableStreamError, httpx.HTTPError) as error:
            say(at="lost", how=repr(error))
            urls = urls[1:] or urls
    return {"items": items, "prompts": prompts}


say(outcomes=[follow(job) for job in GIVEN["jobs"]])
