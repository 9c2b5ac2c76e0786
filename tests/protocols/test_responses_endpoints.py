"""The endpoints below `/v1` over real sockets. These tests write for the agent; requests come to whatever edge."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis
from shows import AGENT, known

from broker.base.problem import Problem, retry_after
from broker.protocols.question_ids import QuestionId
from broker.protocols.responses.errors import error_response
from broker.protocols.responses.ids import ResponseId
from emitter.events import (
    Event,
    ExecutionComplete,
    ExecutionStarted,
    ExecutionSuperseded,
    InputRequired,
    MessageComplete,
    MessageDelta,
)
from emitter.store import announcements
from emitter.store.announcements import AgentInfo, WorkerInfo
from emitter.wire.keys import EDGES
from tests.edges import Answer, Author, Connection, EdgeProcess, call, edge, request, token_for
from tests.protocols.test_responses_stream import Client, text_of

STARTED = ExecutionStarted(task="hi", started_at=1, attempt=1)
DONE = ExecutionComplete(result="fine", duration=1.0)
APPROVE = InputRequired(input_id="i", prompt="Go on?", kind="approval")
CHOOSE = InputRequired(input_id="j", prompt="Where?", kind="choice", options=["x", "y"])
FORM = InputRequired(input_id="f", prompt="Who?", kind="form", schema={"type": "object", "required": ["name"]})
Json = dict[str, Any]


@pytest.fixture(autouse=True)
async def agents(redis: Redis, two_edges: list[EdgeProcess]) -> None:
    await known(redis, two_edges)


def said(text: str) -> Event:
    return MessageDelta(message_id="m", delta=text)


async def create(at: EdgeProcess, author: Author, input_: Any = "hi", *, status: int = 200, **more: Any) -> Json:
    """A response that runs in the background, or an error."""
    body = {"model": AGENT, "input": input_, "background": True, **more}
    answer = await call(at.port, "POST", "/v1/responses", author.token, body)
    assert answer.status == status, answer.body
    found: Json = answer.body if status == 200 else answer.body["error"]
    return found


async def get(at: EdgeProcess, author: Author, path: str, *, status: int = 200, method: str = "GET") -> Json:
    answer = await call(at.port, method, f"/v1/{path}", author.token)
    assert answer.status == status, answer.body
    found: Json = answer.body if status == 200 else answer.body["error"]
    return found


def of(author: Author, response: Json) -> Author:
    """Who writes the execution of a response."""
    id_ = ResponseId.parse(response["id"])
    assert id_ is not None
    return Author(author.redis, author.user, id_.execution_id)


@contextlib.asynccontextmanager
async def streaming(at: EdgeProcess, author: Author, id_: str, after: int | None = None) -> AsyncIterator[Connection]:
    query = "stream=true" if after is None else f"stream=true&starting_after={after}"
    async with request(at.port, "GET", f"/v1/responses/{id_}?{query}", author.token) as response:
        assert response.status == 200
        yield response


async def stream(at: EdgeProcess, author: Author, id_: str, after: int | None = None) -> bytes:
    async with streaming(at, author, id_, after) as response, asyncio.timeout(15):
        body = await response.body()
    assert response.whole
    return body.replace(b": hb\n", b"")


async def params_of(author: Author) -> Json:
    found = await author.redis.hget(author.keys.record, "params")
    return json.loads(found)


async def answers(author: Author) -> list[Json]:
    """That its log has."""
    return [json.loads(entry.data)["data"] for entry in await author.log() if entry.type == "input:received"]


# --- held and streamed -----------------------------------------------------------------------------------------------


async def test_a_post_waits_for_the_end(two_edges: list[EdgeProcess], author: Author) -> None:
    """One JSON body, alive by white space; whoever leaves cancels nothing."""
    body = json.dumps({"model": AGENT, "input": "hi"}).encode()
    headers = {"Content-Type": "application/json"}
    async with request(
        two_edges[0].port, "POST", "/v1/responses", author.token, headers=headers, body=body
    ) as response:
        assert (response.status, response.headers["content-type"]) == (200, "application/json")
        mine = await newest(author)
        await mine.write(STARTED, said("It is "))
        async with asyncio.timeout(15):
            pieces = response.pieces()
            assert await anext(pieces) == b"\n", "a heartbeat is white space"
            await mine.write(said("done"), DONE)
            raw = b"".join([piece async for piece in pieces])
    made = json.loads(raw)
    assert (made["status"], text_of(made)) == ("completed", "It is done")
    assert await get(two_edges[1], author, f"responses/{made['id']}") == made
    async with request(two_edges[0].port, "POST", "/v1/responses", author.token, headers=headers, body=body):
        left = await newest(author, not_=mine.execution_id)
    await left.write(STARTED, DONE)
    assert (await get(two_edges[1], author, f"responses/{ResponseId(left.execution_id)}"))["status"] == "completed"


async def newest(author: Author, not_: str = "") -> Author:
    async with asyncio.timeout(10):
        while True:
            found = await author.redis.zrange(author.owner.index, 0, 0, desc=True)
            if found and found[0].decode() != not_:
                return Author(author.redis, author.user, found[0].decode())
            await asyncio.sleep(0.02)


async def test_a_stream_goes_on_at_another_edge(two_edges: list[EdgeProcess], author: Author) -> None:
    """After each of its numbers, before the end and long after it."""
    first, second = two_edges
    made = await create(first, author)
    assert made["status"] == "queued"
    mine = of(author, made)
    async with streaming(first, author, made["id"]) as response, streaming(second, author, made["id"], 4) as other:
        await mine.write(STARTED, said("a"), said("b"), MessageComplete(message_id="m"), DONE)
        async with asyncio.timeout(15):
            live = (await response.body()).replace(b": hb\n", b"")
            rest = (await other.body()).replace(b": hb\n", b"")
    client = Client().read(live)
    assert (client.text, client.is_done) == ("ab", True)
    frames = live.split(b"\n\n")
    assert rest == b"\n\n".join(frames[5:])
    assert await stream(second, author, made["id"]) == live
    for after in range(0, len(frames) - 2, 3):
        assert await stream(second, author, made["id"], after) == b"\n\n".join(frames[after + 1 :])
    assert await stream(first, author, made["id"], 10**6) == b"data: [DONE]\n\n"


async def test_a_log_that_lost_its_head(two_edges: list[EdgeProcess], author: Author) -> None:
    """Numbers have lost their meaning: 410. What is left is there without them; of a tombstone, how it ended."""
    made = await create(two_edges[0], author)
    mine = of(author, made)
    await mine.write(STARTED, said("a"), said("b"), DONE)
    await author.redis.xtrim(mine.keys.log, maxlen=2, approximate=False)
    refused = await get(two_edges[0], author, f"responses/{made['id']}?stream=true&starting_after=1", status=410)
    assert (refused["code"], refused["param"]) == ("trimmed", "starting_after")
    left = await get(two_edges[0], author, f"responses/{made['id']}")
    assert (text_of(left), left["metadata"]) == ("b", {"runcast_lost_before": "4"})
    await author.redis.delete(mine.keys.log)
    ended = await get(two_edges[1], author, f"responses/{made['id']}")
    assert (ended["status"], text_of(ended)) == ("completed", "fine")


# --- what an agent is given ------------------------------------------------------------------------------------------


async def test_what_an_agent_is_given(two_edges: list[EdgeProcess], author: Author) -> None:
    """The conversation with its files, the instructions, the functions, the parameters and the request's own wishes."""
    tools = [{"type": "function", "name": "f", "parameters": {"type": "object"}}]
    content = [
        {"type": "input_text", "text": "look"},
        {"type": "input_image", "image_url": "https://example.com/a.png"},
        {"type": "input_file", "filename": "a.txt", "file_data": "aGk="},
        {"type": "input_file", "file_id": "file-1"},
    ]
    items = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "two"}]},
        {"role": "user", "content": content},
    ]
    more = {"instructions": "Be kind.", "tools": tools, "temperature": 0.5, "metadata": {"k": "v"}, "params": {"p": 1}}
    made = await create(two_edges[0], author, items, **more, store=False)
    params = await params_of(of(author, made))
    assert [params[name] for name in ("instructions", "tools", "p")] == ["Be kind.\n\nBe brief.", tools, 1]
    assert params["responses"]["temperature"] == 0.5
    assert [(turn["role"], turn["content"]) for turn in params["messages"]] == [
        ("user", "one"),
        ("assistant", "two"),
        ("user", "look"),
    ]
    assert params["messages"][-1]["attachments"] == [
        {"url": "https://example.com/a.png", "mediaType": "image/*"},
        {"url": "data:application/octet-stream;base64,aGk=", "mediaType": "application/octet-stream", "name": "a.txt"},
        {"references": {"": "file-1"}},
    ]
    assert [made[name] for name in ("temperature", "metadata", "store", "background", "model")] == [
        0.5, {"k": "v"}, False, True, AGENT,
    ]  # fmt: skip
    listed = await get(two_edges[1], author, f"responses/{made['id']}/input_items?order=asc&limit=2")
    assert [item["content"][0]["text"] for item in listed["data"]] == ["one", "two"]
    assert listed["has_more"]
    rest = await get(two_edges[1], author, f"responses/{made['id']}/input_items?order=asc&after={listed['last_id']}")
    assert [part["type"] for part in rest["data"][0]["content"]] == [
        "input_text", "input_image", "input_file", "input_file",
    ]  # fmt: skip


