"""A tour with the client of a2a-sdk 1.x: `a2a_python_1.py '{"urls", "token", "binding", "version"}'`.

It prints what it saw. The same tour is made by the other clients, with the same outcome; `test_a2a.py` compares.
"""

import asyncio
import json
import sys
import uuid

import httpx
from a2a.client.card_resolver import A2ACardResolver
from a2a.client.client import ClientCallContext, ClientConfig
from a2a.client.client_factory import ClientFactory
from a2a.types import a2a_pb2 as a2a
from google.protobuf.json_format import MessageToDict

GIVEN = json.loads(sys.argv[1])
STATES = {number: name.removeprefix("TASK_STATE_").lower() for name, number in a2a.TaskState.items()}


def message(text, agent=None, **about):
    said = a2a.Message(message_id=str(uuid.uuid4()), role="ROLE_USER", parts=[a2a.Part(text=text)], **about)
    request = a2a.SendMessageRequest(message=said)
    if agent:
        request.metadata.update({"agent": agent})
    return request


def with_files():
    """A message with a file by reference, one by value, and data."""
    request = message("look", "keeper")
    about = {"filename": "a.pdf", "media_type": "application/pdf"}
    request.message.parts.append(a2a.Part(url="https://files.example.com/a.pdf", **about))
    request.message.parts.append(a2a.Part(raw=b"\x89PN\xff", **about))
    data = a2a.Part()
    data.data.struct_value.update({"n": 1})
    request.message.parts.append(data)
    return request


class Seen:
    """What a stream showed."""

    def __init__(self):
        self.kinds, self.states, self.generations, self.artifacts = [], [], [], {}
        self.task = self.cursor = self.prompt = None

    def take(self, event):
        kind = event.WhichOneof("payload")
        self.kinds.append(kind)
        value = getattr(event, kind)
        if kind == "task":
            self.task = value
            self.artifacts = {artifact.artifact_id: parts(artifact) for artifact in value.artifacts}
        if kind == "artifact_update":
            id_ = value.artifact.artifact_id
            assert not value.append or id_ in self.artifacts
            self.artifacts[id_] = (self.artifacts[id_] if value.append else []) + parts(value.artifact)
        else:
            self.states.append(STATES[value.status.state])
            self.prompt = next((part.text for part in value.status.message.parts if part.text), None)
        metadata = MessageToDict(value.metadata)
        self.generations.append(int(metadata["generation"]))
        self.cursor = metadata["cursor"]
        return self

    def outcome(self):
        return {"first": self.kinds[0], "states": self.states, "artifacts": joined(self.artifacts)}


def parts(artifact):
    return [
        part.text if part.HasField("text") else MessageToDict(part.data) if part.HasField("data") else part.url
        for part in artifact.parts
    ]


def joined(artifacts):
    """Chunks of text put together."""
    return {
        id_: "".join(found) if all(isinstance(part, str) for part in found) else found[0]
        for id_, found in artifacts.items()
    }


async def follow(client, request, until=lambda seen: False):
    seen = Seen()
    async for event in client.send_message(request):
        if until(seen.take(event)):
            break
    return seen


async def error_of(call):
    try:
        await call
    except Exception as error:
        return type(error).__name__
    return None


async def connect(http, url):
    card = await A2ACardResolver(http, url).get_agent_card()
    kept = [each for each in card.supported_interfaces if each.protocol_version.startswith(GIVEN["version"])]
    del card.supported_interfaces[:]
    card.supported_interfaces.extend(kept)
    config = ClientConfig(httpx_client=http, supported_protocol_bindings=[GIVEN["binding"]])
    return card, ClientFactory(config).create(card)


async def main():
    headers = {"Authorization": f"Bearer {GIVEN['token']}", "A2A-Version": "1.0"}
    async with httpx.AsyncClient(headers=headers) as http:
        card, client = await connect(http, GIVEN["urls"][0])
        _, other = await connect(http, GIVEN["urls"][1])
        out = {"skills": [skill.id for skill in card.skills]}

        told = await follow(client, message("t", "teller"))
        out["told"] = told.outcome()
        task = await client.get_task(a2a.GetTaskRequest(id=told.task.id))
        found = {artifact.artifact_id: parts(artifact) for artifact in task.artifacts}
        out["got"] = {"state": STATES[task.status.state], "artifacts": joined(found)}

        _, blocking = await connect(http, GIVEN["urls"][0])
        blocking._config.streaming = False
        out["blocking"] = (await follow(blocking, message("t", "teller"))).outcome()["states"]

        kept = await follow(client, with_files())
        out["files"] = kept.artifacts["runcast:result"][0]
        out["filesInHistory"] = len((await client.get_task(a2a.GetTaskRequest(id=kept.task.id))).history[0].parts)

        asked = await follow(client, message("t", "asker"))
        about = {"task_id": asked.task.id, "context_id": asked.task.context_id}
        out["asked"] = {"state": asked.states[-1], "prompt": asked.prompt}
        out["mismatch"] = await error_of(follow(client, message("perhaps", **about)))
        out["answered"] = (await follow(other, message("Yes!", **about))).outcome()

        working = await follow(client, message("t", "listener"), lambda seen: len(seen.kinds) == 2)
        about = {"task_id": working.task.id, "context_id": working.task.context_id}
        said = message("shorter", **about)
        for each in (client, other):  # the second is a repeat
            await follow(each, said, lambda seen: True)
        out["steered"] = (await follow(other, message("stop", **about))).outcome()

        begun = await follow(client, message("t", "sleeper"), lambda seen: len(seen.kinds) == 2)
        about = {"task_id": begun.task.id, "context_id": begun.task.context_id}
        out["deaf"] = await error_of(follow(client, message("x", **about)))
        parameters = {"Last-Event-ID": begun.cursor}
        rest = Seen()
        subscription = other.subscribe(
            a2a.SubscribeToTaskRequest(id=begun.task.id), context=ClientCallContext(service_parameters=parameters)
        )
        async for event in subscription:
            rest.take(event)
            if rest.generations[-1] == 4:
                cancelled = await client.cancel_task(a2a.CancelTaskRequest(id=begun.task.id))
                out["cancelled"] = STATES[cancelled.status.state]
        out["resumed"] = {"before": begun.generations, "after": rest.generations, "state": rest.states[-1]}

        out["missing"] = await error_of(client.get_task(a2a.GetTaskRequest(id="nobody")))
        out["ended"] = await error_of(client.cancel_task(a2a.CancelTaskRequest(id=told.task.id)))
        extended = await client.get_extended_agent_card(a2a.GetExtendedAgentCardRequest())
        out["extended"] = [skill.id for skill in extended.skills] == out["skills"]
        print(json.dumps(out))


asyncio.run(main())
