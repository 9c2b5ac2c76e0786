"""Every way in which an edge shows an execution, asked for by hand over plain sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

from redis.asyncio import Redis

from emitter.wire import ids, keys
from tests.edges import Author, Connection, EdgeProcess, call, request, token_for

Json = dict[str, Any]
JSON = {"Content-Type": "application/json"}
CHAT = "chat-1"
AGENT = "manual"
READ_SECONDS = 20.0
_HEARTBEAT = re.compile(rb"(?m)^: hb\n")


# --- the execution ---------------------------------------------------------------------------------------------------


class Turn(NamedTuple):
    """An execution for which every protocol may be asked: a turn of a chat, a run of a thread, a task of a context."""

    author: Author
    first: str
    """The id of its first event."""

    @property
    def id(self) -> str:
        return self.author.execution_id


async def known(redis: Redis, edges: Iterable[EdgeProcess]) -> None:
    """Make the edges know an agent that no worker runs: the tests write its executions."""
    await redis.zadd(keys.AGENTS_KNOWN, {AGENT: ids.now_ms()})
    for edge in edges:
        async with asyncio.timeout(10):
            while AGENT not in await _known_agents(edge):  # an edge looks every second
                await asyncio.sleep(0.05)


async def _known_agents(edge: EdgeProcess) -> list[str]:
    refused = await call(edge.port, "POST", "/api/agent/execute", token_for("nobody"), {"task": "t", "agent": "-"})
    return list(refused.body["known"])


async def begin(edge: EdgeProcess, author: Author) -> Turn:
    """Start a turn, and leave it. Its log has its first event."""
    async with request(edge.port, "POST", "/api/agent/chat", author.token, headers=JSON, body=_chat()) as response:
        assert response.status == 200
    listed = await call(edge.port, "GET", "/api/agent/executions", author.token)
    author = Author(author.redis, author.user, listed.body["executions"][0]["executionId"])
    return Turn(author, (await author.log())[0].id)


def _chat() -> bytes:
    message = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "t"}]}
    return json.dumps({"id": CHAT, "messages": [message], "agent": AGENT}).encode()


# --- how to ask for it -----------------------------------------------------------------------------------------------


class Show(NamedTuple):
    """One way to be shown it. `end` are bytes that nothing but the protocol's own last message has."""

    name: str
    method: str
    path: str
    end: bytes
    headers: Mapping[str, str] = {}
    body: Callable[[Turn], bytes] | None = None
    from_first: bool = False
    """Whether it must be given a cursor to be shown more than the present."""
    resumes: bool = True
    """Whether it takes a cursor."""

    @property
    def is_placed(self) -> bool:
        """Whether its controls say where it stands, so that the end of a connection is no end to its clients."""
        return self.name.startswith("durable_streams")

    def open(
        self, edge: EdgeProcess, turn: Turn, *, cursor: str | None = None, token: str | None = None, **options: Any
    ) -> AbstractAsyncContextManager[Connection]:
        after = cursor or (turn.first if self.from_first else None)
        headers = {**JSON, **self.headers, **({"Last-Event-ID": after} if after else {})}
        path = self.path.replace("{id}", turn.id)
        body = self.body(turn) if self.body else None
        used = token or turn.author.token
        return request(edge.port, self.method, path, used, headers=headers, body=body, **options)

    @contextlib.asynccontextmanager
    async def stream(self, edge: EdgeProcess, turn: Turn, **options: Any) -> AsyncIterator[Connection]:
        """`open`, of an answer that is a stream."""
        async with self.open(edge, turn, **options) as response:
            assert response.status == 200, (self.name, response.status)
            assert response.headers["content-type"].startswith("text/event-stream"), self.name
            yield response

    async def whole(self, edge: EdgeProcess, turn: Turn, **options: Any) -> bytes:
        """All of a stream that ends by itself, as `plain`."""
        async with self.stream(edge, turn, **options) as response, asyncio.timeout(READ_SECONDS):
            body = await response.body()
        assert response.whole, self.name
        return self.plain(body)

    def plain(self, body: bytes) -> bytes:
        """What the log is shown as: without signs of life, and without the control events that depend on the moment."""
        body = _HEARTBEAT.sub(b"", body)
        if self.is_placed:
            return b"".join(block for block in blocks(body) if b'"streamCursor"' not in block)
        return body if self.name != "native" else b"".join(_numbered(body))