async def test_turns_of_a_conversation(two_edges: list[EdgeProcess], author: Author) -> None:
    """The chain of previous responses is what was said: a response that goes on from an earlier one does not know of
    later ones."""
    ids = []
    for number, previous in ((1, None), (2, 0), (3, 1), (4, 0)):
        more = {} if previous is None else {"previous_response_id": ids[previous]}
        made = await create(two_edges[number % 2], author, f"q{number}", **more)
        assert made["previous_response_id"] == more.get("previous_response_id")
        started = ExecutionStarted(task=f"q{number}", started_at=1, attempt=1)
        await of(author, made).write(started, said(f"a{number}"), DONE)
        ids.append(made["id"])
    for at, known_ in ((2, ["q1", "a1", "q2", "a2", "q3"]), (3, ["q1", "a1", "q4"])):
        found = ResponseId.parse(ids[at])
        assert found is not None
        params = await params_of(Author(author.redis, author.user, found.execution_id))
        assert [turn["content"] for turn in params["messages"]] == known_


async def test_an_idempotency_key(two_edges: list[EdgeProcess], author: Author) -> None:
    """The same request again is the same response, another one is refused."""
    body = {"model": AGENT, "input": "hi", "background": True}
    made = []
    for at, told in zip([*two_edges, two_edges[0]], ("hi", "hi", "other"), strict=True):
        key = {"Idempotency-Key": "k"}
        made.append(await call(at.port, "POST", "/v1/responses", author.token, {**body, "input": told}, headers=key))
    assert made[0].body["id"] == made[1].body["id"]
    assert (made[2].status, made[2].body["error"]["code"]) == (400, "idempotency_key_reused")


