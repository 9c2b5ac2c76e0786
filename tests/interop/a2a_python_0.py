"""The tour of `a2a_python_1.py` with the clients of a2a-sdk 0.2 and 0.3."""

import asyncio
import json
import sys
import uuid

import httpx
from a2a.client import A2ACardResolver, A2AClient
from a2a.client.errors import A2AClientError
from a2a.types import (
    CancelTaskRequest,
    GetTaskRequest,
    MessageSendParams,
    SendMessageRequest,
    SendStreamingMessageRequest,
    TaskIdParams,
    TaskQueryParams,
)

GIVEN = json.loads(sys.argv[1])


def params(text, agent=None, **about):
    said = {"messageId": str(uuid.uuid4()), "role": "user", "parts": [{"kind": "text", "text": text}], **about}
    return MessageSendParams(message=said, metadata={"agent": agent} if agent else None)


def with_files():
    """A message with a file by reference, one by value, and data."""
    about = {"name": "a.pdf", "mimeType": "application/pdf"}
    parts = [
        {"kind": "text", "text": "look"},
        {"kind": "file", "file": {"uri": "https://files.example.com/a.pdf", **about}},
        {"kind": "file", "file": {"bytes": "iVBO/w==", **about}},
        {"kind": "data", "data": {"n": 1}},
    ]
    return params("look", "keeper", parts=parts)


class Seen:
    """What a stream showed."""

    def __init__(self):
        self.kinds, self.states, self.generations, self.artifacts = [], [], [], {}
        self.task = self.cursor = self.prompt = self.final = None

    def take(self, value):
        self.kinds.append(value.kind.replace("-", "_"))
        if value.kind == "task":
            self.task = value
            self.artifacts = {artifact.artifact_id: parts(artifact) for artifact in value.artifacts or []}
        if value.kind == "artifact-update":
            id_ = value.artifact.artifact_id
            assert not value.append or id_ in self.artifacts
            self.artifacts[id_] = (self.artifacts[id_] if value.append else []) + parts(value.artifact)
        else:
            self.states.append(value.status.state.value.replace("-", "_"))
            said = value.status.message.parts if value.status.message else []
            self.prompt = next((part.root.text for part in said if part.root.kind == "text"), None)
        if value.kind == "status-update":
            assert not self.final, "nothing comes after what was final"
            self.final = value.final
        self.generations.append(value.metadata["generation"])
        self.cursor = value.metadata["cursor"]
        return self

    def outcome(self):
        assert self.final, "the last update of a stream says so"
        return {"first": self.kinds[0], "states": self.states, "artifacts": joined(self.artifacts)}


def parts(artifact):
    kinds = {"text": lambda part: part.text, "data": lambda part: part.data, "file": lambda part: part.file.uri}
    return [kinds[part.root.kind](part.root) for part in artifact.parts]


def joined(artifacts):
    """Chunks of text put together."""
    return {
        id_: "".join(found) if all(isinstance(part, str) for part in found) else found[0]
        for id_, found in artifacts.items()
    }


def result(response):
    """Raises `LookupError` with the error's code."""
    if hasattr(response.root, "error"):
        raise LookupError(response.root.error.code)
    return response.root.result


async def follow(client, given, until=lambda seen: False):
    seen = Seen()
    request = SendStreamingMessageRequest(id=str(uuid.uuid4()), params=given)
    async for response in client.send_message_streaming(request):
        if until(seen.take(result(response))):
            break
    return seen


async def error_of(call):
    try:
        result(await call)
    except LookupError as error:
        return error.args[0]
    return None


async def error_of_stream(call):
    """The client of 0.3 has an exception of its own for what comes in a stream."""
    try:
        await call
    except LookupError as error:
        return error.args[0]
    except A2AClientError as error:
        return str(error)
    return None


async def resume(client, begun, cancel):
    """The rest of a task's stream, at another edge. The client of 0.2 cannot do this."""
    from a2a.types import TaskResubscriptionRequest

    rest, state = Seen(), None
    given = TaskIdParams(id=begun.task.id, metadata={"cursor": begun.cursor})
    async for response in client.resubscribe(TaskResubscriptionRequest(id="r", params=given)):
        rest.take(result(response))
        if rest.generations[-1] == 4:
            state = await cancel()
    return state, {"before": begun.generations, "after": rest.generations, "state": rest.states[-1]}


async def main():
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {GIVEN['token']}"}) as http:
        cards = [await A2ACardResolver(http, url).get_agent_card() for url in GIVEN["urls"]]
        client, other = [A2AClient(http, agent_card=card) for card in cards]
        out = {"skills": [skill.id for skill in cards[0].skills]}

        told = await follow(client, params("t", "teller"))
        out["told"] = told.outcome()
        task = result(await client.get_task(GetTaskRequest(id="g", params=TaskQueryParams(id=told.task.id))))
        found = {artifact.artifact_id: parts(artifact) for artifact in task.artifacts}
        out["got"] = {"state": task.status.state.value, "artifacts": joined(found)}

        sent = result(await client.send_message(SendMessageRequest(id="s", params=params("t", "teller"))))
        out["blocking"] = [sent.status.state.value]

        kept = await follow(client, with_files())
        out["files"] = kept.artifacts["runcast:result"][0]
        got = await client.get_task(GetTaskRequest(id="g", params=TaskQueryParams(id=kept.task.id)))
        out["filesInHistory"] = len(result(got).history[0].parts)

        asked = await follow(client, params("t", "asker"))
        about = {"taskId": asked.task.id, "contextId": asked.task.context_id}
        out["asked"] = {"state": asked.states[-1], "prompt": asked.prompt}
        out["mismatch"] = await error_of_stream(follow(client, params("perhaps", **about)))
        out["answered"] = (await follow(other, params("Yes!", **about))).outcome()

        working = await follow(client, params("t", "listener"), lambda seen: len(seen.kinds) == 2)
        about = {"taskId": working.task.id, "contextId": working.task.context_id}
        said = params("shorter", **about)
        for each in (client, other):  # the second is a repeat
            await follow(each, said, lambda seen: True)
        out["steered"] = (await follow(other, params("stop", **about))).outcome()

        begun = await follow(client, params("t", "sleeper"), lambda seen: len(seen.kinds) == 2)

        about = {"taskId": begun.task.id, "contextId": begun.task.context_id}
        out["deaf"] = await error_of_stream(follow(client, params("x", **about)))

        async def cancel():
            request = CancelTaskRequest(id="c", params=TaskIdParams(id=begun.task.id))
            return result(await client.cancel_task(request)).status.state.value

        if hasattr(other, "resubscribe"):
            out["cancelled"], out["resumed"] = await resume(other, begun, cancel)
        else:
            out["cancelled"] = await cancel()

        missing = GetTaskRequest(id="g", params=TaskQueryParams(id="nobody"))
        out["missing"] = await error_of(client.get_task(missing))
        ended = CancelTaskRequest(id="c", params=TaskIdParams(id=told.task.id))
        out["ended"] = await error_of(client.cancel_task(ended))
        print(json.dumps(out))


asyncio.run(main())