def blocks(body: bytes) -> list[bytes]:
    """The frames of a stream, each with its blank line."""
    *found, rest = re.split(rb"(?<=\n\n)", body)
    assert rest == b"", "a stream ends with a frame"
    return found


def _numbered(body: bytes) -> list[bytes]:
    return [block for block in blocks(body) if block.startswith(b"id: ")]


def after(body: bytes, cursor: str) -> bytes:
    """What follows the frame of this id."""
    found = blocks(body)
    at = [number for number, block in enumerate(found) if block.startswith(b"id: %b\n" % cursor.encode())]
    return b"".join(found[at[-1] + 1 :])


def contents(body: bytes) -> list[Any]:
    """The JSON of the frames, but for `[DONE]`."""
    lines = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]
    return [json.loads(line) for line in lines if line != b"[DONE]"]


def _rpc(method: str) -> Callable[[Turn], bytes]:
    envelope = {"jsonrpc": "2.0", "id": 7, "method": method}
    return lambda turn: json.dumps({**envelope, "params": {"id": turn.id}}).encode()


def _run(turn: Turn) -> bytes:
    message = {"id": "u1", "role": "user", "content": "t"}
    return json.dumps({"threadId": CHAT, "runId": turn.id, "messages": [message]}).encode()


def _wait(turn: Turn) -> bytes:
    arguments = {"executionId": turn.id}
    params = {"name": "wait_for_execution", "arguments": arguments, "_meta": {"progressToken": "p"}}
    return json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}).encode()


NEW = {"A2A-Version": "1.0"}
SSE = {"Accept": "text/event-stream"}
OLD_END, NEW_END = b'"final":true', b'"status":{"state":"TASK_STATE_COMPLETED"'
WATCH = "/a2a/stream?taskId={id}"
NATIVE = Show("native", "GET", "/api/agent/executions/{id}/stream", b"\nevent: execution:complete\n", SSE)
AI_SDK = [
    Show(
        "ai_sdk post", "POST", "/api/agent/chat", b"data: [DONE]\n", body=lambda _: _chat(), resumes=False
    ),
    Show("ai_sdk resume", "GET", f"/api/agent/chat/{CHAT}/stream", b"data: [DONE]\n", resumes=False),
]  # fmt: skip
AG_UI = [
    Show("ag_ui run", "POST", f"/ag-ui/{AGENT}", b'"type":"RUN_FINISHED"', body=_run),
    Show("ag_ui attach", "GET", "/ag-ui/{id}", b'"type":"RUN_FINISHED"'),
]
SUBSCRIBE = [
    Show("a2a 1.0 tenant", "GET", f"/a2a/{AGENT}/tasks/{{id}}:subscribe", NEW_END, NEW, from_first=True),
    Show("a2a 0.3", "POST", "/a2a", OLD_END, body=_rpc("tasks/resubscribe"), from_first=True),
    Show("a2a 1.0", "POST", "/a2a", NEW_END, NEW, body=_rpc("SubscribeToTask"), from_first=True),
    Show("a2a 0.3 rest", "GET", "/a2a/v1/tasks/{id}:subscribe", OLD_END, from_first=True),
    Show("a2a 1.0 rest", "POST", "/a2a/tasks/{id}:subscribe", NEW_END, NEW, from_first=True),
]
WATCHED = [
    Show("a2a 0.3 watched", "GET", WATCH, OLD_END, SSE),
    Show("a2a 1.0 watched", "GET", WATCH, NEW_END, SSE | NEW),
    Show("a2a simple", "GET", WATCH + "&format=simple", b'"type":"task.completed"', SSE),
]
DURABLE = [
    Show("durable_streams", "GET", "/ds/executions/{id}?offset=-1&live=sse", b'"streamClosed":true', resumes=False),
    Show(
        "durable_streams chunks", "GET", "/ds/executions/{id}?offset=-1&live=sse&format=ai-sdk", b'"streamClosed":true',
        resumes=False,
    ),
]  # fmt: skip
RESPONSES = [
    Show(
        "responses", "GET", "/v1/responses/resp_{id}_0?stream=true", b"\nevent: response.completed\n", resumes=False
    )
]  # fmt: skip
HELD = [Show("mcp wait", "POST", "/mcp", b'"state":"completed"', body=_wait, resumes=False)]
"""Calls that show what an execution does, and its text only at its end."""
SHOWS = [NATIVE, *AI_SDK, *AG_UI, *SUBSCRIBE, *WATCHED, *DURABLE, *RESPONSES]