# --- questions -------------------------------------------------------------------------------------------------------


def approval(response: Json, approve: bool = True) -> Json:
    return {
        "type": "mcp_approval_response",
        "approval_request_id": response["output"][-1]["id"],
        "approve": approve,
    }


def output(response: Json, text: str) -> Json:
    return {"type": "function_call_output", "call_id": response["output"][-1]["call_id"], "output": text}


async def test_questions_and_answers(two_edges: list[EdgeProcess], author: Author) -> None:
    """Each answer begins the next response; the first one counts, others get what follows it. A client that sends the
    whole conversation instead of an id is understood."""
    first, second = two_edges
    one = await create(first, author)
    mine = of(author, one)
    await mine.write(STARTED, APPROVE)
    asking = await get(second, author, f"responses/{one['id']}")
    assert (asking["status"], asking["output"][-1]["type"]) == ("completed", "mcp_approval_request")
    two = await create(second, author, [approval(asking)], previous_response_id=one["id"])
    assert (two["id"], two["status"]) == (str(ResponseId(mine.execution_id, 3)), "in_progress")
    again = await create(first, author, [approval(asking, approve=False)])
    assert again["id"] == two["id"]
    await mine.write(CHOOSE)
    asking = await get(first, author, f"responses/{two['id']}")
    history = [{"role": "user", "content": "hi"}, asking["output"][-1], output(asking, " Y. ")]
    three = await create(second, author, history)
    assert three["previous_response_id"] == two["id"]
    given = await get(first, author, f"responses/{three['id']}/input_items")
    assert given["data"][0] | {"id": ""} == {**output(asking, "y"), "status": "completed", "id": ""}
    await mine.write(DONE)
    assert text_of(await get(second, author, f"responses/{three['id']}")) == "fine"
    late = await create(first, author, [output(asking, "x")])
    assert late["id"] == three["id"]


