"""Files of a message, from a client's request through an edge and a worker to the agent, and into the next turn."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.cli.embedded import EmbeddedRedis
from tests.edges import EdgeProcess, Follower, call, edge, edges, request, stream_path, token_for, under_load
from tests.workers import WorkerProcess

HERE = Path(__file__).resolve().parent
PNG = base64.b64encode(b"\x89PNG\xff\xfe").decode()
HELD = f"data:image/png;base64,{PNG}"
LINK = "https://ann:hunter22@files.example.com/a.pdf"
SHOWN = "https://[redacted]@files.example.com/a.pdf"
GIVEN = [
    {"url": LINK, "mediaType": "application/pdf", "name": "a.pdf"},
    {"url": HELD, "mediaType": "image/png", "name": "a.png"},
]
KEPT = [{**GIVEN[0], "url": SHOWN}, GIVEN[1]]
"""What of them is kept for the next turn: no credentials."""
_users = itertools.count(1)


class Caller:
    """A user of two edges, over the three protocols. `started` has what the agent was given, by execution."""

    def __init__(self, both: list[EdgeProcess]) -> None:
        self.edges = both
        self.token = token_for(f"sender-{next(_users)}")

    async def post(self, path: str, body: Any, **headers: str) -> list[dict[str, Any]]:
        """What the answer's frames hold, to its end."""
        given = {"Content-Type": "application/json", "Connection": "close", **headers}
        content = json.dumps(body).encode()
        async with request(self.edges[0].port, "POST", path, self.token, headers=given, body=content) as response:
            assert response.status == 200, await response.body()
            frames = [frame.data async for frame in response.frames() if frame.data and frame.data != "[DONE]"]
        return [json.loads(frame) for frame in frames]

    async def refusal(self, path: str, body: Any, **headers: str) -> Any:
        return (await call(self.edges[0].port, "POST", path, self.token, body, headers=headers)).body

    async def executions(self) -> list[dict[str, Any]]:
        answer = await call(self.edges[1].port, "GET", "/api/agent/executions", self.token)
        return list(answer.body["executions"])

    async def given(self) -> dict[str, Any]:
        """What the agent of the newest execution was given."""
        newest = (await self.executions())[0]["executionId"]
        async with Follower(self.edges, stream_path(newest), self.token) as viewer:
            await viewer.until_done()
        return dict(json.loads(base64.b64decode(json.loads(viewer.events[-1].data)["data"]["result"])))

    # --- the protocols ---

    async def chat(self, *parts: Any, **fields: Any) -> None:
        message = {"id": f"u{next(_users)}", "role": "user", "parts": list(parts)}
        await self.post("/api/agent/chat", {"id": "c", "agent": "echo", "message": message, **fields})

    async def run(self, run_id: str, *contents: Any) -> None:
        messages = [{"id": f"u{n}", "role": "user", "content": content} for n, content in enumerate(contents)]
        await self.post("/ag-ui/echo", {"threadId": "c", "runId": run_id, "messages": messages})

    async def rpc(self, method: str, params: Any, *, old: bool = False) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        headers = {} if old else {"A2A-Version": "1.0"}
        answer = await call(self.edges[0].port, "POST", "/a2a/echo", self.token, body, headers=headers)
        return answer.body.get("result") or answer.body["error"]

    async def send(self, *parts: Any, old: bool = False, **about: Any) -> Any:
        role = "user" if old else "ROLE_USER"
        message = {"messageId": f"m{next(_users)}", "role": role, "parts": list(parts), **about}
        sent = await self.rpc("message/send" if old else "SendMessage", {"message": message}, old=old)
        return sent if old else sent.get("task", sent)


@pytest.fixture(scope="module")
def ground() -> Iterator[tuple[EmbeddedRedis, list[EdgeProcess]]]:
    with EmbeddedRedis() as server, edges(server.url, 2, executes_per_minute=0) as both:
        worker = WorkerProcess(server.url, "attachment_agents:agents", HERE)
        try:
            yield server, both
        finally:
            worker.close()


@pytest.fixture
async def caller(ground: tuple[EmbeddedRedis, list[EdgeProcess]]) -> Caller:
    return await ready(Caller(ground[1]))


async def ready(caller: Caller) -> Caller:
    """Once the worker has announced its agents."""
    await wait_for_agents(caller.edges[0], caller.token)
    return caller


async def wait_for_agents(at: EdgeProcess, token: str) -> None:
    async with asyncio.timeout(under_load(20)):
        while not (await call(at.port, "GET", "/api/agent/agents", token)).body["agents"]:
            await asyncio.sleep(0.05)


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


