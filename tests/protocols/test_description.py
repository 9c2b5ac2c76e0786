"""The description of the HTTP interface against the edge that it is of: what is described is what is answered."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote

import pytest
from aiohttp.test_utils import make_mocked_request
from jsonschema import Draft202012Validator

from broker.base.problem import Problem
from broker.edge.openapi import build_openapi
from broker.http.gateway import idempotency_key
from broker.protocols.a2a.versions import NEW, OLD, version_of
from broker.protocols.ag_ui.frames import Place
from emitter.events import ExecutionComplete, ExecutionStarted
from emitter.wire.ids import parse_event_id
from tests.edges import ALL_SCOPES, Author, EdgeProcess, call, request, token_for

DOCUMENT = build_openapi("1")
BYTES = {"path": "%ff%00", "query": "%ff%00", "header": "\udc84\xe9"}
"""What no parameter may have, and what is no text at all."""
STARTING = {
    "POST /api/agent/execute", "POST /api/agent/chat", "POST /ag-ui", "POST /ag-ui/{name}", "POST /a2a",
    "POST /a2a/{agent}", "POST /a2a/message:send", "POST /a2a/message:stream", "POST /a2a/{agent}/message:send",
    "POST /a2a/{agent}/message:stream", "POST /mcp", "POST /a2a/v1/message:send", "POST /a2a/v1/message:stream",
    "POST /v1/responses",
}  # fmt: skip
PUBLISHING = "POST /api/agent/executions/{id}/events"


Asked = tuple[str, dict[str, Any]]
"""Where to, and what."""


class Operation(NamedTuple):
    method: str
    path: str
    described: dict[str, Any]

    @property
    def parameters(self) -> list[dict[str, Any]]:
        found = self.described.get("parameters", ())
        return [each if "name" in each else _component(each["$ref"]) for each in found]

    def parameter(self, name: str) -> dict[str, Any]:
        (found,) = [each for each in self.parameters if each["name"] == name]
        return found


def _component(ref: str) -> Any:
    found: Any = DOCUMENT
    for part in ref.removeprefix("#/").split("/"):
        found = found[part]
    return found


OPERATIONS = {
    f"{method.upper()} {path}": Operation(method.upper(), path, described)
    for path, item in DOCUMENT["paths"].items()
    for method, described in item.items()
}


class Sent(NamedTuple):
    """A request in which all is as it should be but for one parameter."""

    path: str
    headers: dict[str, str]


def requests(operation: Operation, task_id: str) -> Iterator[Sent]:
    known = {"id": task_id, "name": task_id, "taskId": task_id, "A2A-Version": "1.0"}
    for broken in operation.parameters:
        path, query, headers = operation.path, [], {}
        for each in operation.parameters:
            name, where = each["name"], each["in"]
            is_broken = each is broken
            if not (is_broken or each.get("required")):
                continue
            value = BYTES[where] if is_broken else known.get(name, "some")
            if where == "path":
                path = path.replace("{" + name + "}", value)
            elif where == "query":
                query.append(f"{name}={value}")
            else:
                headers[name] = value
        yield Sent(path + ("?" + "&".join(query) if query else ""), headers)


async def test_any_bytes(two_edges: list[EdgeProcess], author: Author) -> None:
    """Whatever bytes a parameter has, the answer is one that is described, and never that the edge has failed."""
    await author.write(ExecutionStarted(task="t", started_at=1, attempt=1), ExecutionComplete(result=1, duration=1.0))
    token = token_for(author.user, scopes=ALL_SCOPES)
    sent = 0
    for name, operation in OPERATIONS.items():
        body = b"{}" if "requestBody" in operation.described else None
        given = {"Content-Type": "application/json"} if body else {}
        for each in requests(operation, author.execution_id):
            sent += 1
            headers = given | each.headers
            async with request(
                two_edges[0].port, operation.method, each.path, token, headers=headers, body=body
            ) as response:
                told = (name, each, response.status)
                assert response.status < 500, told
                assert str(response.status) in operation.described["responses"], told
                described = operation.described["responses"][str(response.status)]
                types = _component(described["$ref"]) if "$ref" in described else described
                media = response.headers.get("content-type", "").partition(";")[0]
                assert media in types.get("content", {"": None}), told
    assert sent > 2 * len(OPERATIONS)


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        ("/api/agent/executions/{id}/stream", "named", "no"),
        ("/api/agent/executions/{id}/stream", "heartbeat", "comment"),
        ("/api/agent/executions/{id}/stream", "from", "end"),
        ("/api/agent/executions", "limit", "%D9%A3"),
        ("/api/agent/executions", "cursor", "5"),
        ("/api/agent/executions", "cursor", "5.a%20b"),
        ("/a2a/tasks", "pageToken", "5"),
        ("/a2a/tasks", "pageSize", "%D9%A3"),
        ("/a2a/tasks", "historyLength", "2147483648"),
        ("/a2a/tasks", "includeArtifacts", "1"),
    ],
)
async def test_values_that_are_not_described(
    two_edges: list[EdgeProcess], author: Author, path: str, name: str, value: str
) -> None:
    """What a parameter is not described to be is refused, not taken for something else."""
    schema = OPERATIONS[f"GET {path}"].parameter(name)["schema"]
    text = unquote(value)
    given = int(text) if schema["type"] == "integer" and text.isascii() else text
    assert not Draft202012Validator(schema).is_valid(given)
    await author.write(ExecutionStarted(task="t", started_at=1, attempt=1), ExecutionComplete(result=1, duration=1.0))
    asked = path.replace("{id}", author.execution_id) + f"?{name}={value}"
    answer = await call(two_edges[0].port, "GET", asked, author.token, headers={"A2A-Version": "1.0"})
    assert answer.status == 400


def chat(deep: Any) -> Asked:
    said = {"id": "m", "role": "user", "parts": [{"type": "text", "text": "t"}]}
    return "/api/agent/chat", {"id": "c", "message": said, "agent": "-", "params": deep}


def run(deep: Any) -> Asked:
    said = [{"id": "m", "role": "user", "content": "t"}]
    return "/ag-ui/-", {"threadId": "t", "runId": "r", "messages": said, "state": deep}


def send(deep: Any) -> Asked:
    return "/a2a/-/message:send", {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"data": deep}]}}


def call_send(deep: Any) -> Asked:
    return "/a2a/-", {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": send(deep)[1]}


def execute(deep: Any) -> Asked:
    return "/api/agent/execute", {"task": "t", "agent": "-", "metadata": deep}


@pytest.mark.parametrize("ask", [chat, run, send, call_send, execute])
async def test_nesting(two_edges: list[EdgeProcess], author: Author, ask: Callable[[Any], Asked]) -> None:
    """What is nested too deeply is the client's fault, whether or not it is just so shallow that it can be decoded: it
    is refused before anything is started that nobody could read. Here it is refused anyway, for its agent."""
    said: set[tuple[int, bool]] = set()
    path, body = ask({"x": "DEEP"})
    text = json.dumps(body).encode()
    for depth in (100, 150, *range(950, 990), 5000):
        deep = text.replace(b'"DEEP"', b"[" * depth + b"]" * depth)
        answer = await call(two_edges[0].port, "POST", path, author.token, deep, headers={"A2A-Version": "1.0"})
        assert answer.status in (200, 400, 422), (depth, answer.body)
        assert ("error" in answer.body) == path.startswith("/a2a"), "each protocol says it in its own way"
        said.add((depth, "no worker knows" in json.dumps(answer.body)))
    assert {depth for depth, is_of_the_agent in said if is_of_the_agent} == {100}


def test_traces() -> None:
    """Whatever starts an execution, or writes into one, can be part of a trace."""
    traced = {
        name for name, each in OPERATIONS.items() if "traceparent" in [given["name"] for given in each.parameters]
    }
    assert traced == STARTING | {PUBLISHING}
    assert all(OPERATIONS[name].parameter("tracestate") for name in traced)


def fits(parameter: dict[str, Any], text: str) -> bool:
    return re.search(parameter["schema"]["pattern"], text) is not None


def is_taken(read: Callable[[str], Any], text: str) -> bool:
    try:
        read(text)
    except (ValueError, Problem):
        return False
    return True


def version(text: str) -> Any:
    return version_of(make_mocked_request("GET", "/", headers={"A2A-Version": text}))


def key(text: str) -> Any:
    return idempotency_key(make_mocked_request("GET", "/", headers={"Idempotency-Key": text}))


@pytest.mark.parametrize("text", ["", "1.0", "1.0.3", "0.3", "0.2.5", "0.3.", "1", "1.1", "2.0", "01.0", "x", "1.0-x"])
def test_versions(text: str) -> None:
    """The description knows the versions that the edge does, and which of them each binding of REST takes."""
    assert fits(OPERATIONS["POST /a2a"].parameter("A2A-Version"), text) == is_taken(version, text)
    family = version(text) if is_taken(version, text) else None
    new, old = [OPERATIONS[f"GET {base}/tasks/{{id}}"].parameter("A2A-Version") for base in ("/a2a", "/a2a/v1")]
    assert (fits(new, text), fits(old, text)) == (family == NEW, family == OLD)
    assert (new["required"], old["required"]) == (True, False), "none is 0.3"


@pytest.mark.parametrize("text", ["1-1", "1-1.2", "1-1.", "1", "-", "1-x", "a1-1", "1-1 ", "1" * 16 + "-1"])
def test_cursors(text: str) -> None:
    """What is described as a cursor is what is read as one; of AG-UI's frames there may be several to an event."""
    task, run = OPERATIONS["GET /a2a/tasks/{id}:subscribe"], OPERATIONS["GET /ag-ui/{name}"]
    for name in ("Last-Event-ID", "cursor"):
        assert fits(task.parameter(name), text) == is_taken(parse_event_id, text)
        assert fits(run.parameter(name), text) == is_taken(Place.parse, text)


@pytest.mark.parametrize("text", ["", "k", "a key", "k" * 255, "k" * 256, "\x7f", "\xe9"])
def test_keys(text: str) -> None:
    """So with the keys of requests that may be sent again."""
    assert fits(OPERATIONS["POST /a2a/message:send"].parameter("Idempotency-Key"), text) == is_taken(key, text)