async def test_what_a_person_says_is_an_answer(two_edges: list[EdgeProcess], author: Author) -> None:
    """A message to an agent that waits is its answer, for clients that know no calls; one that declines says so."""
    one = await create(two_edges[0], author)
    mine = of(author, one)
    await mine.write(STARTED, APPROVE)
    two = await create(two_edges[1], author, "Yes!", previous_response_id=one["id"])
    assert two["id"] == str(ResponseId(mine.execution_id, 3))
    await mine.write(FORM)
    odd = await create(two_edges[0], author, "me", previous_response_id=two["id"], status=400)
    assert (odd["type"], odd["param"]) == ("invalid_request", "input")
    asking = await get(two_edges[1], author, f"responses/{two['id']}")
    refused = await create(two_edges[0], author, [output(asking, '{"age":3}')], status=400)
    assert (refused["type"], refused["param"]) == ("invalid_request", "input[0]")
    await create(two_edges[0], author, [output(asking, '{"declined":true}')])
    assert [(each.get("value"), each.get("declined")) for each in await answers(mine)] == [(True, None), (None, True)]


async def test_several_answers_at_once(two_edges: list[EdgeProcess], author: Author) -> None:
    """To questions of one agent: what follows is after the newest. Not to those of several, nor beside a message."""
    one, other = await create(two_edges[0], author), await create(two_edges[0], author)
    mine = of(author, one)
    await mine.write(STARTED, APPROVE, CHOOSE)
    first = await get(two_edges[0], author, f"responses/{one['id']}")
    second = await get(two_edges[0], author, f"responses/{ResponseId(mine.execution_id, 3)}")
    both = [approval(first), output(second, "x"), output(second, "y")]
    assert (await create(two_edges[1], author, both))["id"] == str(ResponseId(mine.execution_id, 4))
    assert [each["value"] for each in await answers(mine)] == [True, "x"]
    message = {"role": "user", "content": "and"}
    refused = await create(two_edges[1], author, [message, approval(first)], status=400)
    assert refused["param"] == "input[0]"
    foreign = {**approval(first), "approval_request_id": str(QuestionId(of(author, other).execution_id, 3, "i"))}
    assert (await create(two_edges[1], author, [approval(first), foreign], status=400))["param"] == "input[1]"


