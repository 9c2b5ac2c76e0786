"""The A2A endpoints over real sockets: cards, methods, versions, errors, cursors, and the bytes of a response."""

from __future__ import annotations

import asyncio
import itertools
import json
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.cli.embedded import EmbeddedRedis
from emitter.events import (
    Artifact,
    Event,
    ExecutionComplete,
    ExecutionStarted,
    InputReceived,
    InputRequired,
    MessageDelta,
    Thinking,
)
from emitter.store import announcements
from emitter.store.announcements import AgentInfo, WorkerInfo
from emitter.wire import keys
from emitter.wire.ids import now_ms
from tests.edges import Answer, Author, Connection, EdgeProcess, call, edge, request, token_for

JSON = {"Content-Type": "application/json"}
NEW = {"A2A-Version": "1.0"}
STARTED = ExecutionStarted(task="hi", started_at=1, attempt=1)
DONE = ExecutionComplete(result={"ok": True}, duration=1.0)
ASK = InputRequired(input_id="i", prompt="Go on?", kind="approval")
AGENTS = ["manual", "other"]
METHODS = {
    "send": ("message/send", "SendMessage"),
    "stream": ("message/stream", "SendStreamingMessage"),
    "get": ("tasks/get", "GetTask"),
    "cancel": ("tasks/cancel", "CancelTask"),
    "subscribe": ("tasks/resubscribe", "SubscribeToTask"),
}
_ids = itertools.count(1)


@pytest.fixture(autouse=True)
async def known(redis: Redis, two_edges: list[EdgeProcess]) -> None:
    """Agents that no worker runs: the tests write their executions."""
    await redis.zadd(keys.AGENTS_KNOWN, dict.fromkeys(AGENTS, now_ms()))
    for each in two_edges:
        async with asyncio.timeout(10):
            while await known_agents(each) != AGENTS:  # an edge looks every second
                await asyncio.sleep(0.05)


async def known_agents(at: EdgeProcess) -> list[str]:
    refused = await call(at.port, "POST", "/api/agent/execute", token_for("nobody"), {"task": "t", "agent": "-"})
    return list(refused.body["known"])


def message(text: str = "hi", *, old: bool = False, **about: Any) -> dict[str, Any]:
    part = {"kind": "text", "text": text} if old else {"text": text}
    return {"messageId": f"m{next(_ids)}", "role": "user" if old else "ROLE_USER", "parts": [part], **about}


def starting(*, old: bool = False, configuration: Any = None, **about: Any) -> dict[str, Any]:
    given = {"message": message(old=old, **about), "metadata": {"agent": "manual"}}
    return given if configuration is None else {**given, "configuration": configuration}


def envelope(method: str, params: Any, id_: Any = 1) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id_, "method": method, "params": params}).encode()


async def rpc(
    at: EdgeProcess, author: Author, method: str, params: Any, *, old: bool = False, headers: Any = None
) -> Any:
    """The result, or the error."""
    name = METHODS[method][0 if old else 1] if method in METHODS else method
    given = ({} if old else NEW) | (headers or {})
    answer = await call(at.port, "POST", "/a2a", author.token, envelope(name, params, "q"), headers=given)
    assert answer.status == 200
    assert (answer.body["jsonrpc"], answer.body["id"]) == ("2.0", "q")
    return answer.body.get("result") or answer.body["error"]


def streaming(at: EdgeProcess, author: Author, method: str, params: Any, *, old: bool = False, **headers: str) -> Any:
    name = METHODS[method][0 if old else 1]
    given = JSON | ({} if old else NEW) | {key.replace("_", "-"): value for key, value in headers.items()}
    return request(at.port, "POST", "/a2a", author.token, headers=given, body=envelope(name, params, 7))


async def results(response: Connection) -> list[Any]:
    """The stream's results to its end, whose envelopes are right."""
    found = []
    async with asyncio.timeout(15):
        async for frame in response.frames():
            content = json.loads(frame.data or "")
            assert (content["jsonrpc"], content["id"]) == ("2.0", 7)
            found.append(content["result"])
    return found


def task_author(author: Author, task: dict[str, Any]) -> Author:
    return Author(author.redis, author.user, task["id"])


async def begun(at: EdgeProcess, author: Author, *told: Event, **about: Any) -> tuple[dict[str, Any], Author]:
    """A task that was started without waiting, and who writes its log."""
    params = starting(configuration={"returnImmediately": True}, **about)
    task = (await rpc(at, author, "send", params))["task"]
    agent = task_author(author, task)
    for event in told:
        await agent.write(event)
    return task, agent


def generations(found: list[Any]) -> list[int]:
    return [next(iter(each.values()))["metadata"]["generation"] for each in found]


async def test_what_a_request_is_written_as(two_edges: list[EdgeProcess], author: Author) -> None:
    """JSON, of whatever JSON type; a body that says it is another is refused. A slash at the end changes nothing."""
    task, _ = await begun(two_edges[0], author)
    body = envelope("GetTask", {"id": task["id"]})
    for path, type_ in (("/a2a/", "application/json"), ("/a2a/manual/", "application/a2a+json; charset=utf-8")):
        answer = await call(two_edges[0].port, "POST", path, author.token, body, headers=NEW | {"Content-Type": type_})
        assert answer.body["result"]["id"] == task["id"]
    for type_ in ("text/plain", "application/x-www-form-urlencoded", "json"):
        headers = NEW | {"Content-Type": type_}
        answer = await call(two_edges[0].port, "POST", "/a2a", author.token, body, headers=headers)
        assert (answer.status, answer.body["error"]["code"]) == (200, -32005)
        rest = await call(two_edges[0].port, "POST", "/a2a/message:send", author.token, b"{}", headers=headers)
        assert (rest.status, rest.body["error"]["details"][0]["reason"]) == (415, "CONTENT_TYPE_NOT_SUPPORTED")


# --- the card --------------------------------------------------------------------------------------------------------


async def announced(redis: Redis, *agents: AgentInfo) -> None:
    await announcements.announce(redis, WorkerInfo(id="w", host="h", pid=1, concurrency=1, running=0, agents=agents))


async def told(at: EdgeProcess, *names: str) -> Answer:
    """The card of an edge, once these are the agents on it: an edge looks every second."""
    async with asyncio.timeout(10):
        while True:
            card = await call(at.port, "GET", "/.well-known/agent-card.json", None)
            if [skill["id"] for skill in card.body["skills"]] == sorted(names):
                return card
            await asyncio.sleep(0.05)


async def test_the_card(two_edges: list[EdgeProcess], redis: Redis) -> None:
    """Both paths give the same document to everybody, with what live workers announce; what did not change is not sent
    again; it changes when they come and go."""
    await announced(redis, AgentInfo(name="writer", description="Writes", tags=("text",)), AgentInfo(name="other"))
    first = await told(two_edges[0], "writer", "other")
    second = await call(two_edges[0].port, "GET", "/.well-known/agent.json", None)
    assert first.status == 200
    assert first.body == second.body
    assert [(skill["id"], skill["tags"]) for skill in first.body["skills"]] == [
        ("other", ["agent"]),
        ("writer", ["text"]),
    ]
    assert "max-age=" in first.headers["cache-control"]
    assert parsedate_to_datetime(first.headers["last-modified"]) <= datetime.now(UTC)
    assert (await told(two_edges[0], "writer", "other")).headers["last-modified"] == first.headers["last-modified"]
    etag = first.headers["etag"]
    for given in (etag, f'W/{etag}, "x"', "*"):
        path = "/.well-known/agent-card.json"
        again = await call(two_edges[0].port, "GET", path, None, headers={"If-None-Match": given})
        assert (again.status, again.body, again.headers["etag"]) == (304, None, etag)
    await announcements.retire(redis, "w")
    await told(two_edges[0])
    gone = await call(two_edges[0].port, "GET", "/.well-known/agent.json", None, headers={"If-None-Match": etag})
    assert gone.status == 200
    assert gone.body["skills"] == []


