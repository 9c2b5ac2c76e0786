"""Push notifications with the client of a2a-sdk 1.x:
`push_python_1.py '{"urls", "token", "binding", "version", "hook"}'` sets, lists, gets and deletes configurations and
prints what it saw; with `{"bodies": […]}` it reads notifications."""

import asyncio
import contextlib
import json
import sys
import uuid

import httpx
from a2a.client.card_resolver import A2ACardResolver
from a2a.client.client import ClientConfig
from a2a.client.client_factory import ClientFactory
from a2a.types import a2a_pb2 as a2a
from google.protobuf.json_format import ParseDict

GIVEN = json.loads(sys.argv[1])
STATES = {number: name.removeprefix("TASK_STATE_").lower() for name, number in a2a.TaskState.items()}


def config(id_, path, **about):
    return a2a.TaskPushNotificationConfig(id=id_, url=GIVEN["hook"] + path, token="of-" + id_, **about)


async def main():
    headers = {"Authorization": f"Bearer {GIVEN['token']}", "A2A-Version": "1.0"}
    async with httpx.AsyncClient(headers=headers) as http:
        card = await A2ACardResolver(http, GIVEN["urls"][0]).get_agent_card()
        assert card.capabilities.push_notifications
        kept = [each for each in card.supported_interfaces if each.protocol_version.startswith(GIVEN["version"])]
        del card.supported_interfaces[:]
        card.supported_interfaces.extend(kept)
        setup = ClientConfig(httpx_client=http, supported_protocol_bindings=[GIVEN["binding"]], streaming=False)
        client = ClientFactory(setup).create(card)
        said = a2a.Message(message_id=str(uuid.uuid4()), role="ROLE_USER", parts=[a2a.Part(text="t")])
        bearer = a2a.AuthenticationInfo(scheme="Bearer", credentials="of-the-receiver")
        wanted = a2a.SendMessageConfiguration(
            return_immediately=True, task_push_notification_config=config("one", "/one", authentication=bearer)
        )
        request = a2a.SendMessageRequest(message=said, configuration=wanted)
        request.metadata.update({"agent": "asker"})
        async for event in client.send_message(request):
            task = event.task
        two = config("two", "/two", task_id=task.id)
        made = await client.create_task_push_notification_config(two)
        out = {"task": task.id, "made": [made.id, made.url, made.token]}

        async def ids():
            wanted = a2a.ListTaskPushNotificationConfigsRequest(task_id=task.id)
            try:
                listed = await client.list_task_push_notification_configs(wanted)
            except NotImplementedError:  # for REST of 0.3 the client has no such call
                return None
            return sorted(each.id for each in listed.configs)

        out["listed"] = await ids()
        asked = a2a.GetTaskPushNotificationConfigRequest(task_id=task.id, id="two")
        out["got"] = (await client.get_task_push_notification_config(asked)).url
        gone = a2a.DeleteTaskPushNotificationConfigRequest(task_id=task.id, id="two")
        with contextlib.suppress(NotImplementedError):
            await client.delete_task_push_notification_config(gone)
        out["left"] = await ids()
        while (await client.get_task(a2a.GetTaskRequest(id=task.id))).status.state != a2a.TASK_STATE_INPUT_REQUIRED:
            await asyncio.sleep(0.05)
        await client.cancel_task(a2a.CancelTaskRequest(id=task.id))
        print(json.dumps(out))


def state_of(body):
    return STATES[ParseDict(body, a2a.StreamResponse()).task.status.state]


if "bodies" in GIVEN:
    print(json.dumps([state_of(body) for body in GIVEN["bodies"]]))
else:
    asyncio.run(main())