async def test_a_question_that_a_retry_has_asked_again(two_edges: list[EdgeProcess], author: Author) -> None:
    """The answer to the lost attempt's question is the answer: nobody is asked twice. An id that someone made up does
    not say where the response begins."""
    one = await create(two_edges[0], author)
    mine = of(author, one)
    await mine.write(STARTED, APPROVE)
    asking = await get(two_edges[0], author, f"responses/{one['id']}")
    again = ExecutionStarted(task="hi", started_at=1, attempt=2)
    await mine.write(ExecutionSuperseded(from_seq=3, attempt=2), again, APPROVE)
    two = await create(two_edges[1], author, [approval(asking)], previous_response_id=one["id"])
    assert (two["id"], two["status"]) == (str(ResponseId(mine.execution_id, 6)), "in_progress")
    for seq in (1, 99):
        odd = {**approval(asking), "approval_request_id": str(QuestionId(mine.execution_id, seq, "i"))}
        assert (await create(two_edges[0], author, [odd]))["id"] == two["id"]
    assert [each["value"] for each in await answers(mine)] == [True]


async def test_an_answer_that_is_no_text(two_edges: list[EdgeProcess], author: Author) -> None:
    """A file in it would be lost: it is refused, and the question stays open."""
    one = await create(two_edges[0], author)
    mine = of(author, one)
    await mine.write(STARTED, InputRequired(input_id="t", prompt="Say", kind="text"))
    asking = await get(two_edges[0], author, f"responses/{one['id']}")
    image = {"type": "input_image", "image_url": "https://example.com/a.png"}
    for odd in ([image], [{"type": "input_text", "text": "x"}, image], 3, None):
        refused = await create(two_edges[0], author, [{**output(asking, ""), "output": odd}], status=400)
        assert (refused["code"], refused["param"]) == ("invalid", "input[0].output")
    said_ = [{"role": "user", "content": [image]}]
    refused = await create(two_edges[1], author, said_, previous_response_id=one["id"], status=400)
    assert (refused["code"], refused["param"]) == ("invalid", "input")
    assert await answers(mine) == []
    text = [{"type": "input_text", "text": "x"}]
    await create(two_edges[1], author, [{**output(asking, ""), "output": text}])
    assert [each["value"] for each in await answers(mine)] == ["x"]


async def test_a_message_to_an_agent_at_work(two_edges: list[EdgeProcess], author: Author) -> None:
    """One that takes messages has it, and what follows it is the response; another one refuses."""
    one = await create(two_edges[0], author)
    mine = of(author, one)
    await mine.write(STARTED, said("a"))
    refused = await create(two_edges[0], author, "psst", previous_response_id=one["id"], status=400)
    assert refused["code"] == "response_in_progress"
    await author.redis.hset(mine.keys.record, "accepts", "1")
    more = {"model": "other", "previous_response_id": one["id"], "status": 400}
    assert (await create(two_edges[0], author, "psst", **more))["code"] == "response_in_progress"
    two = await create(two_edges[1], author, "psst", previous_response_id=one["id"])
    assert two["id"] == str(ResponseId(mine.execution_id, 4))
    await mine.write(said("b"), DONE)
    assert text_of(await get(two_edges[0], author, f"responses/{two['id']}")) == "b"
    assert text_of(await get(two_edges[0], author, f"responses/{one['id']}")) == "ab"
    items = await get(two_edges[0], author, f"responses/{two['id']}/input_items")
    assert items["data"][0]["content"][0]["text"] == "psst"