async def card_of(at: EdgeProcess, path: str = "/.well-known/agent-card.json", **headers: str) -> Any:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    async with request(at.port, "GET", path, headers=given) as response:
        return response.status, await response.json()


async def test_what_a_card_costs(own_redis: EmbeddedRedis) -> None:
    """Anybody may ask for the card, as often as he likes: Redis is asked for the agents about once a second."""
    async with Redis.from_url(own_redis.url) as redis:
        with edge(own_redis.url) as at:
            before = await looks(redis)
            for _ in range(100):
                assert (await call(at.port, "GET", "/.well-known/agent-card.json", None)).status == 200
            assert await looks(redis) - before < 50


async def looks(redis: Redis) -> int:
    """How often somebody asked who is there."""
    stats = await redis.info("commandstats")
    return int(stats["cmdstat_zrangebyscore"]["calls"]) if "cmdstat_zrangebyscore" in stats else 0


async def test_where_the_card_leads(two_edges: list[EdgeProcess]) -> None:
    """The card names every version and binding, at the host by which it was asked; what a proxy is said to have seen
    counts for nothing, and what is no host is refused."""
    forwarded = {"X_Forwarded_Proto": "https", "X_Forwarded_Host": "evil.example", "Forwarded": "host=evil.example"}
    status, card = await card_of(two_edges[0], Host="agents.example.com:8080", **forwarded)
    assert (status, card["url"]) == (200, "http://agents.example.com:8080/a2a")
    assert card["protocolVersion"] == "0.3.0"
    served = [(each["protocolBinding"], each["protocolVersion"]) for each in card["supportedInterfaces"]]
    assert served == [("JSONRPC", "1.0"), ("HTTP+JSON", "1.0"), ("JSONRPC", "0.3"), ("HTTP+JSON", "0.3")]
    assert {each["url"] for each in card["supportedInterfaces"]} == {card["url"]}
    assert card["capabilities"]["streaming"]
    assert not card["capabilities"]["pushNotifications"]
    assert (await card_of(two_edges[0], Host="[::1]:80"))[1]["url"] == "http://[::1]:80/a2a"
    for host in ('a"b', "a/b", "user@a", "a b", "a:b", "é", "[::1", ""):
        assert (await card_of(two_edges[0], Host=host))[0] == 400, host


async def test_where_clients_are_told_to_go(redis_url: str, redis: Redis) -> None:
    """With a public URL the card leads there, whatever host it was asked by."""
    await announced(redis, AgentInfo(name="manual"))
    with edge(redis_url, public_url="https://agents.example.com/runcast/") as at:
        _, card = await card_of(at, Host="evil.example")
        _, own = await card_of(at, "/a2a/manual/.well-known/agent-card.json", Host="a/b")
    assert {each["url"] for each in card["supportedInterfaces"]} == {"https://agents.example.com/runcast/a2a"}
    assert card["url"] == card["additionalInterfaces"][1]["url"] == "https://agents.example.com/runcast/a2a"
    assert own["url"] == "https://agents.example.com/runcast/a2a/manual"


async def test_what_agents_take_and_give(two_edges: list[EdgeProcess], redis: Redis, author: Author) -> None:
    """A skill has the media types that its agent announces, or those of text and data; so has the list of agents."""
    painter = AgentInfo(name="painter", input_modes=("text/plain",), output_modes=("image/png", "image/svg+xml"))
    await announced(redis, AgentInfo(name="other"), painter)
    await told(two_edges[0], "other", "painter")
    usual = ["text/plain", "application/json"]
    _, card = await card_of(two_edges[0])
    found = [(skill["id"], skill["inputModes"], skill["outputModes"]) for skill in card["skills"]]
    assert found == [("other", usual, usual), ("painter", ["text/plain"], ["image/png", "image/svg+xml"])]
    assert card["defaultInputModes"] == card["defaultOutputModes"] == usual
    _, own = await card_of(two_edges[0], "/a2a/painter/.well-known/agent-card.json")
    assert (own["defaultInputModes"], own["defaultOutputModes"]) == (["text/plain"], ["image/png", "image/svg+xml"])
    listed = (await call(two_edges[0].port, "GET", "/api/agent/agents", author.token)).body["agents"]
    assert [each["outputModes"] for each in listed] == [usual, ["image/png", "image/svg+xml"]]


@pytest.mark.parametrize(
    ("part", "is_taken"),
    [
        ({"raw": "iVBORw==", "mediaType": "image/png"}, True),
        ({"raw": "iVBORw==", "mediaType": "IMAGE/JPEG; q=1"}, True),
        ({"url": "https://e.com/a.pdf", "mediaType": "application/pdf"}, False),
        ({"raw": "iVBORw==", "mediaType": "audio/mpeg"}, False),
        ({"raw": "aGk="}, True),
        ({"text": "# hi", "mediaType": "text/markdown"}, True),
        ({"text": "hi"}, True),
        ({"data": {"a": 1}}, True),
        ({"data": {"a": 1}, "mediaType": "application/json"}, False),
    ],
)
async def test_what_an_agent_takes(
    two_edges: list[EdgeProcess], redis: Redis, author: Author, part: dict[str, Any], is_taken: bool
) -> None:
    """A part that states a media type which its agent does not declare is refused, in every version and binding, and
    starts nothing; one that states none is the agent's to judge."""
    await announced(redis, AgentInfo(name="manual", input_modes=("text/plain", "image/*")))
    await told(two_edges[0], "manual")
    sent = starting(configuration={"returnImmediately": True})
    sent["message"]["parts"].append(part)
    answer = await rpc(two_edges[0], author, "send", sent)
    rest_ = await call(two_edges[0].port, "POST", "/a2a/message:send", author.token, sent, headers=NEW)
    if is_taken:
        assert answer["task"]["metadata"]["agent"] == rest_.body["task"]["metadata"]["agent"] == "manual"
        return
    assert (answer["code"], answer["data"][0]["metadata"]["mediaType"]) == (-32005, part["mediaType"])
    assert answer["message"].startswith("Incompatible content types: message.parts[1] is ")
    assert (rest_.status, rest_.body["error"]["details"][0]["reason"]) == (400, "CONTENT_TYPE_NOT_SUPPORTED")
    assert (await rpc(two_edges[0], author, "ListTasks", {}))["tasks"] == []


async def test_a_file_for_an_old_client_s_agent(two_edges: list[EdgeProcess], redis: Redis, author: Author) -> None:
    """In 0.3 the same holds of the type of a file."""
    await announced(redis, AgentInfo(name="manual", input_modes=("text/plain", "image/*")))
    await told(two_edges[0], "manual")
    for type_, code in (("image/png", None), ("audio/mpeg", -32005)):
        sent = starting(old=True, configuration={"blocking": False})
        sent["message"]["parts"].append({"kind": "file", "file": {"bytes": "iVBORw==", "mimeType": type_}})
        assert (await rpc(two_edges[0], author, "send", sent, old=True)).get("code") == code


