"""LangChain's agents over every protocol: a person decides on their actions, and a conversation is told once."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.e2e.test_langgraph_streams import ALICE, HERE, execute, worker
from tests.edges import EdgeProcess, call, request, under_load

JSON = {"Content-Type": "application/json"}
EDITED = {"to": "Bob"}
_ids = itertools.count(1)


@pytest.fixture(autouse=True)
def working(redis: Redis, redis_url: str) -> Iterator[None]:
    """A worker, once Redis is empty: what it announces stays."""
    with worker(redis_url, "langgraph_agents:agents", HERE):
        yield


async def known(edge: EdgeProcess, agent: str) -> None:
    async with asyncio.timeout(under_load(45)):
        while agent not in str((await call(edge.port, "GET", "/api/agent/agents", ALICE)).body):
            await asyncio.sleep(0.05)


async def posted(edge: EdgeProcess, path: str, content: Any, **headers: str) -> list[Any]:
    """The data of a response that streams to its end."""
    body = json.dumps(content).encode()
    async with (
        asyncio.timeout(under_load(40)),
        request(edge.port, "POST", path, ALICE, headers=JSON | headers, body=body) as answer,
    ):
        assert answer.status == 200, await answer.body()
        lines = (await answer.body()).split(b"\n")
    return [json.loads(line[6:]) for line in lines if line.startswith(b"data: {")]


def text_of(value: Any) -> str:
    return json.dumps(value)


async def state_when(edge: EdgeProcess, execution_id: str, is_met: Any) -> Any:
    async with asyncio.timeout(under_load(40)):
        while True:
            state = (await call(edge.port, "GET", f"/api/agent/executions/{execution_id}", ALICE)).body
            if is_met(state):
                return state
            await asyncio.sleep(0.05)


async def decide(edge: EdgeProcess, execution_id: str, *answers: Any) -> Any:
    """Answer the questions as they come, as a console does and a page with the AI SDK; the state at the end."""
    done: set[str] = set()
    for value in answers:
        state = await state_when(
            edge, execution_id, lambda state: any(asked["inputId"] not in done for asked in state["openInputs"])
        )
        (asked,) = [asked for asked in state["openInputs"] if asked["inputId"] not in done]
        given = {"inputId": asked["inputId"], "value": value}
        path = f"/api/agent/executions/{execution_id}/input"
        assert (await call(edge.port, "POST", path, ALICE, given)).status == 202
        done.add(asked["inputId"])
    return await state_when(edge, execution_id, lambda state: state["endedAt"] is not None)


DECISIONS = [
    (("approve",), "sent 2 to Ada"),
    (("edit", EDITED), "sent 2 to Bob"),
    (("reject",), "User rejected"),
    (("reject with a reason", "she moved"), "she moved"),
]


@pytest.mark.parametrize(("answers", "result"), DECISIONS)
async def test_from_a_console(two_edges: list[EdgeProcess], answers: tuple[Any, ...], result: str) -> None:
    """The input endpoint."""
    execution_id = await execute(two_edges[0], "mailer", "Write to Ada")
    state = await decide(two_edges[0], execution_id, *answers)
    assert result in state["result"]


async def test_from_a_page_with_the_ai_sdk(two_edges: list[EdgeProcess]) -> None:
    """The question is a part of the message; its answer goes to the input endpoint while the stream is open."""
    await known(two_edges[0], "mailer")
    content = {"id": "chat-m", "agent": "mailer", "messages": [user("Write to Ada")]}
    stream = asyncio.create_task(posted(two_edges[0], "/api/agent/chat", content))
    async with asyncio.timeout(under_load(40)):
        while not (found := (await call(two_edges[0].port, "GET", "/api/agent/executions", ALICE)).body["executions"]):
            await asyncio.sleep(0.05)
    await decide(two_edges[1], found[0]["executionId"], "edit", EDITED)
    assert "sent 2 to Bob" in text_of(await stream)


@pytest.mark.parametrize(("answers", "result"), DECISIONS)
async def test_by_ag_ui(two_edges: list[EdgeProcess], answers: tuple[Any, ...], result: str) -> None:
    """Each question ends a run; the next one resumes with the answer."""
    await known(two_edges[0], "mailer")
    shown = await posted(two_edges[0], "/ag-ui/mailer", run("Write to Ada"))
    for value in answers:
        (asked,) = shown[-1]["outcome"]["interrupts"]
        resume = [{"interruptId": asked["id"], "status": "resolved", "payload": value}]
        shown = await posted(two_edges[1], "/ag-ui/mailer", run("Write to Ada", resume=resume))
    assert shown[-1]["outcome"] == {"type": "success"}
    assert result in text_of(shown)


@pytest.mark.parametrize(("answers", "result"), DECISIONS)
async def test_by_a2a(two_edges: list[EdgeProcess], answers: tuple[Any, ...], result: str) -> None:
    """Each question is a task that needs input; a text or a data part is the answer."""
    await known(two_edges[0], "mailer")
    task = await sent(two_edges[0], "mailer", part("Write to Ada"))
    for value in answers:
        assert task["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
        task = await sent(two_edges[1], "mailer", part(value), taskId=task["id"], contextId=task["contextId"])
    assert task["status"]["state"] == "TASK_STATE_COMPLETED"
    assert result in text_of(task)


@pytest.mark.parametrize("answer", [{"data": "forty-two"}, '{"data": "forty-two"}'])
async def test_any_json_is_an_answer(two_edges: list[EdgeProcess], answer: Any) -> None:
    """Of an interrupt that names no kind, from every side."""
    execution_id = await execute(two_edges[0], "asker", "What?")
    assert (await decide(two_edges[0], execution_id, answer))["result"] == "forty-two"
    shown = await posted(two_edges[0], "/ag-ui/asker", run("What?"))
    (asked,) = shown[-1]["outcome"]["interrupts"]
    assert asked["responseSchema"] == {}
    resume = [{"interruptId": asked["id"], "status": "resolved", "payload": answer}]
    assert "forty-two" in text_of(await posted(two_edges[0], "/ag-ui/asker", run("What?", resume=resume)))
    task = await sent(two_edges[0], "asker", part("What?"))
    task = await sent(two_edges[0], "asker", part(answer), taskId=task["id"], contextId=task["contextId"])
    assert "forty-two" in text_of(task)


# --- conversations ---------------------------------------------------------------------------------------------------


async def test_three_turns_by_the_ai_sdk(two_edges: list[EdgeProcess]) -> None:
    """The page sends all of it each time, and the thread has it: 1, 3, 5 messages."""
    await known(two_edges[0], "parrot")
    messages: list[Any] = []
    for number, heard in enumerate((1, 3, 5)):
        messages.append(user(f"q{number}"))
        content = {"id": "chat-p", "agent": "parrot", "messages": messages}
        shown = await posted(two_edges[number % 2], "/api/agent/chat", content)
        said = "".join(chunk["delta"] for chunk in shown if chunk["type"] == "text-delta")
        assert said == f"heard {heard}"
        messages.append({"id": f"a{number}", "role": "assistant", "parts": [{"type": "text", "text": said}]})


async def test_three_turns_by_ag_ui(two_edges: list[EdgeProcess]) -> None:
    """Likewise."""
    await known(two_edges[0], "parrot")
    messages: list[Any] = []
    for number, heard in enumerate((1, 3, 5)):
        messages.append({"id": f"q{number}", "role": "user", "content": f"q{number}"})
        shown = await posted(two_edges[number % 2], "/ag-ui/parrot", run("", messages=messages, thread="thread-p"))
        said = "".join(event["delta"] for event in shown if event["type"] == "TEXT_MESSAGE_CONTENT")
        assert said == f"heard {heard}"
        messages.append({"id": f"a{number}", "role": "assistant", "content": said})


async def test_three_turns_by_a2a(two_edges: list[EdgeProcess]) -> None:
    """The client sends what is new, and the edge adds the rest."""
    await known(two_edges[0], "parrot")
    about: dict[str, Any] = {}
    for number, heard in enumerate((1, 3, 5)):
        task = await sent(two_edges[number % 2], "parrot", part(f"q{number}"), **about)
        about = {"contextId": task["contextId"]}
        assert f"heard {heard}" in text_of(task)


def user(text: str) -> Any:
    return {"id": f"u{next(_ids)}", "role": "user", "parts": [{"type": "text", "text": text}]}


def run(text: str, *, messages: Any = None, thread: str | None = None, **fields: Any) -> Any:
    number = next(_ids)
    said = messages or [{"id": "u1", "role": "user", "content": text}]
    return {"threadId": thread or "thread-1", "runId": f"run-{number}", "messages": said, **fields}


def part(value: Any) -> Any:
    return {"text": value} if isinstance(value, str) else {"data": value}


async def sent(edge: EdgeProcess, agent: str, given: Any, **about: Any) -> Any:
    """The task after a message to it, once it waits or has ended."""
    message = {"messageId": f"m{next(_ids)}", "role": "ROLE_USER", "parts": [given], **about}
    params = {"message": message, "metadata": {"agent": agent}}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": params}).encode()
    async with asyncio.timeout(under_load(40)):
        answer = await call(edge.port, "POST", "/a2a", ALICE, body, headers={"A2A-Version": "1.0"})
    assert "result" in answer.body, answer.body
    return answer.body["result"]["task"]
