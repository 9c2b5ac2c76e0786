"""Waits with the default client of a2a-sdk 1.x, its own timeouts included, on a task that says nothing for a while."""

import asyncio
import json
import sys
import uuid

from a2a.client.client import ClientCallContext, ClientConfig
from a2a.client.client_factory import ClientFactory
from a2a.types import a2a_pb2 as a2a

GIVEN = json.loads(sys.argv[1])


async def last_state(*, streaming):
    client = await ClientFactory(ClientConfig(streaming=streaming)).create_from_url(GIVEN["urls"][0])
    said = a2a.Message(message_id=str(uuid.uuid4()), role="ROLE_USER", parts=[a2a.Part(text="t")])
    request = a2a.SendMessageRequest(message=said)
    request.metadata.update({"agent": "sleeper"})
    authorized = ClientCallContext(service_parameters={"Authorization": f"Bearer {GIVEN['token']}"})
    async for event in client.send_message(request, context=authorized):
        last = getattr(event, event.WhichOneof("payload"))
    return a2a.TaskState.Name(last.status.state).removeprefix("TASK_STATE_").lower()


async def main():
    stream, plain = await asyncio.gather(last_state(streaming=True), last_state(streaming=False))
    print(json.dumps({"stream": stream, "plain": plain}))


asyncio.run(main())