FILES = [
    {"type": "file", "url": LINK, "mediaType": "application/pdf", "filename": "a.pdf"},
    {"type": "file", "url": HELD, "mediaType": "image/png", "filename": "a.png"},
]
CONTENT = [
    {"type": "binary", "url": LINK, "mimeType": "application/pdf", "filename": "a.pdf"},
    {
        "type": "image",
        "source": {"type": "data", "value": PNG, "mimeType": "image/png"},
        "metadata": {"filename": "a.png"},
    },
]
PARTS = [
    {"url": LINK, "mediaType": "application/pdf", "filename": "a.pdf"},
    {"raw": PNG, "mediaType": "image/png", "filename": "a.png"},
]
OLD_PARTS = [
    {"kind": "file", "file": {"uri": LINK, "mimeType": "application/pdf", "name": "a.pdf"}},
    {"kind": "file", "file": {"bytes": PNG, "mimeType": "image/png", "name": "a.png"}},
]


def said(content: str, attachments: Any = None) -> dict[str, Any]:
    return {"role": "user", "content": content} | ({"attachments": attachments} if attachments else {})


ANSWER = {"role": "assistant", "content": "Seen."}


async def test_ai_sdk(caller: Caller) -> None:
    """A chat's files reach the agent as they are, and the next turn as they are kept, whether or not the page sends
    the history."""
    await caller.chat(text("look"), *FILES)
    assert await caller.given() == {"task": "look", "params": {"messages": [said("look", GIVEN)]}}
    await caller.chat(*FILES)
    before = [said("look", KEPT), ANSWER]
    assert (await caller.given())["params"]["messages"] == [*before, said("", GIVEN)]
    await caller.chat(text("and?"))
    assert (await caller.given())["params"]["messages"] == [*before, said("", KEPT), ANSWER, said("and?")]
    messages = [
        {"id": "h1", "role": "user", "parts": [text("look"), *FILES]},
        {"id": "h2", "role": "user", "parts": [text("x")]},
    ]
    await caller.chat(message=None, messages=messages)
    assert (await caller.given())["params"]["messages"] == [said("look", GIVEN), said("x")]


async def test_ag_ui(caller: Caller) -> None:
    """A run's files reach the agent, and those of earlier messages too."""
    await caller.run("r1", [text("look"), *CONTENT])
    assert await caller.given() == {"task": "look", "params": {"messages": [said("look", GIVEN)]}}
    await caller.run("r2", [text("look"), *CONTENT], CONTENT)
    assert await caller.given() == {
        "task": "a.pdf, a.png",
        "params": {"messages": [said("look", GIVEN), said("", GIVEN)]},
    }


@pytest.mark.parametrize("old", [False, True])
async def test_a2a(caller: Caller, old: bool) -> None:
    """A message's files reach the agent, are in the task's history, and in what the next message of the context finds
    said."""
    words = {"kind": "text", "text": "look"} if old else {"text": "look"}
    data = {"kind": "data", "data": {"n": 1}} if old else {"data": {"n": 1}}
    files = OLD_PARTS if old else PARTS
    task = await caller.send(words, data, *files, old=old, contextId="c")
    assert await caller.given() == {"task": "look", "params": {"n": 1, "messages": [said("look", GIVEN)]}}
    kept = json.loads(json.dumps([words, data, *files]).replace(LINK, SHOWN))
    for shown in (task, await caller.rpc("tasks/get" if old else "GetTask", {"id": task["id"]}, old=old)):
        assert shown["history"][0]["parts"] == kept
    await caller.send({"kind": "text", "text": "and?"} if old else {"text": "and?"}, old=old, contextId="c")
    first = said("look", KEPT) | {"data": [{"type": "data", "data": {"n": 1}}]}
    assert (await caller.given())["params"]["messages"] == [first, ANSWER, said("and?")]


async def test_the_history_of_messages_without_words(caller: Caller) -> None:
    """A task's history has its message as it was: data or files alone, and no text that nobody wrote."""
    of_data = await caller.send({"data": {"n": 1}})
    assert of_data["history"][0]["parts"] == [{"data": {"n": 1}}]
    of_files = await caller.send(PARTS[1])
    assert of_files["history"][0]["parts"] == [PARTS[1]]
    listed = await caller.rpc("ListTasks", {"historyLength": 9, "pageSize": 2})
    assert [task["history"][0]["parts"] for task in listed["tasks"]] == [[PARTS[1]], [{"data": {"n": 1}}]]