async def test_an_agent_at_work_keeps_what_it_began_with(two_edges: list[EdgeProcess], author: Author) -> None:
    """Clients repeat instructions and the like in every request: with an answer or a message they change nothing, and
    the response has those that count."""
    told = {"instructions": "Be kind.", "metadata": {"k": "v"}, "params": {"p": 1}}
    one = await create(two_edges[0], author, **told)
    mine = of(author, one)
    await mine.write(STARTED, APPROVE)
    began = await params_of(mine)
    asking = await get(two_edges[0], author, f"responses/{one['id']}")
    other = {"instructions": "Be brief.", "metadata": {"k": "w"}, "params": {"p": 2}, "tools": []}
    two = await create(two_edges[1], author, [approval(asking)], **other)
    await author.redis.hset(mine.keys.record, "accepts", "1")
    three = await create(two_edges[0], author, "psst", previous_response_id=two["id"], **other)
    assert [(each["instructions"], each["metadata"]) for each in (two, three)] == [("Be kind.", {"k": "v"})] * 2
    assert await params_of(mine) == began


# --- the end ---------------------------------------------------------------------------------------------------------


async def test_cancel_and_delete(two_edges: list[EdgeProcess], author: Author) -> None:
    """What runs is cancelled, what is over stays; what is over can be deleted, and is then unknown to every door."""
    made = await create(two_edges[0], author)
    path = f"responses/{made['id']}"
    running = await get(two_edges[1], author, path, method="DELETE", status=409)
    assert running["code"] == "execution_running"
    cancelled = await get(two_edges[1], author, path + "/cancel", method="POST")
    assert (cancelled["status"], cancelled["incomplete_details"]) == ("cancelled", {"reason": "cancelled"})
    assert await get(two_edges[0], author, path + "/cancel", method="POST") == cancelled
    assert await get(two_edges[0], author, path, method="DELETE") == {
        "id": made["id"], "object": "response", "deleted": True,
    }  # fmt: skip
    for method in ("GET", "DELETE"):
        assert (await get(two_edges[1], author, path, method=method, status=404))["code"] == "response_not_found"
    listed = await call(two_edges[1].port, "GET", "/api/agent/executions", author.token)
    assert listed.body["executions"] == []
    assert [
        key async for key in author.redis.scan_iter(f"{author.owner.prefix}*{of(author, made).execution_id}*")
    ] == []
    other = await create(two_edges[0], author)
    await of(author, other).write(STARTED, DONE)
    over = await get(two_edges[0], author, f"responses/{other['id']}/cancel", method="POST")
    assert over["status"] == "completed"


async def test_a_cancel_needs_no_room(two_edges: list[EdgeProcess], redis_url: str, author: Author) -> None:
    """A user whose streams are all open can cancel what they show."""
    made = await create(two_edges[0], author)
    with edge(redis_url, max_connections_per_user=1) as small:
        async with streaming(two_edges[0], author, made["id"]):
            async with asyncio.timeout(15):
                # What other edges know of it: the count, and that the edge which has it is alive.
                while not await author.redis.hlen(author.owner.connections) or await author.redis.zcard(EDGES) < 3:
                    await asyncio.sleep(0.02)
            refused = await get(small, author, f"responses/{made['id']}?stream=true", status=429)
            assert refused["code"] == "too_many_connections"
            cancelled = await get(small, author, f"responses/{made['id']}/cancel", method="POST")
    assert cancelled["status"] == "cancelled"


async def test_models(two_edges: list[EdgeProcess], author: Author) -> None:
    """The agents of live workers."""
    info = AgentInfo(name="solo")
    worker = WorkerInfo(id="w-models", host="h", pid=1, concurrency=1, running=0, agents=(info,))
    await announcements.announce(author.redis, worker)
    async with asyncio.timeout(10):
        while not (found := await get(two_edges[0], author, "models"))["data"]:
            await asyncio.sleep(0.1)
    one = {"id": "solo", "object": "model", "created": 0, "owned_by": "runcast"}
    assert found == {"object": "list", "data": [one]}
    assert await get(two_edges[0], author, "models/solo") == one
    assert (await get(two_edges[0], author, "models/a/b", status=404))["code"] == "model_not_found"


# --- what is refused -------------------------------------------------------------------------------------------------