async def test_the_card_of_one_agent(two_edges: list[EdgeProcess], redis: Redis, author: Author) -> None:
    """An agent has a card and an endpoint of its own, whose messages are for it."""
    await announced(redis, AgentInfo(name="manual", description="Mine"), AgentInfo(name="other"))
    await told(two_edges[0], "manual", "other")
    card = await call(two_edges[0].port, "GET", "/a2a/manual/.well-known/agent-card.json", None)
    assert (card.body["name"], card.body["description"]) == ("manual", "Mine")
    assert [skill["id"] for skill in card.body["skills"]] == ["manual"]
    assert card.body["url"].endswith("/a2a/manual")
    assert (await call(two_edges[0].port, "GET", "/a2a/nobody/.well-known/agent-card.json", None)).status == 404
    params = {"message": message(), "configuration": {"returnImmediately": True}}
    sent = await call(
        two_edges[0].port, "POST", "/a2a/manual", author.token, envelope("SendMessage", params), headers=NEW
    )
    assert sent.body["result"]["task"]["metadata"]["agent"] == "manual"


async def test_an_agent_as_a_tenant(two_edges: list[EdgeProcess], redis: Redis, author: Author) -> None:
    """In 1.0 an agent is a tenant: named in the path of REST, or in the params of JSON-RPC, a message is for it and a
    list is of its tasks; its card says so."""
    await announced(redis, AgentInfo(name="manual"), AgentInfo(name="other"))
    await told(two_edges[0], "manual", "other")
    _, card = await card_of(two_edges[0], "/a2a/manual/.well-known/agent-card.json")
    (rest_,) = [each for each in card["supportedInterfaces"] if each["protocolBinding"] == "HTTP+JSON"]
    assert (rest_["protocolVersion"], rest_["tenant"], rest_["url"].rsplit("/", 1)[1]) == ("1.0", "manual", "a2a")
    at_once = {"returnImmediately": True}
    params = {"message": message(), "configuration": at_once}
    path = "/a2a/manual/message:send"
    sent = await call(two_edges[0].port, "POST", path, author.token, params, headers=NEW)
    one = sent.body["task"]
    other = {"message": message(), "configuration": at_once, "tenant": "other"}
    two = (await rpc(two_edges[0], author, "send", other))["task"]
    assert (one["metadata"]["agent"], two["metadata"]["agent"]) == ("manual", "other")
    listed = await call(two_edges[1].port, "GET", "/a2a/other/tasks", author.token, headers=NEW)
    assert [task["id"] for task in listed.body["tasks"]] == [two["id"]]
    listed = await rpc(two_edges[1], author, "ListTasks", {"tenant": "manual"})
    assert [task["id"] for task in listed["tasks"]] == [one["id"]]
    path = f"/a2a/manual/tasks/{one['id']}"
    assert (await call(two_edges[1].port, "GET", path, author.token, headers=NEW)).body["id"] == one["id"]
    cancelled = await call(two_edges[1].port, "POST", path + ":cancel", author.token, {}, headers=NEW)
    assert cancelled.body["status"]["state"] == "TASK_STATE_CANCELED"
    own = await call(two_edges[1].port, "GET", "/a2a/other/extendedAgentCard", author.token, headers=NEW)
    assert own.body["name"] == "other"
    assert (await rpc(two_edges[0], author, "send", {"message": message(), "tenant": 5}))["code"] == -32602


async def test_the_extended_card(two_edges: list[EdgeProcess], redis: Redis, author: Author) -> None:
    """Those who are let in see the agents' parameters as well, at every place where versions look for it."""
    schema = {"type": "object"}
    await announced(redis, AgentInfo(name="writer", input_schema=schema))
    port, token = two_edges[0].port, author.token
    found = [
        await rpc(two_edges[0], author, "GetExtendedAgentCard", {}),
        await rpc(two_edges[0], author, "agent/getAuthenticatedExtendedCard", {}, old=True),
        (await call(port, "GET", "/a2a/extendedAgentCard", token, headers=NEW)).body,
        (await call(port, "GET", "/a2a/v1/card", token)).body,
        (await call(port, "GET", "/agent/authenticatedExtendedCard", token)).body,
    ]
    for card in found:
        extensions = {each["uri"]: each.get("params") for each in card["capabilities"]["extensions"]}
        assert extensions["urn:runcast:a2a:params"] == {"writer": schema}
    # `AgentCard` of the a2a.proto of 1.0, but for what we do not have.
    members = {"name", "description", "supportedInterfaces", "version", "capabilities", "securitySchemes", "skills"}
    members |= {"securityRequirements", "defaultInputModes", "defaultOutputModes"}
    for card in (found[0], found[2]):
        assert card.keys() == members
        assert card["capabilities"].keys() <= {"streaming", "pushNotifications", "extensions", "extendedAgentCard"}
        assert card["securitySchemes"]["bearer"].keys() == {"httpAuthSecurityScheme"}
    assert all(card["protocolVersion"] == "0.3.0" for card in (found[1], *found[3:]))
    public = await told(two_edges[0], "writer")
    assert "urn:runcast:a2a:params" not in json.dumps(public.body)


# --- who may ---------------------------------------------------------------------------------------------------------

PATHS = [
    ("POST", "/a2a"),
    ("POST", "/a2a/manual"),
    ("GET", "/a2a/stream?taskId=t"),
    ("POST", "/a2a/message:send"),
    ("GET", "/a2a/tasks"),
    ("GET", "/a2a/tasks/t"),
    ("POST", "/a2a/v1/message:stream"),
    ("GET", "/a2a/v1/tasks/t:subscribe"),
    ("GET", "/a2a/extendedAgentCard"),
    ("GET", "/agent/authenticatedExtendedCard"),
]


@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_who_may(two_edges: list[EdgeProcess], method: str, path: str) -> None:
    """Everything but the public cards needs a token."""
    answer = await call(two_edges[0].port, method, path, None, b"{}" if method == "POST" else None)
    assert answer.status == 401
    assert "www-authenticate" in answer.headers