async def test_histories_of_a_list_are_bounded(caller: Caller) -> None:
    """In a long list a task's history leaves its large files out and says so; the task alone has them."""
    raw = base64.b64encode(bytes(150_000)).decode()
    for _ in range(12):
        task = await caller.send({"text": "look"}, {"raw": raw, "mediaType": "image/png"})
        assert task["history"][0]["parts"][1]["raw"] == raw
    listed = await caller.rpc("ListTasks", {"historyLength": 9, "pageSize": 20})
    assert len(listed["tasks"]) == 12
    assert all(each["metadata"]["historyTruncated"] for each in listed["tasks"])
    assert {json.dumps(each["history"][0]["parts"]) for each in listed["tasks"]} == {json.dumps([{"text": "look"}])}


async def test_an_answer_with_a_file(caller: Caller) -> None:
    """A file that comes with an answer is refused, and the question stays open."""
    body = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "SendMessage",
        "params": {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "t"}]}},
    }
    headers = {"A2A-Version": "1.0"}
    asked = (await call(caller.edges[0].port, "POST", "/a2a/asker", caller.token, body, headers=headers)).body
    task = asked["result"]["task"]
    assert task["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
    about = {"taskId": task["id"], "contextId": task["contextId"]}
    refused = await caller.send({"text": "this"}, PARTS[1], **about)
    assert (refused["code"], "files are not taken" in refused["message"]) == (-32005, True)
    assert (await caller.send({"text": "this"}, **about))["status"]["state"] == "TASK_STATE_COMPLETED"


LARGE = base64.b64encode(bytes(10_000)).decode()


async def test_what_does_not_fit(ground: tuple[EmbeddedRedis, list[EdgeProcess]]) -> None:
    """A file beyond what the edge's setting lets a conversation hold is refused with where it stands and both numbers,
    in each protocol's own way; nothing is started."""
    with edge(ground[0].url, max_conversation_bytes=8_192) as small:
        caller = await ready(Caller([small, small]))
        file = {"type": "file", "url": f"data:image/png;base64,{LARGE}", "mediaType": "image/png"}
        message = {"id": "u", "role": "user", "parts": [text("look"), file]}
        answer = await caller.refusal("/api/agent/chat", {"id": "c", "agent": "echo", "messages": [message]})
        assert (answer["status"], answer["path"], answer["size"]) == (413, "$.messages[0].parts[1].url", 13_393)
        assert 7_900 < answer["limit"] < 8_192
        image = {"type": "image", "source": {"type": "data", "value": LARGE, "mimeType": "image/png"}}
        messages = [{"id": "u", "role": "user", "content": [text("look"), image]}]
        answer = await caller.refusal("/ag-ui/echo", {"threadId": "c", "runId": "r", "messages": messages})
        assert (answer["status"], answer["path"]) == (413, "$.messages[0].content[1].source.value")
        refused = await caller.send({"text": "look"}, {"raw": LARGE, "mediaType": "image/png"})
        about = refused["data"][0]["metadata"]
        assert (refused["code"], about["path"], about["size"]) == (-32602, "message.parts[1]", "13393")
        parts = [{"kind": "text", "text": "x"}, {"kind": "file", "file": {"bytes": LARGE}}]
        assert (await caller.send(*parts, old=True))["data"]["path"] == "message.parts[1]"
        assert await caller.executions() == []


async def test_what_cannot_be_given(caller: Caller) -> None:
    """A file that no agent could have is refused over every protocol, in words that do not repeat its link."""
    secret = "ftp://ann:hunter22@h/a"
    message = {"id": "u", "role": "user", "parts": [text("x"), {"type": "file", "url": secret, "mediaType": "a/b"}]}
    chat = await caller.refusal("/api/agent/chat", {"id": "c", "agent": "echo", "messages": [message]})
    assert (chat["status"], chat["path"]) == (422, "$.messages[0].parts[1].url")
    part = {"type": "image", "source": {"type": "url", "value": secret}}
    messages = [{"id": "u", "role": "user", "content": [part]}]
    run = await caller.refusal("/ag-ui/echo", {"threadId": "c", "runId": "r", "messages": messages})
    assert (run["status"], run["path"]) == (422, "$.messages[0].content[0].source.value")
    sent = await caller.send({"url": secret})
    assert (sent["code"], sent["data"][0]["metadata"]["path"]) == (-32602, "message.parts[0]")
    assert "hunter22" not in json.dumps([chat, run, sent])
    assert await caller.executions() == []
