"""A client of the Responses API (`openai`), unmodified, for `test_all_clients.py`:
`all_responses.py '{"urls", "token", "jobs"}'`.

Each job follows an execution as its first response, and then as the one that begins after each question. The client
does not come back by itself: when the connection is lost it is asked for the rest, after the number that it has, at the
next of the URLs. In the end each stream is read again, whole, at the last of them.
"""

import json
import sys

import httpx2
from openai import APIError, OpenAI, omit

GIVEN = json.loads(sys.argv[1])
LAST = ("response.completed", "response.failed", "response.incomplete")


def say(**facts):
    print(json.dumps(facts), flush=True)


def client_at(url):
    return OpenAI(base_url=url + "/v1", api_key=GIVEN["token"], max_retries=0)


def events_of(id_, urls):
    """All events of one response; `urls` lose those at which the connection broke."""
    events = []
    while not events or events[-1].type not in LAST:
        after = events[-1].sequence_number if events else omit
        try:
            events.extend(client_at(urls[0]).responses.retrieve(id_, stream=True, starting_after=after))
        except (APIError, httpx2.HTTPError) as error:
            say(at="lost", how=repr(error))
            urls[:] = urls[1:] or urls
    return events


def question_in(response):
    """The ordinal of the question with which it ends, and its prompt."""
    last = response.output[-1] if response.output else None
    if last is None or last.type != "mcp_approval_request":
        return None
    return last.id.split(":")[1], json.loads(last.arguments)["prompt"]


def follow(job):
    urls, after, responses, prompts = list(GIVEN["urls"]), "0", [], []
    while after is not None:
        id_ = f"resp_{job['execution']}_{after}"
        events = events_of(id_, urls)
        client = client_at(GIVEN["urls"][-1])
        whole = client.responses.retrieve(id_, stream=True)
        ended = events[-1].response
        responses.append(
            {
                "numbers": [event.sequence_number for event in events],
                "same": [event.to_dict() for event in whole] == [event.to_dict() for event in events],
                "kept": client.responses.retrieve(id_).to_dict() == ended.to_dict(),
                **ended.to_dict(),
            }
        )
        after = None
        if (question := question_in(ended)) is not None:
            after, prompt = question
            prompts.append(prompt)
            say(at="asked", prompt=prompt)
    return {"responses": responses, "prompts": prompts}


say(outcomes=[follow(job) for job in GIVEN["jobs"]])