async def test_scopes(two_edges: list[EdgeProcess], author: Author) -> None:
    """Who may only read cannot start, answer or cancel."""
    task, _ = await begun(two_edges[0], author, STARTED, ASK)
    reader = token_for(author.user, scopes=["executions:read"])
    answering = {"message": message("yes", taskId=task["id"])}
    for method, params in (
        ("SendMessage", starting()),
        ("SendStreamingMessage", answering),
        ("CancelTask", {"id": task["id"]}),
    ):
        answer = await call(two_edges[0].port, "POST", "/a2a", reader, envelope(method, params), headers=NEW)
        assert answer.status == 403, method
    answer = await call(two_edges[0].port, "POST", "/a2a", reader, envelope("GetTask", {"id": task["id"]}), headers=NEW)
    assert answer.body["result"]["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"


async def test_another_users_task(two_edges: list[EdgeProcess], author: Author) -> None:
    """Another user's task is as unknown as one that does not exist."""
    task, _ = await begun(two_edges[0], author)
    stranger = Author(author.redis, "stranger")
    params: dict[str, Any]
    for method, params in (
        ("get", {"id": task["id"]}),
        ("cancel", {"id": task["id"]}),
        ("subscribe", {"id": task["id"]}),
        ("send", {"message": message(taskId=task["id"])}),
    ):
        for old in (True, False):
            if method == "send":
                params = {"message": message(old=old, taskId=task["id"])}
            if not (old and method == "subscribe"):
                assert (await rpc(two_edges[0], stranger, method, params, old=old))["code"] == -32001
    path = f"/a2a/stream?taskId={task['id']}"
    assert (await call(two_edges[0].port, "GET", path, stranger.token)).status == 404


# --- requests that are none ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "code", "id_"),
    [
        (b"{", -32700, None),
        (b"\xff", -32700, None),
        (b"[" * 2_000, -32700, None),
        (b"[]", -32600, None),
        (b'"x"', -32600, None),
        (b'{"jsonrpc":"2.0","id":true,"method":"GetTask"}', -32600, None),
        (b'{"jsonrpc":"2.0","id":[1],"method":"GetTask"}', -32600, None),
        (b'{"jsonrpc":"1.0","id":5,"method":"GetTask"}', -32600, 5),
        (b'{"jsonrpc":"2.0","id":"x","method":7}', -32600, "x"),
        (b'{"jsonrpc":"2.0","id":5,"method":"Odd"}', -32601, 5),
        (b'{"jsonrpc":"2.0","id":5,"method":"GetTask","params":[1]}', -32602, 5),
        (b'{"jsonrpc":"2.0","id":5,"method":"GetTask"}', -32602, 5),
        (b'{"jsonrpc":"2.0","id":5,"method":"GetTask","params":{"id":1}}', -32602, 5),
        (b'{"jsonrpc":"2.0","id":5,"method":"GetTask","params":{"id":"a b/:*"}}', -32001, 5),
    ],
)
async def test_bad_requests(two_edges: list[EdgeProcess], author: Author, body: bytes, code: int, id_: Any) -> None:
    """What is no request gets the code that says why, with its id where that could be read."""
    answer = await call(two_edges[0].port, "POST", "/a2a", author.token, body, headers=NEW)
    assert (answer.status, answer.body["error"]["code"], answer.body["id"]) == (200, code, id_)
    assert answer.body["error"]["data"][0]["domain"] == "a2a-protocol.org"


@pytest.mark.parametrize(
    ("header", "method", "code"),
    [
        (None, "GetTask", -32009),
        ("", "GetTask", -32009),
        ("0.3", "GetTask", -32009),
        ("1.0", "tasks/get", -32009),
        ("2.0", "GetTask", -32009),
        ("1", "GetTask", -32009),
        ("nonsense", "tasks/get", -32009),
        ("0.3", "tasks/get", -32001),
        ("0.2.5", "tasks/get", -32001),
        (None, "tasks/get", -32001),
        ("1.0", "GetTask", -32001),
        ("1.0.7", "GetTask", -32001),
    ],
)
async def test_versions(
    two_edges: list[EdgeProcess], author: Author, header: str | None, method: str, code: int
) -> None:
    """A method is of one version; none said is 0.3, and patches never matter."""
    headers = {} if header is None else {"A2A-Version": header}
    body = envelope(method, {"id": "nobody"})
    answer = await call(two_edges[0].port, "POST", "/a2a", author.token, body, headers=headers)
    assert answer.body["error"]["code"] == code
    in_query = f"/a2a?A2A-Version={header or ''}"
    assert (await call(two_edges[0].port, "POST", in_query, author.token, body)).body["error"]["code"] == code


@pytest.mark.parametrize(
    ("method", "params", "message_"),
    [
        ("tasks/get", {"id": "nobody"}, "Task not found"),
        ("tasks/resubscribe", {"id": "nobody"}, "Task not found"),
        ("tasks/cancel", {"id": "nobody"}, "Task not found"),
        ("tasks/odd", {}, "Method not found: no method 'tasks/odd'"),
        ("tasks/get", {}, "Invalid method parameters: Object missing required field `id`"),
        ("tasks/pushNotificationConfig/set", {}, "Push Notification is not supported"),
    ],
)
async def test_usual_messages(
    two_edges: list[EdgeProcess], author: Author, method: str, params: Any, message_: str
) -> None:
    """An error's message begins as the specification has it (0.3, section 8), then it says what is wrong here."""
    refused = await rpc(two_edges[0], author, method, params, old=True, headers={"A2A-Version": "0.3"})
    assert refused["message"].startswith(message_)


async def test_push_notifications(two_edges: list[EdgeProcess], author: Author) -> None:
    """Push notifications are refused as the card says, in every version and binding."""
    names = ["tasks/pushNotificationConfig/" + name for name in ("set", "get", "list", "delete")]
    assert [(await rpc(two_edges[0], author, name, {}, old=True))["code"] for name in names] == [-32003] * 4
    names = [
        f"{verb}TaskPushNotificationConfig" + ("s" if verb == "List" else "")
        for verb in ("Create", "Get", "List", "Delete")
    ]
    assert [(await rpc(two_edges[0], author, name, {}))["code"] for name in names] == [-32003] * 4
    wish = starting(configuration={"taskPushNotificationConfig": {"url": "https://e.com"}})
    assert (await rpc(two_edges[0], author, "send", wish))["code"] == -32003
    for method, path in (("POST", ""), ("GET", ""), ("GET", "/c"), ("DELETE", "/c")):
        for base in ("/a2a", "/a2a/manual"):
            full = base + "/tasks/t/pushNotificationConfigs" + path
            answer = await call(two_edges[0].port, method, full, author.token, b"{}", headers=NEW)
            reason = answer.body["error"]["details"][0]["reason"]
            assert (answer.status, reason) == (400, "PUSH_NOTIFICATION_NOT_SUPPORTED")
        old = "/a2a/v1/tasks/t/pushNotificationConfigs" + path
        answer = await call(two_edges[0].port, method, old, author.token, b"{}")
        assert (answer.status, answer.body["code"]) == (400, -32003)


async def test_unknown_agents(two_edges: list[EdgeProcess], author: Author) -> None:
    """A message for nobody is refused with the names of those who are there."""
    for metadata in ({}, {"agent": "nobody"}):
        refused = await rpc(two_edges[0], author, "send", {"message": message(), "metadata": metadata})
        assert refused["code"] == -32602
        assert json.loads(refused["data"][0]["metadata"]["known"]) == AGENTS
    body = envelope("GetExtendedAgentCard", {})
    card = await call(two_edges[0].port, "POST", "/a2a/nobody", author.token, body, headers=NEW)
    assert (card.status, card.body["error"]["code"]) == (200, -32602), "who speaks JSON-RPC is answered in it"
    card = await call(two_edges[0].port, "GET", "/a2a/nobody/extendedAgentCard", author.token, headers=NEW)
    assert (card.status, card.body["error"]["details"][0]["reason"]) == (400, "INVALID_PARAMS")


async def test_errors_of_old_streams(two_edges: list[EdgeProcess], author: Author) -> None:
    """Clients that say no version get a stream's error as a stream, which is all that the SDKs of that time take;
    others get JSON. So does a malformed request, which no SDK sends."""
    params = {"message": message(old=True, taskId="nobody")}
    async with streaming(two_edges[0], author, "stream", params, old=True) as response:
        assert response.headers["content-type"] == "text/event-stream"
        (frame,) = [frame async for frame in response.frames()]
    assert (json.loads(frame.data or "")["error"]["code"], frame.event) == (-32001, "message")
    async with streaming(two_edges[0], author, "stream", params, old=True, A2A_Version="0.3") as response:
        assert response.headers["content-type"].startswith("application/json")
        assert (await response.json())["error"]["code"] == -32001
    for method, wrong in (("stream", {"invalid": 1}), ("stream", [1]), ("subscribe", {})):
        async with streaming(two_edges[0], author, method, wrong, old=True) as response:
            assert response.headers["content-type"].startswith("application/json")
            assert (await response.json())["error"]["code"] == -32602


