"""The same as `push_python_1.py` with the clients of a2a-sdk 0.2 and 0.3, which set and get configurations."""

import asyncio
import json
import sys
import uuid

import httpx
from a2a.client import A2ACardResolver, A2AClient
from a2a.types import (
    CancelTaskRequest,
    GetTaskPushNotificationConfigParams,
    GetTaskPushNotificationConfigRequest,
    GetTaskRequest,
    MessageSendParams,
    SendMessageRequest,
    SetTaskPushNotificationConfigRequest,
    Task,
    TaskIdParams,
    TaskPushNotificationConfig,
    TaskQueryParams,
)

GIVEN = json.loads(sys.argv[1])


def config(id_, path, **about):
    return {"id": id_, "url": GIVEN["hook"] + path, "token": "of-" + id_, **about}


def result(response):
    assert not hasattr(response.root, "error"), response.root.error
    return response.root.result


async def main():
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {GIVEN['token']}"}) as http:
        card = await A2ACardResolver(http, GIVEN["urls"][0]).get_agent_card()
        assert card.capabilities.push_notifications
        client = A2AClient(http, agent_card=card)
        said = {"messageId": str(uuid.uuid4()), "role": "user", "parts": [{"kind": "text", "text": "t"}]}
        bearer = {"schemes": ["Bearer"], "credentials": "of-the-receiver"}
        wanted = {
            "blocking": False,
            "acceptedOutputModes": [],
            "pushNotificationConfig": config("one", "/one", authentication=bearer),
        }
        params = MessageSendParams(message=said, configuration=wanted, metadata={"agent": "asker"})
        task = result(await client.send_message(SendMessageRequest(id="s", params=params)))
        two = TaskPushNotificationConfig(task_id=task.id, push_notification_config=config("two", "/two"))
        made = result(await client.set_task_callback(SetTaskPushNotificationConfigRequest(id="p", params=two)))
        made = made.push_notification_config
        out = {"task": task.id, "made": [made.id, made.url, made.token or ""]}
        asked = GetTaskPushNotificationConfigParams(id=task.id, push_notification_config_id="two")
        got = result(await client.get_task_callback(GetTaskPushNotificationConfigRequest(id="g", params=asked)))
        out["got"] = got.push_notification_config.url

        async def call(method, params):
            body = {"jsonrpc": "2.0", "id": 1, "method": "tasks/pushNotificationConfig/" + method, "params": params}
            return (await http.post(card.url, json=body)).json()["result"]

        async def ids():  # this client has no methods for the rest
            listed = await call("list", {"id": task.id})
            return sorted(TaskPushNotificationConfig(**each).push_notification_config.id for each in listed)

        out["listed"] = await ids()
        assert await call("delete", {"id": task.id, "pushNotificationConfigId": "two"}) is None
        out["left"] = await ids()
        found = GetTaskRequest(id="t", params=TaskQueryParams(id=task.id))
        while result(await client.get_task(found)).status.state.value != "input-required":
            await asyncio.sleep(0.05)
        result(await client.cancel_task(CancelTaskRequest(id="c", params=TaskIdParams(id=task.id))))
        print(json.dumps(out))


def state_of(body):
    return Task.model_validate(body).status.state.value.replace("-", "_")


if "bodies" in GIVEN:
    print(json.dumps([state_of(body) for body in GIVEN["bodies"]]))
else:
    asyncio.run(main())