CONTENT = {"type": "input_image", "image_url": 3}
BAD: dict[str, tuple[Any, int, str, str | None]] = {
    "no JSON": (b'{"model":', 400, "malformed", None),
    "no object": (b"[]", 400, "invalid", None),
    "no text": (b"\xff", 400, "malformed", None),
    "an unknown agent": ({"model": "nope", "input": "x"}, 404, "model_not_found", "model"),
    "no model": ({"model": "", "input": "x"}, 400, "invalid", "model"),
    "no input": ({"model": AGENT}, 400, "invalid", "input"),
    "an answer at the end": ({"input": [{"role": "assistant", "content": "x"}]}, 400, "invalid", "input"),
    "a number": ({"input": 3}, 400, "invalid", "input"),
    "odd content": ({"input": [{"content": [{"text": 3}, 4]}]}, 400, "invalid", "input[0].content"),
    "a bad file": ({"input": [{"content": [CONTENT]}]}, 400, "invalid", "input[0].content[0].image_url"),
    "a sound": ({"input": [{"content": [{"type": "input_audio"}]}]}, 400, "invalid", "input[0].content[0].type"),
    "a forged call": (
        {"input": [{"type": "function_call_output", "call_id": "call_1", "output": "x"}]}, 400, "invalid",
        "input[0].call_id",
    ),
    "no previous": ({"input": "x", "previous_response_id": "resp_no_0"}, 400, "previous_response_not_found",
                    "previous_response_id"),
    "an odd previous": ({"input": "x", "previous_response_id": "../x"}, 400, "previous_response_not_found",
                        "previous_response_id"),
    "a conversation": ({"input": "x", "conversation": "c"}, 400, "invalid", "conversation"),
    "our own metadata": ({"input": "x", "metadata": {"responses": "x"}}, 400, "invalid", "metadata"),
    "metadata that is no text": ({"input": "x", "metadata": {"a": 1}}, 400, "invalid", "metadata[...]"),
    "long instructions": ({"input": "x", "instructions": "x" * 200_000}, 400, "invalid", "tools"),
    "many tools": ({"input": "x", "tools": [{}] * 129}, 400, "invalid", "tools"),
    "huge input": ({"input": "x" * 9_000_000}, 413, "request_entity_too_large", None),
    "a long task": ({"input": "x" * 70_000}, 400, "invalid", "task"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
async def test_a_request_that_does_not_fit(case: str, two_edges: list[EdgeProcess], author: Author) -> None:
    """In OpenAI's form, with the place; nothing was started."""
    body, status, code, param = BAD[case]
    body = body if isinstance(body, bytes) else {"model": AGENT, **body}
    refused(await call(two_edges[0].port, "POST", "/v1/responses", author.token, body), status, code, param)
    assert await author.redis.zcard(author.owner.index) == 0


def refused(answer: Answer, status: int, code: str, param: str | None = None) -> None:
    error = answer.body["error"]
    assert (answer.status, error["code"], error["param"]) == (status, code, param), error
    types = {404: "not_found", 429: "too_many_requests"}
    assert error["type"] == types.get(status, "invalid_request" if status < 500 else "server_error")
    assert error["message"]
    assert answer.headers["content-type"].startswith("application/json")


async def test_everything_below_v1_is_refused_in_one_form(two_edges: list[EdgeProcess], author: Author) -> None:
    """Who calls, what is not there, and what the router says; elsewhere errors stay as they are."""
    port, made = two_edges[0].port, await create(two_edges[0], author)
    one, token = f"/v1/responses/{made['id']}", author.token
    reader = token_for(author.user, scopes={"executions:read"})
    stranger = token_for("stranger")
    mine = of(author, made).execution_id
    for method, path, by, status, code in (
        ("GET", one, None, 401, "unauthorized"),
        ("GET", one, "nope", 401, "unauthorized"),
        ("POST", "/v1/responses", reader, 403, "forbidden"),
        ("POST", one + "/cancel", reader, 403, "forbidden"),
        ("GET", one, stranger, 404, "response_not_found"),
        ("GET", one + "?stream=true", stranger, 404, "response_not_found"),
        ("GET", one + "/input_items", stranger, 404, "response_not_found"),
        ("POST", one + "/cancel", stranger, 404, "response_not_found"),
        ("DELETE", one, stranger, 404, "response_not_found"),
        ("GET", f"/v1/responses/{ResponseId(mine, 99)}", token, 404, "response_not_found"),
        ("GET", f"/v1/responses/{mine}", token, 404, "response_not_found"),
        ("GET", "/v1/responses/resp_%00_0", token, 404, "response_not_found"),
        ("GET", "/v1/nothing", token, 404, "not_found"),
        ("PUT", "/v1/responses", token, 405, "method_not_allowed"),
        ("GET", one + "?stream=perhaps", token, 400, "invalid_parameter"),
        ("GET", one + "?stream=true&starting_after=-1", token, 400, "invalid_parameter"),
        ("GET", one + "?stream=true&starting_after=x", token, 400, "invalid_parameter"),
        ("GET", one + "/input_items?limit=0", token, 400, "invalid_parameter"),
        ("GET", one + "/input_items?order=up", token, 400, "invalid_parameter"),
        ("GET", one + "/input_items?after=x", token, 400, "invalid_parameter"),
    ):
        answer = await call(port, method, path, by, {} if method == "POST" else None)
        param = answer.body["error"]["param"]
        assert (param is not None) == (status == 400)
        refused(answer, status, code, param)
    coding = {"Content-Encoding": "x"}
    refused(await call(port, "POST", "/v1/responses", token, {}, headers=coding), 415, "unsupported_coding")
    assert (await call(port, "GET", "/v2/nothing", token)).headers["content-type"] == "application/problem+json"
    for by, previous in ((stranger, made["id"]), (token, str(ResponseId(mine, 99)))):
        theirs = {"model": AGENT, "input": "x", "previous_response_id": previous}
        answer = await call(port, "POST", "/v1/responses", by, theirs)
        refused(answer, 400, "previous_response_not_found", "previous_response_id")


def test_when_to_come_again() -> None:
    """A limit is 429 with `Retry-After`, an outage 503: clients wait by themselves."""
    for status, type_ in ((429, "too_many_requests"), (503, "server_error")):
        answer = error_response(Problem(status, "busy", headers=retry_after(3)), "r")
        assert (answer.status, answer.headers["Retry-After"]) == (status, "3")
        assert json.loads(answer.body)["error"]["type"] == type_  # type: ignore[arg-type]


async def test_answers_to_what_was_not_asked(two_edges: list[EdgeProcess], author: Author) -> None:
    """Of others, of another response, or of nobody: nothing is answered."""
    one, other = await create(two_edges[0], author), await create(two_edges[0], author)
    mine = of(author, one)
    await mine.write(STARTED, APPROVE)
    asking = await get(two_edges[0], author, f"responses/{one['id']}")
    body = {"model": AGENT, "input": [approval(asking)]}
    port = two_edges[1].port
    refused(await call(port, "POST", "/v1/responses", token_for("stranger"), body), 404, "response_not_found")
    body["previous_response_id"] = other["id"]
    refused(await call(port, "POST", "/v1/responses", author.token, body), 400, "invalid", "input[0]")
    forged = {**approval(asking), "approval_request_id": str(QuestionId(mine.execution_id, 3, "other"))}
    refused(
        await call(port, "POST", "/v1/responses", author.token, {"model": AGENT, "input": [forged]}),
        400, "invalid", "input[0]",
    )  # fmt: skip
    odd = {**approval(asking), "approve": "yes"}
    refused(
        await call(port, "POST", "/v1/responses", author.token, {"model": AGENT, "input": [odd]}),
        400, "invalid", "input[0].approve",
    )  # fmt: skip
    assert await answers(mine) == []