# --- messages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", [True, False])
async def test_send_waits(two_edges: list[EdgeProcess], author: Author, old: bool) -> None:
    """A message is answered when the task has ended, whoever runs it; the answer keeps the connection alive."""
    name = METHODS["send"][0 if old else 1]
    headers = JSON | ({} if old else NEW)
    body = envelope(name, starting(old=old), 7)
    async with asyncio.timeout(20):
        async with request(two_edges[0].port, "POST", "/a2a", author.token, headers=headers, body=body) as response:
            (listed,) = (await rpc(two_edges[1], author, "ListTasks", {}))["tasks"]
            await task_author(author, listed).write(STARTED)
            pieces = response.pieces()
            assert await anext(pieces) == b" "  # within 2 s, without which clients give up
            await task_author(author, listed).write(DONE)
            content = json.loads(b"".join([piece async for piece in pieces]))
        assert response.whole
    assert content["id"] == 7
    task = content["result"] if old else content["result"]["task"]
    assert task["status"]["state"] == ("completed" if old else "TASK_STATE_COMPLETED")
    assert (task["id"], task["artifacts"][0]["artifactId"]) == (listed["id"], "runcast:result")


async def test_send_does_not_wait(two_edges: list[EdgeProcess], author: Author) -> None:
    """Who does not want to wait gets the task as it is."""
    task, _ = await begun(two_edges[0], author, contextId="c-1")
    assert task["status"]["state"] == "TASK_STATE_SUBMITTED"
    assert task["contextId"] == "c-1"
    old = await rpc(two_edges[0], author, "send", starting(old=True, configuration={"blocking": False}), old=True)
    assert (old["kind"], old["status"]["state"]) == ("task", "submitted")


async def test_a_repeated_message(two_edges: list[EdgeProcess], author: Author) -> None:
    """With an `Idempotency-Key` a message that is sent again starts nothing new, and another one is refused."""
    params = starting(configuration={"returnImmediately": True}, contextId="c")
    key = {"Idempotency-Key": "k"}
    first, second = [(await rpc(each, author, "send", params, headers=key))["task"] for each in two_edges]
    assert first["id"] == second["id"]
    other = starting(configuration={"returnImmediately": True}, contextId="c")
    assert (await rpc(two_edges[0], author, "send", other, headers=key))["code"] == -32602


async def test_history_length(two_edges: list[EdgeProcess], author: Author) -> None:
    """A task is given with as much of its history as is asked for, the latest."""
    answer = InputReceived(input_id="i", by="alice", value=True)
    task, _ = await begun(two_edges[0], author, STARTED, ASK, answer)
    for length, said in ((None, 3), (0, 0), (1, 1), (9, 3)):
        params = {"id": task["id"]} | ({} if length is None else {"historyLength": length})
        assert len((await rpc(two_edges[0], author, "get", params)).get("history", [])) == said


async def test_a_context(two_edges: list[EdgeProcess], author: Author) -> None:
    """Tasks of one context stand together, and an agent is given what was said there before."""
    _, agent = await begun(
        two_edges[0], author, STARTED, MessageDelta(message_id="m", delta="Hello"), DONE, contextId="c"
    )
    task, _ = await begun(two_edges[1], author, contextId="c")
    params: Any = await author.redis.hget(author.owner.execution(task["id"]).record, "params")
    said = [turn["content"] for turn in json.loads(params)["messages"]]
    assert said == ["hi", "Hello", "hi"]
    assert agent.execution_id != task["id"]


