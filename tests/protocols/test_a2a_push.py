"""Push notification configurations, beside what the official clients do (`tests/interop/test_a2a_push.py`)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from redis.asyncio import Redis

from broker.edge.openapi import build_openapi
from broker.protocols.a2a.codec import Codec
from broker.protocols.a2a.model import PushConfig
from broker.protocols.a2a.v03 import V03
from broker.protocols.a2a.v03_rest import V03Rest
from broker.protocols.a2a.v10 import V10
from emitter.wire.keys import Owner
from tests.edges import Author, EdgeProcess, call, edge, token_for
from tests.receivers import SETTINGS, receiver

FULL = PushConfig(url="https://a.example/x", config_id="c", token="t", scheme="Bearer", credentials="s")
NEW = {"A2A-Version": "1.0"}


@pytest.fixture(scope="module")
def pushing(redis_server: Any) -> Iterator[EdgeProcess]:
    with edge(redis_server.url, **SETTINGS) as started:
        yield started


@pytest.mark.parametrize(
    ("version", "params"),
    [
        (V10(), {"taskId": "t1", "id": "c", "url": FULL.url, "token": "t",
                 "authentication": {"scheme": "Bearer", "credentials": "s"}}),
        (V10(), {"task_id": "t1", "id": "c", "url": FULL.url, "token": "t", "tenant": None,
                 "authentication": {"scheme": "Bearer", "credentials": "s"}}),
        (V03(), {"taskId": "t1", "pushNotificationConfig": {
            "id": "c", "url": FULL.url, "token": "t",
            "authentication": {"schemes": ["Bearer", "Basic"], "credentials": "s"}}}),
        (V03Rest(), {"taskId": "t1", "parent": "tasks/t1", "configId": "c", "config": {"pushNotificationConfig": {
            "url": FULL.url, "token": "t", "authentication": {"schemes": ["Bearer"], "credentials": "s"}}}}),
        (V03Rest(), {"taskId": "t1", "name": "tasks/t1/pushNotificationConfigs/c", "push_notification_config": {
            "id": "c", "url": FULL.url, "token": "t",
            "authentication": {"schemes": ["Bearer"], "credentials": "s"}}}),
    ],
    ids=["1.0", "1.0 as the proto has it", "0.3", "0.3 REST, Python", "0.3 REST, JavaScript"],
)  # fmt: skip
def test_what_is_asked_is_the_same(version: Codec, params: dict[str, Any]) -> None:
    """Every version and binding says the same in its way."""
    assert version.read_push(params) == ("t1", FULL)


@pytest.mark.parametrize("version", [V10(), V03(), V03Rest()])
def test_secrets_are_not_shown(version: Codec) -> None:
    for shown in (version.push("t1", FULL), version.pushes("t1", [FULL])):
        assert "Bearer" not in json.dumps(shown)
        assert FULL.url in json.dumps(shown)


async def rpc(edge: EdgeProcess, token: str, method: str, params: Any, *, is_old: bool = False) -> Any:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    answer = await call(edge.port, "POST", "/a2a", token, body, headers={} if is_old else NEW)
    return answer.body.get("result", answer.body.get("error"))


async def test_the_card_declares_it(pushing: EdgeProcess) -> None:
    card = (await call(pushing.port, "GET", "/.well-known/agent-card.json", None)).body
    assert card["capabilities"]["pushNotifications"] is True


async def test_what_is_refused(pushing: EdgeProcess, redis: Redis) -> None:
    """Tasks of others, targets that are not allowed, headers that are none, configurations that are not there, and who
    may only read."""
    author = Author(redis, user="alice", execution_id="ex_push")
    await author.begin()
    create, get = "CreateTaskPushNotificationConfig", "GetTaskPushNotificationConfig"
    config = {"taskId": "ex_push", "url": "https://a.example/"}
    for changed, code in (
        ({"taskId": "nobody"}, -32001),
        ({"url": "https://10.0.0.1/"}, -32602),
        ({"url": ""}, -32602),
        ({"token": "a\r\nB: c"}, -32602),
    ):
        assert (await rpc(pushing, author.token, create, {**config, **changed}))["code"] == code
    assert (await rpc(pushing, token_for("bob"), create, config))["code"] == -32001
    reading = token_for("alice", scopes=["executions:read"])
    body = {"jsonrpc": "2.0", "id": 1, "method": create, "params": config}
    assert (await call(pushing.port, "POST", "/a2a", reading, body, headers=NEW)).status == 403
    assert (await rpc(pushing, author.token, get, {"taskId": "ex_push", "id": "c"}))["code"] == -32001
    gone = {"taskId": "ex_push", "id": "c"}
    assert await rpc(pushing, author.token, "DeleteTaskPushNotificationConfig", gone) == {}


async def test_one_without_an_id_has_the_tasks(pushing: EdgeProcess, redis: Redis) -> None:
    """Setting it again replaces it, whether the id is said or not; the old method without an id finds it."""
    author = Author(redis, user="alice", execution_id="ex_push")
    await author.begin()
    config = {"taskId": "ex_push", "url": "https://a.example/"}
    for given in (config, {**config, "id": "ex_push", "url": "https://b.example/"}):
        assert (await rpc(pushing, author.token, "CreateTaskPushNotificationConfig", given))["id"] == "ex_push"
    listed = await rpc(pushing, author.token, "ListTaskPushNotificationConfigs", {"taskId": "ex_push"})
    assert [each["url"] for each in listed["configs"]] == ["https://b.example/"]
    found = await rpc(pushing, author.token, "tasks/pushNotificationConfig/get", {"id": "ex_push"}, is_old=True)
    assert found["pushNotificationConfig"] == {"id": "ex_push", "url": "https://b.example/"}


@pytest.mark.parametrize(
    ("base", "headers", "config"),
    [
        ("/a2a", NEW, {"id": "c", "url": FULL.url, "token": "t"}),
        ("/a2a/v1", {}, {"configId": "c", "config": {"pushNotificationConfig": {"url": FULL.url, "token": "t"}}}),
    ],
)
async def test_the_description_has_it(
    pushing: EdgeProcess, redis: Redis, base: str, headers: dict[str, str], config: dict[str, Any]
) -> None:
    """What is set, listed, shown and deleted over REST is what `/openapi.json` says."""
    author = Author(redis, user="alice", execution_id="ex_push")
    await author.begin()
    document = build_openapi("1")

    def check(described: Any, value: Any) -> None:
        schema = described["content"]["application/json"]["schema"]
        Draft202012Validator({**schema, "components": document["components"]}).validate(value)

    configs = base + "/tasks/{id}/pushNotificationConfigs"
    for method, path, body in (
        ("POST", configs, config),
        ("GET", configs, None),
        ("GET", configs + "/{config}", None),
        ("DELETE", configs + "/{config}", None),
    ):
        described = document["paths"][path][method.lower()]
        if body is not None:
            check(described["requestBody"], body)
        place = path.format(id="ex_push", config="c")
        answer = await call(pushing.port, method, place, author.token, body, headers=headers)
        assert answer.status == 200, answer.body
        check(described["responses"]["200"], answer.body)


async def test_who_may_only_read_is_not_shown_where_it_goes(pushing: EdgeProcess, redis: Redis) -> None:
    """The URL's path may be a secret, by which anybody could post to the receiver; who may set it is shown it."""
    author = Author(redis, user="alice", execution_id="ex_push")
    await author.begin()
    config = {"taskId": "ex_push", "id": "c", "url": "https://hooks.example/T1/s3cret?key=1"}
    await rpc(pushing, author.token, "CreateTaskPushNotificationConfig", config)
    named = {"taskId": "ex_push", "id": "c"}
    for token, url in (
        (author.token, config["url"]),
        (token_for("alice", scopes=["executions:read"]), "https://hooks.example"),
    ):
        found = await rpc(pushing, token, "GetTaskPushNotificationConfig", named)
        listed = await rpc(pushing, token, "ListTaskPushNotificationConfigs", {"taskId": "ex_push"})
        assert [found["url"], *(each["url"] for each in listed["configs"])] == [url, url]


async def test_a_task_that_has_ended_says_so_once_more(pushing: EdgeProcess, redis: Redis) -> None:
    """Who asks just after the end is not left waiting; nothing from before comes."""
    author = Author(redis, user="alice", execution_id="ex_push")
    await author.begin()
    await author.end()
    async with receiver() as here:
        config = {"taskId": "ex_push", "url": here.url}
        await rpc(pushing, author.token, "CreateTaskPushNotificationConfig", config)
        (got,) = await here.until_count(1)
        assert got.body["task"]["status"]["state"] == "TASK_STATE_COMPLETED"
        record = Owner("alice").execution("ex_push").record
        async with asyncio.timeout(10):
            while b"done" not in (await redis.hget(record, "d:a2a") or b""):  # type: ignore[misc]
                await asyncio.sleep(0.05)
        assert len(here.got) == 1