# --- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", [True, False])
async def test_an_answer(two_edges: list[EdgeProcess], author: Author, old: bool) -> None:
    """A message to a task that asks is its answer; the stream begins with the task after it, and ends with the task."""
    task, agent = await begun(two_edges[0], author, STARTED, ASK)
    params = {"message": message("Yes", old=old, taskId=task["id"], contextId=task["contextId"])}
    async with streaming(two_edges[1], author, "stream", params, old=old) as response:
        await agent.write(DONE)
        found = await results(response)
        assert response.whole
    first, last = found[0], found[-1]
    if old:
        assert (first["kind"], first["status"]["state"], last["final"]) == ("task", "working", True)
    else:
        assert first["task"]["status"]["state"] == "TASK_STATE_WORKING"
        assert last["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"
    (stored,) = [json.loads(event.data) for event in await agent.log() if event.type == "input:received"]
    assert (stored["data"]["value"], stored["data"]["by"]) == (True, author.user)


async def test_answers_that_are_none(two_edges: list[EdgeProcess], author: Author) -> None:
    """What does not fit, is of another context, comes second or too late changes nothing, and is told why."""
    task, agent = await begun(two_edges[0], author, STARTED)
    about = {"taskId": task["id"]}

    async def refused(text: str = "yes", metadata: Any = None, **more: Any) -> Any:
        params = {"message": message(text, **{**about, **more}), "metadata": metadata or {}}
        return await rpc(two_edges[0], author, "send", params)

    assert (await refused())["code"] == -32004  # it is at work
    await agent.write(ASK)
    assert (await refused("perhaps"))["code"] == -32602
    assert (await refused(contextId="another"))["code"] == -32602
    assert (await refused(metadata={"inputId": "j"}))["code"] == -32602
    assert (await refused(taskId="nobody"))["code"] == -32001
    assert [event.type for event in await agent.log()].count("input:received") == 0
    await agent.write(DONE)
    assert (await refused())["code"] == -32004


@pytest.mark.parametrize("old", [True, False])
async def test_a_message_to_a_task_at_work(
    two_edges: list[EdgeProcess], redis: Redis, author: Author, old: bool
) -> None:
    """If its agent takes messages it reaches the agent, once however often it is sent, and becomes history; a repeat is
    no answer to a question that came meanwhile, and no error after the end."""
    await redis.zadd(keys.AGENTS_STEERABLE, {"manual": now_ms()})
    task, agent = await begun(two_edges[0], author, STARTED)
    waiting = {"blocking": False} if old else {"returnImmediately": True}
    said = message("shorter", old=old, taskId=task["id"], contextId=task["contextId"])
    params = {"message": said, "metadata": {"mode": "interrupt"}, "configuration": waiting}

    async def sent(edge_: EdgeProcess) -> Any:
        answer = await rpc(edge_, author, "send", params, old=old)
        return answer if old else answer["task"]

    shown = await sent(two_edges[0])
    assert shown["status"]["state"] == ("working" if old else "TASK_STATE_WORKING")
    assert [(each["messageId"], each["parts"][0]["text"]) for each in shown["history"]][1:] == [
        (said["messageId"], "shorter")
    ]
    async with streaming(two_edges[1], author, "stream", params, old=old) as response:
        await agent.write(ASK)
        first, *_, last = await results(response)
    assert (first if old else first["task"])["status"]["state"] == shown["status"]["state"]
    assert (last if old else last["statusUpdate"])["status"]["state"] in ("input-required", "TASK_STATE_INPUT_REQUIRED")
    assert (await sent(two_edges[1]))["status"]["state"] in ("input-required", "TASK_STATE_INPUT_REQUIRED")
    await agent.write(DONE)
    assert (await sent(two_edges[1]))["status"]["state"] in ("completed", "TASK_STATE_COMPLETED")
    stored = [json.loads(event.data)["data"] for event in await agent.log() if event.type == "user:message"]
    assert stored == [{"messageId": said["messageId"], "text": "shorter", "by": author.user, "mode": "interrupt"}]
    types = [event.type for event in await agent.log()]
    assert "input:received" not in types


async def test_a_second_question_settles(two_edges: list[EdgeProcess], author: Author) -> None:
    """Who answers one of two questions gets the task at once, which still waits."""
    other = InputRequired(input_id="j", prompt="And?", kind="text")
    task, _ = await begun(two_edges[0], author, STARTED, ASK, other)
    params = {"message": message("yes", taskId=task["id"])}
    answered = (await rpc(two_edges[0], author, "send", params))["task"]
    assert answered["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
    assert answered["status"]["message"]["parts"][0] == {"text": "And?"}


# --- streams ---------------------------------------------------------------------------------------------------------


async def test_the_stream(two_edges: list[EdgeProcess], author: Author) -> None:
    """A stream is headed as one, begins with the task, ends after the end, and is kept alive while nothing happens."""
    async with streaming(two_edges[0], author, "stream", starting()) as response, asyncio.timeout(20):
        assert response.headers["content-type"] == "text/event-stream"
        (listed,) = (await rpc(two_edges[1], author, "ListTasks", {}))["tasks"]
        frames = response.frames()
        assert "task" in json.loads((await anext(frames)).data or "")["result"]
        agent = task_author(author, listed)
        await agent.write(STARTED)
        await anext(frames)
        while not response.sse.comments:  # at most 2 s
            await asyncio.sleep(0.05)
            if response.sse.comments == 0:
                await agent.write(Thinking(thought="x"))
                await anext(frames)
        await agent.write(DONE)
        rest = [json.loads(frame.data or "")["result"] async for frame in frames]
        assert response.whole
    assert rest[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_two_edges_show_the_same(two_edges: list[EdgeProcess], author: Author) -> None:
    """From the same cursor, two edges give the same bytes."""
    task, agent = await begun(two_edges[0], author, STARTED, Thinking(thought="one"), Thinking(thought="two"))
    cursor = {"Last_Event_ID": (await agent.log())[1].id}
    params = {"id": task["id"]}
    async with (
        streaming(two_edges[0], author, "subscribe", params, **cursor) as first,
        streaming(two_edges[1], author, "subscribe", params, **cursor) as second,
        asyncio.timeout(15),
    ):
        await agent.write(DONE)
        bodies = [(await each.body()).replace(b": hb\n", b"") for each in (first, second)]
    assert bodies[0] == bodies[1]
    assert bodies[0].startswith(b"id: " + cursor["Last_Event_ID"].encode())


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("by", ["header", "metadata"])
async def test_resume(two_edges: list[EdgeProcess], author: Author, old: bool, by: str) -> None:
    """With a cursor a subscription begins with the task at that place and goes on without loss, at any edge."""
    task, agent = await begun(two_edges[0], author, STARTED, Thinking(thought="one"), Thinking(thought="two"))
    cursor = (await agent.log())[2].id
    params: dict[str, Any] = {"id": task["id"]} | ({"metadata": {"cursor": cursor}} if by == "metadata" else {})
    headers = {"Last_Event_ID": cursor} if by == "header" else {}
    async with streaming(two_edges[1], author, "subscribe", params, old=old, **headers) as response:
        await agent.write(DONE)
        found = await results(response)
    seen = [each["metadata"]["generation"] for each in found] if old else generations(found)
    assert seen == [3, 4, 5, 5]


async def test_resume_at_the_end(two_edges: list[EdgeProcess], author: Author) -> None:
    """Who has not seen the end yet gets it, although the task has ended; who has is told so, and so is who has no
    cursor."""
    task, agent = await begun(two_edges[0], author, STARTED, DONE)
    log = await agent.log()
    params = {"id": task["id"]}
    async with streaming(two_edges[1], author, "subscribe", params, Last_Event_ID=log[1].id) as response:
        assert generations(await results(response)) == [2, 3, 3]
    for headers in ({"Last-Event-ID": log[2].id}, {}):
        refused = await rpc(two_edges[1], author, "subscribe", params, headers=headers)
        assert refused["code"] == -32004


async def test_resume_over_a_question(two_edges: list[EdgeProcess], author: Author) -> None:
    """A question that was answered meanwhile does not end the way to the present; one that is open does."""
    answer = InputReceived(input_id="i", by="alice", value=True)
    task, agent = await begun(two_edges[0], author, STARTED, ASK, answer, Thinking(thought="on"))
    cursor = (await agent.log())[0].id
    params = {"id": task["id"]}
    async with streaming(two_edges[1], author, "subscribe", params, old=True, Last_Event_ID=cursor) as response:
        await agent.write(InputRequired(input_id="j", prompt="?", kind="text"))
        found = await results(response)
    assert [each["metadata"]["generation"] for each in found] == [1, 2, 3, 4, 5, 6]
    assert [each.get("final") for each in found] == [None, False, False, False, False, True]


async def test_waiting_is_shown_on(two_edges: list[EdgeProcess], author: Author) -> None:
    """Who subscribes to a task that waits sees it wait, and then what follows the answer."""
    task, agent = await begun(two_edges[0], author, STARTED, ASK)
    async with streaming(two_edges[1], author, "subscribe", {"id": task["id"]}) as response:
        await agent.write(InputReceived(input_id="i", by="alice", value=True), DONE)
        found = await results(response)
    assert generations(found) == [3, 4, 5, 5]


async def test_resume_at_the_beginning(two_edges: list[EdgeProcess], author: Author) -> None:
    """The place before the first event is one of every log: all of it follows, also of a task that has ended."""
    task, _ = await begun(two_edges[0], author, STARTED, Thinking(thought="one"), DONE)
    async with streaming(two_edges[1], author, "subscribe", {"id": task["id"]}, Last_Event_ID="0-0") as response:
        assert generations(await results(response)) == [1, 2, 3, 4, 4]


@pytest.mark.parametrize("cursor", ["1-1", "99999999999999-2", "99999999999999-99", "x", "1-2-3"])
async def test_foreign_cursors(two_edges: list[EdgeProcess], author: Author, cursor: str) -> None:
    """A cursor that is no place of the task's log is refused, never guessed at."""
    task, _ = await begun(two_edges[0], author, STARTED)
    refused = await rpc(two_edges[0], author, "subscribe", {"id": task["id"]}, headers={"Last-Event-ID": cursor})
    assert refused["code"] == -32602


async def test_a_trimmed_place(two_edges: list[EdgeProcess], author: Author) -> None:
    """Where the log after the cursor is gone, the task as it is now takes its place."""
    task, agent = await begun(two_edges[0], author, STARTED, *(Thinking(thought=str(n)) for n in range(3)))
    cursor = (await agent.log())[1].id
    await author.redis.xtrim(agent.keys.log, maxlen=2, approximate=False)
    async with streaming(two_edges[1], author, "subscribe", {"id": task["id"]}, Last_Event_ID=cursor) as response:
        await agent.write(DONE)
        assert generations(await results(response)) == [5, 6, 6]


# --- tasks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", [True, False])
async def test_cancel(two_edges: list[EdgeProcess], author: Author, old: bool) -> None:
    """A task is cancelled; one that has ended cannot be, in whatever way it has."""
    task, _ = await begun(two_edges[0], author)
    cancelled = await rpc(two_edges[1], author, "cancel", {"id": task["id"]}, old=old)
    assert cancelled["status"]["state"] == ("canceled" if old else "TASK_STATE_CANCELED")
    done, _ = await begun(two_edges[0], author, STARTED, DONE)
    for id_, state in ((task["id"], "cancelled"), (done["id"], "completed")):
        refused = await rpc(two_edges[0], author, "cancel", {"id": id_}, old=old)
        assert (refused["code"], refused["message"]) == (-32002, f"Task cannot be canceled: it has ended ({state})")


async def test_a_task_whose_log_is_gone(two_edges: list[EdgeProcess], author: Author) -> None:
    """Of a task whose log has expired the record still tells how it ended."""
    task, agent = await begun(two_edges[0], author, STARTED, DONE)
    await author.redis.delete(agent.keys.log)
    found = await rpc(two_edges[0], author, "get", {"id": task["id"]})
    assert found["status"]["state"] == "TASK_STATE_COMPLETED"
    assert [artifact["artifactId"] for artifact in found["artifacts"]] == ["runcast:result"]
    assert found["history"][0]["parts"] == [{"text": "hi"}]


@pytest.mark.parametrize("old", [True, False])
async def test_a_running_task_whose_log_is_gone(two_edges: list[EdgeProcess], author: Author, old: bool) -> None:
    """A task that was silent for longer than its log is kept still stands as its record says, at its last place; one
    of whose log only the end is left has not just been submitted."""
    task, agent = await begun(two_edges[0], author, STARTED, MessageDelta(message_id="m", delta="Hi"))
    name = "working" if old else "TASK_STATE_WORKING"
    last = (await agent.log())[-1].id
    await author.redis.xtrim(agent.keys.log, maxlen=1, approximate=False)
    for _ in range(2):
        found = await rpc(two_edges[0], author, "get", {"id": task["id"]}, old=old)
        assert (found["status"]["state"], found["metadata"]["cursor"]) == (name, last)
        assert found["history"][0]["parts"][0]["text"] == "hi"
        await author.redis.delete(agent.keys.log)


async def test_a_context_of_one(two_edges: list[EdgeProcess], author: Author) -> None:
    """An execution that was started without a conversation is the only task of a context with its own id; contexts are
    found without a look at any other task."""
    alone = await call(two_edges[0].port, "POST", "/api/agent/execute", author.token, {"task": "t", "agent": "manual"})
    task, _ = await begun(two_edges[0], author, contextId="c")
    await author.redis.delete(author.owner.index)
    for context, expected in ((alone.body["executionId"], alone.body["executionId"]), ("c", task["id"])):
        listed = await rpc(two_edges[1], author, "ListTasks", {"contextId": context})
        assert [(each["id"], each["contextId"]) for each in listed["tasks"]] == [(expected, context)]
    for context in ("nothing", task["id"], "a b:*"):
        assert (await rpc(two_edges[1], author, "ListTasks", {"contextId": context}))["tasks"] == []


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("context", ["team/chat 1@example.org:8", "x" * 100, "y" * 8192, "\u00fc"])
async def test_a_context_of_any_name(two_edges: list[EdgeProcess], author: Author, context: str, old: bool) -> None:
    """A context may have any name that its client gives it: its tasks and lists have it, answers find it, and the next
    task of it is told what was said before."""
    said = MessageDelta(message_id="m", delta="Hello")
    task, agent = await begun(two_edges[0], author, STARTED, ASK, said, contextId=context)
    answer = message("Yes", old=old, taskId=task["id"], contextId=context)
    await rpc(
        two_edges[1],
        author,
        "send",
        {"message": answer, "configuration": {"blocking": False} if old else {"returnImmediately": True}},
        old=old,
    )
    await agent.write(DONE)
    second, _ = await begun(two_edges[1], author, contextId=context)
    for each in (task, second):
        found = await rpc(two_edges[1], author, "get", {"id": each["id"]}, old=old)
        assert {found["contextId"], *(each["contextId"] for each in found["history"])} == {context}
    for asked in ({"contextId": context}, {}, {"includeArtifacts": True}):
        listed = await rpc(two_edges[1], author, "ListTasks", asked)
        assert {(each["id"], each["contextId"]) for each in listed["tasks"]} == {
            (task["id"], context),
            (second["id"], context),
        }
    params = json.loads(await author.redis.hget(author.owner.execution(second["id"]).record, "params"))
    assert [turn["content"] for turn in params["messages"]] == ["hi", "Hello", "hi"]
    events = [json.loads(event.data) for event in await agent.log() if event.type == "input:received"]
    assert [event["data"]["value"] for event in events] == [True]


async def test_lists(two_edges: list[EdgeProcess], author: Author) -> None:
    """Tasks are listed by their last activity, filtered, in pages that neither repeat nor leave out."""
    made = []
    for number in range(5):
        made.append(await begun(two_edges[0], author, contextId=f"c{number % 2}"))
        await asyncio.sleep(0.002)  # activity is known to the millisecond
    await made[0][1].write(STARTED, DONE)
    ids = [task["id"] for task, _ in made]

    async def listed(**params: Any) -> Any:
        return await rpc(two_edges[1], author, "ListTasks", params)

    whole = await listed()
    assert [task["id"] for task in whole["tasks"]] == [ids[0], *reversed(ids[1:])]
    assert (whole["totalSize"], whole["nextPageToken"], whole["pageSize"]) == (5, "", 50)
    assert all("artifacts" not in task and "history" not in task for task in whole["tasks"])
    pages, token = [], ""
    while True:
        page = await listed(pageSize=2, pageToken=token)
        pages += [task["id"] for task in page["tasks"]]
        token = page["nextPageToken"]
        assert page["totalSize"] == 5
        if not token:
            break
    assert pages == [task["id"] for task in whole["tasks"]]
    assert {task["id"] for task in (await listed(contextId="c1"))["tasks"]} == {ids[1], ids[3]}
    assert [task["id"] for task in (await listed(status="TASK_STATE_COMPLETED"))["tasks"]] == [ids[0]]
    assert (await listed(status="TASK_STATE_REJECTED"))["tasks"] == []
    full = (await listed(status="TASK_STATE_COMPLETED", includeArtifacts=True, historyLength=1))["tasks"][0]
    assert (len(full["artifacts"]), len(full["history"])) == (1, 1)
    after = whole["tasks"][0]["status"]["timestamp"]
    assert [task["id"] for task in (await listed(statusTimestampAfter=after))["tasks"]] == [ids[0]]
    assert (await listed(pageToken="odd"))["code"] == -32602


async def test_a_page_of_large_tasks_is_bounded(two_edges: list[EdgeProcess], author: Author) -> None:
    """The tasks of a page share some megabytes: the oldest artifacts of each are cut, and say so."""
    for number in range(4):
        _, each = await begun(two_edges[0], author, contextId=f"large{number}")
        for part in range(30):
            text = "x" * 60_000
            await each.write(Artifact(artifact_id=f"a{part}", media_type="text/plain", text=text))
    page = await rpc(two_edges[1], author, "ListTasks", {"includeArtifacts": True})
    assert len(page["tasks"]) == 4
    assert len(json.dumps(page)) < 5 * 1024 * 1024
    for task in page["tasks"]:
        cut = [artifact for artifact in task["artifacts"] if artifact.get("metadata", {}).get("truncated")]
        assert len(task["artifacts"]) == 30
        assert cut


# --- REST ------------------------------------------------------------------------------------------------------------


async def rest(at: EdgeProcess, author: Author, method: str, path: str, value: Any = None, *, old: bool) -> Answer:
    base = "/a2a/v1" if old else "/a2a"
    return await call(at.port, method, base + path, author.token, value, headers={} if old else NEW)


async def test_rest(two_edges: list[EdgeProcess], author: Author) -> None:
    """Over REST the same tasks have the same methods, in both versions."""
    new = (
        await rest(
            two_edges[0],
            author,
            "POST",
            "/message:send",
            starting(configuration={"returnImmediately": True}),
            old=False,
        )
    ).body["task"]
    said = {"message_id": "m", "role": "ROLE_USER", "content": [{"text": "hi"}]}
    sending = {"request": said, "metadata": {"agent": "manual"}}
    old = (await rest(two_edges[0], author, "POST", "/message:send", sending, old=True)).body["task"]
    assert old["history"][0]["content"] == [{"text": "hi"}]
    for task, is_old in ((new, False), (old, True)):
        path = f"/tasks/{task['id']}"
        got = await rest(two_edges[1], author, "GET", path + "?historyLength=0", old=is_old)
        assert (got.status, got.body["id"], got.body.get("history") or []) == (200, task["id"], [])
        assert got.headers["content-type"] == "application/json"
        cancelled = await rest(two_edges[1], author, "POST", path + ":cancel", {}, old=is_old)
        assert cancelled.body["status"]["state"] == ("TASK_STATE_CANCELLED" if is_old else "TASK_STATE_CANCELED")
    page = await rest(two_edges[0], author, "GET", "/tasks?pageSize=1&includeArtifacts=true", old=False)
    assert (len(page.body["tasks"]), page.body["totalSize"]) == (1, 2)


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_rest_subscribes(two_edges: list[EdgeProcess], author: Author, method: str, old: bool) -> None:
    """A subscription comes by GET and by POST, and its frames are bare."""
    task, agent = await begun(two_edges[0], author, STARTED)
    path = f"/a2a{'/v1' if old else ''}/tasks/{task['id']}:subscribe"
    headers = {} if old else NEW
    body = None if method == "GET" else b""
    async with request(two_edges[1].port, method, path, author.token, headers=headers, body=body) as response:
        await agent.write(DONE)
        async with asyncio.timeout(15):
            found = [json.loads(frame.data or "") async for frame in response.frames()]
    assert [next(iter(each)) for each in found] == ["task", "artifactUpdate", "statusUpdate"]
    assert found[-1]["statusUpdate"].get("final") is (True if old else None)


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/a2a/tasks/nobody", 404, "TASK_NOT_FOUND"),
        ("POST", "/a2a/tasks/nobody:cancel", 404, "TASK_NOT_FOUND"),
        ("GET", "/a2a/tasks?pageSize=x", 400, "INVALID_PARAMS"),
        ("GET", "/a2a/tasks?pageSize=101", 400, "INVALID_PARAMS"),
        ("GET", "/a2a/tasks/nobody?historyLength=-1", 400, "INVALID_PARAMS"),
        ("POST", "/a2a/message:send", 400, "INVALID_PARAMS"),
    ],
)
async def test_errors_over_rest(
    two_edges: list[EdgeProcess], author: Author, method: str, path: str, status: int, reason: str
) -> None:
    """Errors have the HTTP status of their kind, and the same in the body."""
    answer = await call(two_edges[0].port, method, path, author.token, {} if method == "POST" else None, headers=NEW)
    error = answer.body["error"]
    assert (answer.status, error["code"], error["details"][0]["reason"]) == (status, status, reason)
    unsaid = await call(two_edges[0].port, method, path, author.token, {} if method == "POST" else None)
    assert unsaid.body["error"]["details"][0]["reason"] == "VERSION_NOT_SUPPORTED"


async def test_errors_over_old_rest(two_edges: list[EdgeProcess], author: Author) -> None:
    """Old errors say their code and their name, of which one client reads the one and one the other."""
    answer = await call(two_edges[0].port, "GET", "/a2a/v1/tasks/nobody", author.token)
    assert (answer.status, answer.body["code"], answer.body["type"]) == (404, -32001, "TaskNotFoundError")
    assert (await call(two_edges[0].port, "GET", "/a2a/v1/tasks", author.token)).body["code"] == -32601


# --- for an EventSource ----------------------------------------------------------------------------------------------


def watching(at: EdgeProcess, author: Author, task: dict[str, Any], query: str = "", **headers: str) -> Any:
    path = f"/a2a/stream?taskId={task['id']}{query}"
    given = {"Accept": "text/event-stream"} | {key.replace("_", "-"): value for key, value in headers.items()}
    return request(at.port, "GET", path, author.token, headers=given)


@pytest.mark.parametrize(("query", "first"), [("&A2A-Version=1.0", "task"), ("", "id"), ("&format=simple", "type")])
async def test_watching(two_edges: list[EdgeProcess], author: Author, query: str, first: str) -> None:
    """The whole task in the version's shape or the simple form, over questions to its end; after `Last-Event-ID`, at
    another edge, just what follows; when nothing does, 204."""
    task, agent = await begun(two_edges[0], author, STARTED, ASK)
    async with watching(two_edges[0], author, task, query) as response, asyncio.timeout(15):
        frames = response.frames()
        seen = [await anext(frames) for _ in range(3)]
        await agent.write(InputReceived(input_id="i", by="alice", value=True))
        seen.append(await anext(frames))
    await agent.write(DONE)
    async with watching(two_edges[1], author, task, query, Last_Event_ID=seen[-1].id or "") as response:
        async with asyncio.timeout(15):
            seen += [frame async for frame in response.frames()]
        assert response.whole
    log = await agent.log()
    assert [frame.id for frame in seen if frame.id] == [event.id for event in log]
    assert {frame.event for frame in seen} == {"message"}
    assert next(iter(json.loads(seen[0].data or ""))) == first
    async with watching(two_edges[1], author, task, query, Last_Event_ID=log[-1].id) as response:
        assert response.status == 204


async def test_the_simple_form(two_edges: list[EdgeProcess], author: Author) -> None:
    """The simple form has the gateway's event types in `type`, and what they are about."""
    task, agent = await begun(two_edges[0], author, STARTED, MessageDelta(message_id="m", delta="Hi"), DONE)
    async with watching(two_edges[0], author, task, "&format=simple") as response, asyncio.timeout(15):
        found = [json.loads(frame.data or "") async for frame in response.frames()]
    assert [each["type"] for each in found] == [
        "task.created",
        "task.status",
        "task.progress",
        "task.progress",
        "task.progress",
        "task.completed",
    ]
    assert {each["taskId"] for each in found} == {agent.execution_id}
    assert found[2]["content"] == ["Hi"]


async def test_watching_from_nowhere(two_edges: list[EdgeProcess], author: Author) -> None:
    """An `EventSource` with a cursor of another log is shown all; one without a task, or in no form, is told so."""
    task, _ = await begun(two_edges[0], author, STARTED, DONE)
    for cursor in ("1-1", "nonsense"):
        async with watching(two_edges[0], author, task, "&A2A-Version=1.0", Last_Event_ID=cursor) as response:
            async with asyncio.timeout(15):
                found = [json.loads(frame.data or "") async for frame in response.frames()]
        assert generations(found) == [1, 2, 3, 3]
    for path in ("/a2a/stream", f"/a2a/stream?taskId={task['id']}&format=odd"):
        assert (await call(two_edges[0].port, "GET", path, author.token)).status == 400
    odd = f"/a2a/stream?taskId={task['id']}&A2A-Version=7"
    assert (await call(two_edges[0].port, "GET", odd, author.token)).status == 400
