"""`@runcast/emitter` in Node against an edge: what it publishes, hears and refuses."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from broker.cli.embedded import EmbeddedRedis
from broker.executions.publish import NOT_PUBLISHED
from emitter.events import BY_TYPE, EXPIRED
from tests.edges import EdgeProcess, call, edge, token_for, under_load
from tests.emitter_js.stand import Script, log_of, needs_node, text_of, token

pytestmark = needs_node
ID = "ex_js"


def scene(name: str, of: EdgeProcess, user: str, **given: Any) -> Script:
    given = {"url": f"http://127.0.0.1:{of.port}", "token": token(user), "executionId": ID, **given}
    return Script("agent.mjs", name, **given)


async def post(of: EdgeProcess, user: str, path: str, **body: Any) -> int:
    answer = await call(of.port, "POST", f"/api/agent/executions/{ID}/{path}", token(user), body)
    return answer.status


async def state_of(of: EdgeProcess, user: str) -> Any:
    return (await call(of.port, "GET", f"/api/agent/executions/{ID}", token(user))).body


async def until_state(of: EdgeProcess, user: str, status: str) -> Any:
    async with asyncio.timeout(15):
        while (state := await state_of(of, user)).get("status") != status:
            await asyncio.sleep(0.05)
    return state


async def test_every_event(js_edge: EdgeProcess, user: str) -> None:
    """Each method of the catalogue appends its event, in order, with who speaks."""
    async with scene("everything", js_edge, user) as script:
        said = await script.end()
    assert said[0] == {"result": {"found": 2}}
    assert said[1] == {"failed": "RangeError"}
    assert said[2]["after"]["kind"] == "ExecutionEnded"
    events = await log_of(js_edge, user, ID)
    types = [event["type"] for event in events]
    by_type = {event["type"]: event for event in events}
    others = {*NOT_PUBLISHED, "input:required", "execution:error", "execution:cancelled"}
    assert set(BY_TYPE) - others | {"custom:my.own"} == set(types)
    assert types[0] == "execution:started"
    assert types[-1] == "execution:complete"
    assert by_type["plan:created"]["data"]["plan"]["phases"] == [{"id": "a", "name": "A"}, {"id": "b", "name": "B"}]
    assert by_type["tool:error"]["data"]["error"] == "RangeError: no"
    assert text_of(events) == "Hello, world"
    assert (by_type["status"]["agent"], by_type["status"]["parentId"]) == ("helper", "c1_1")
    assert by_type["thinking"]["agent"] == "writer"
    assert by_type["progress"]["data"]["progress"] == 100
    totals = [event["data"]["totalTokens"] for event in events if event["type"] == "usage"]
    assert totals == [3, 15, 22]
    assert by_type["execution:complete"]["data"]["result"] == {"ok": True}


async def test_what_only_shows_is_mended(js_edge: EdgeProcess, user: str) -> None:
    """Values that JSON or the catalogue cannot hold are brought into a form, with a mark; only what changes the meaning
    is refused."""
    async with scene("hurt", js_edge, user) as script:
        said = {name: value for line in await script.end() for name, value in line.items()}
    assert said["sync"]["kind"] == "InvalidEvent"
    assert said["strict"]["kind"] == "InvalidEvent"
    assert said["question"]["kind"] == "PayloadTooLarge"
    events = await log_of(js_edge, user, ID)
    by_type = {event["type"]: event["data"] for event in events}
    params = by_type["tool:start"]["params"]
    assert by_type["tool:start"]["callId"] == "7"
    assert params["cycle"] == {"name": "c", "self": {"clipped": True, "reason": "cycle"}}
    assert params["hostile"] == {"boom": "<getter>"}
    assert "too deep" in str(params["deep"])
    assert (params["big"], params["small"], params["nan"]) == ("1" + "0" * 30, 5, None)
    assert (params["date"], params["map"], params["set"]) == ("1970-01-01T00:00:00.000Z", {"a": 1}, [1])
    assert (params["bytes"], params["url"], params["error"]) == ("<3 bytes>", "http://x.test/a", "TypeError: t")
    assert (params["half"], params["__proto__"]) == ("a\ufffd", 1)
    assert not {"fn", "nothing"} & params.keys()
    assert "[clipped: 200000 characters]" in by_type["thinking"]["thought"]
    assert by_type["tool:complete"]["result"]["rows"][-1] == {"clipped": True, "items": 50_000} or "clipped" in str(
        by_type["tool:complete"]["result"]
    )
    assert by_type["tool:complete"]["duration"] == 1.5
    assert [event["data"]["progress"] for event in events if event["type"] == "progress"] == [100, 0]
    assert by_type["usage"] == {"inputTokens": 12, "outputTokens": 0, "totalTokens": 12}
    assert by_type["artifact"]["data"] == {"clipped": True, "bytes": 100_022}
    assert text_of(events, "long") == "ä" * 40_000
    assert text_of(events, "e") == "\U0001f600!end\ufffd"
    assert events[-1]["type"] == "execution:complete"


async def test_an_edge_with_a_smaller_limit(user: str) -> None:
    """What the edge finds too large is cut once more, and nothing is lost; later events are cut at once."""
    with EmbeddedRedis() as redis, edge(redis.url, max_event_bytes=4096) as small:
        async with scene("hurt", small, user) as script:
            await script.end()
        events = await log_of(small, user, ID)
    by_type = {event["type"]: event["data"] for event in events}
    assert "[clipped: 200000 characters]" in by_type["thinking"]["thought"]
    assert text_of(events, "long") == "ä" * 40_000
    assert events[-1]["type"] == "execution:complete"


# --- cancels and ends ------------------------------------------------------------------------------------------------


async def test_a_cancel_reaches_the_agent(js_edge: EdgeProcess, user: str) -> None:
    """`signal` is aborted long before the next renewal, with who cancelled and why; later calls say that it has
    ended."""
    async with scene("cancelled", js_edge, user, options={"renewSeconds": 50}) as script:
        await script.until("started")
        assert await post(js_edge, user, "cancel", reason="enough") == 202
        reason = await script.until("reason")
        said = {name: value for line in await script.end() for name, value in line.items()}
    assert (reason["name"], reason["kind"], reason["reason"]) == ("AbortError", "Cancelled", "enough")
    assert reason["by"]
    assert (said["thinking"]["kind"], said["thinking"]["state"]) == ("ExecutionEnded", "cancelled")
    assert said["complete"]["kind"] == "ExecutionEnded"
    assert said["cancelled"] is None
    assert said["close"] is None
    assert [event["type"] for event in await log_of(js_edge, user, ID)] == ["execution:started", "execution:cancelled"]


@pytest.mark.parametrize("without", [(), ("executions:read",)], ids=["reads", "may-not-read"])
@pytest.mark.parametrize("talks", [True, False])
async def test_a_cancel_that_nobody_waits_for(js_edge: EdgeProcess, user: str, talks: bool, without: Any) -> None:
    """An agent that ignores promises and signal is told by its next event or renewal, and its process lives on."""
    async with scene("careless", js_edge, user, talk=talks, token=token(user, *without)) as script:
        await script.until("started")
        await until_state(js_edge, user, "running")
        assert await post(js_edge, user, "cancel") == 202
        errors = await script.until("errors")
        assert await script.until("aborted") is True
        await script.end()
    assert [(error["kind"], error["state"]) for error in errors] == [("ExecutionEnded", "cancelled")]


@pytest.mark.parametrize(
    ("given", "kind"), [({}, "completed"), ({"fails": True}, "failed"), ({"waits": True}, "cancelled")]
)
async def test_run(js_edge: EdgeProcess, user: str, given: dict[str, Any], kind: str) -> None:
    """`run` ends the execution as its function ends; the process then ends by itself."""
    async with scene("run", js_edge, user, **given) as script:
        await script.until("started")
        if kind == "cancelled":
            await until_state(js_edge, user, "running")
            assert await post(js_edge, user, "cancel") == 202
        said = await script.end()
    state = await until_state(js_edge, user, kind)
    if kind == "completed":
        assert (state["result"], said[-1]["end"]) == ("fine", None)
    if kind == "failed":
        assert state["error"]["error"] == "TypeError: it broke"


async def test_a_cancel_of_its_own(js_edge: EdgeProcess, user: str) -> None:
    """An agent may cancel its execution; without the scope for that the end says so as an error."""
    async with scene("cancels", js_edge, user) as script:
        assert (await script.end())[-1] == {"end": None}
    assert (await log_of(js_edge, user, ID))[-1]["data"]["reason"] == "enough"
    other = user + "-other"
    async with scene("cancels", js_edge, other, token=token(other, "executions:write")) as script:
        assert (await script.end())[-1] == {"end": None}
    last = (await log_of(js_edge, other, ID))[-1]
    assert (last["type"], last["data"]) == ("execution:error", {"error": "enough", "code": "cancelled"})


# --- the lease -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lease_edge() -> Iterator[EdgeProcess]:
    """An edge with leases of 5 s."""
    with EmbeddedRedis() as redis, edge(redis.url, unheld_lease_seconds=5) as started:
        yield started


async def test_a_silent_run_is_alive(lease_edge: EdgeProcess, user: str) -> None:
    """A run that says nothing for longer than its lease goes on."""
    async with scene("silent", lease_edge, user, seconds=8, options={"renewSeconds": 0.5}) as script:
        await script.end()
    types = [event["type"] for event in await log_of(lease_edge, user, ID)]
    assert types == ["execution:started", "execution:complete"]


async def test_a_run_without_its_process_is_missed(lease_edge: EdgeProcess, user: str) -> None:
    """A process that has nothing more to do is not kept alive by its emitter, and its execution is ended as lost."""
    async with scene("silent", lease_edge, user, options={"renewSeconds": 0.5}) as script:
        await script.end()
    state = await until_state(lease_edge, user, "failed")
    assert state["error"]["code"] == "producer_lost"


async def test_a_process_ends_with_its_execution(js_edge: EdgeProcess, user: str) -> None:
    """After the end nothing keeps the process alive, also if the emitter is not closed and its stream was open."""
    async with scene("signalled", js_edge, user) as script:
        assert await script.end() == [{"done": True}]


@pytest.mark.parametrize("own", [False, True], ids=["alone", "with-a-listener"])
async def test_the_last_word_after_a_signal(js_edge: EdgeProcess, user: str, own: bool) -> None:
    """`endOnExit` ends the execution as cancelled; the process ends by the signal, or as its own listener decides."""
    async with scene("exit", js_edge, user, waits=True, own=own) as script:
        await script.until("started")
        await until_state(js_edge, user, "running")
        script.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(under_load(10)):
            code = await script.process.wait()
    assert code == (3 if own else -signal.SIGTERM)
    last = (await log_of(js_edge, user, ID))[-1]
    assert (last["type"], last["data"]["reason"]) == ("execution:cancelled", "the agent's process was ended by SIGTERM")


async def test_the_last_word_of_a_process_that_is_done(js_edge: EdgeProcess, user: str) -> None:
    """A process that ends before its execution says so."""
    async with scene("exit", js_edge, user) as script:
        await script.end()
    last = (await log_of(js_edge, user, ID))[-1]
    assert (last["type"], last["data"]["code"]) == ("execution:error", "process_ended")


# --- questions -------------------------------------------------------------------------------------------------------


async def until_asked(of: EdgeProcess, user: str, count: int = 1) -> str:
    """The id of the last question, once so many were asked."""
    async with asyncio.timeout(15):
        while True:
            answer = await call(of.port, "GET", f"/api/agent/executions/{ID}/events", token(user))
            events = answer.body.get("events", [])
            events = [each.get("event", each) for each in events]
            asked = [event["data"]["inputId"] for event in events if event["type"] == "input:required"]
            if len(asked) >= count:
                return asked[-1]
            await asyncio.sleep(0.05)


async def test_answers(js_edge: EdgeProcess, user: str) -> None:
    """`ask` returns what the person said, of each kind; a question that expires raises."""
    form = {"type": "object", "properties": {"n": {"type": "number"}}, "required": ["n"]}
    questions: list[Any] = [
        {"prompt": "yes?"},
        {"prompt": "which?", "kind": "choice", "options": ["a", "b"]},
        {"prompt": "form?", "kind": "form", "schema": form},
        {"prompt": "late?", "expiresIn": 4},
        {"prompt": "none?", "kind": "choice"},
    ]
    async with scene("ask", js_edge, user, questions=questions) as script:
        for number, value in enumerate((True, "b", {"n": 1}), 1):
            input_id = await until_asked(js_edge, user, number)
            assert await post(js_edge, user, "input", inputId=input_id, value=value) == 202
            assert await script.until(questions[number - 1]["prompt"]) == {"value": value}
        assert (await script.until("late?"))["error"]["kind"] == "InputExpired"
        assert (await script.until("none?"))["error"]["kind"] == "InvalidEvent"
        await script.end()
    events = await log_of(js_edge, user, ID)
    received = [event["data"]["by"] for event in events if event["type"] == "input:received"]
    assert len(received) == 4
    assert received[-1] == EXPIRED
    assert events[-1]["type"] == "execution:complete"


async def test_a_process_that_is_started_again_finds_its_answer(js_edge: EdgeProcess, user: str) -> None:
    """The same question has the same id: an answer that came is not asked for twice."""
    questions = [{"prompt": "yes?", "kind": "text"}]
    async with scene("ask", js_edge, user, questions=questions, leave=True) as script:
        input_id = await until_asked(js_edge, user)
        assert await post(js_edge, user, "input", inputId=input_id, value="so") == 202
        await script.end()
    async with scene("ask", js_edge, user, questions=questions) as script:
        assert await script.until("yes?") == {"value": "so"}
        await script.end()
    types = [event["type"] for event in await log_of(js_edge, user, ID)]
    assert types.count("input:required") == types.count("input:received") == 1


async def test_an_answer_while_the_edge_was_away(js_edge: EdgeProcess, user: str) -> None:
    """The stream of answers resumes after an edge died, and misses nothing."""
    async with scene("ask", js_edge, user, questions=[{"prompt": "yes?"}]) as script:
        input_id = await until_asked(js_edge, user)
        js_edge.kill()
        await asyncio.sleep(0.3)
        js_edge.start().wait_ready()
        assert await post(js_edge, user, "input", inputId=input_id, value=True) == 202
        assert await script.until("yes?") == {"value": True}
        await script.end()


async def test_a_question_ends_with_its_execution(js_edge: EdgeProcess, user: str) -> None:
    """A cancel ends the wait for an answer."""
    async with scene("ask", js_edge, user, questions=[{"prompt": "yes?"}]) as script:
        await until_asked(js_edge, user)
        assert await post(js_edge, user, "cancel", reason="no more") == 202
        error = (await script.until("yes?"))["error"]
        assert (error["kind"], error["name"]) == ("Cancelled", "AbortError")
        await script.end()


async def test_a_question_needs_a_scope(js_edge: EdgeProcess, user: str) -> None:
    """Without `executions:read` answers cannot be read: the question is refused, and not opened."""
    given = {"questions": [{"prompt": "yes?"}], "token": token(user, "executions:read")}
    async with scene("ask", js_edge, user, **given) as script:
        assert (await script.until("yes?"))["error"]["kind"] == "Forbidden"
        await script.end()
    assert [event["type"] for event in await log_of(js_edge, user, ID)] == ["execution:started", "execution:complete"]


# --- messages -------------------------------------------------------------------------------------------------------


async def test_messages(js_edge: EdgeProcess, user: str) -> None:
    """The agent hears what people say, in order, each message once, also over an edge that was away; the end of the
    execution ends the wait."""
    async with scene("listens", js_edge, user) as script:
        await script.until("listening")
        async with asyncio.timeout(15):
            while await post(js_edge, user, "messages", text="first", data={"n": 1}) != 202:
                await asyncio.sleep(0.1)  # from its first take on it accepts messages
        assert await script.until("first") == {"data": {"n": 1}, "by": user, "mode": "queue"}
        js_edge.kill()
        await asyncio.sleep(0.3)
        js_edge.start().wait_ready()
        assert await post(js_edge, user, "messages", text="second") == 202
        assert await post(js_edge, user, "messages", text="stop") == 202
        await script.until("stop")
        assert await post(js_edge, user, "messages", text="later") == 202
        assert await script.until("late") == "later"
        assert await post(js_edge, user, "cancel") == 202
        said = await script.end()
    assert [name for line in said for name in line] == ["listening", "first", "second", "stop", "late", "done"]


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "status"), [("Unauthorized", 401), ("Forbidden", 403), ("ExecutionEnded", 409)], ids=lambda each: str(each)
)
async def test_refusals(js_edge: EdgeProcess, user: str, kind: str, status: int) -> None:
    """A refusal stops the emitter, with an error of its own kind, at that call and at each later one."""
    given: dict[str, Any] = {}
    if kind == "Unauthorized":
        given = {"token": token_for(user, ttl=-3600)}
    elif kind == "Forbidden":
        given = {"token": token(user, "events:publish")}
    else:
        async with scene("run", js_edge, user) as script:
            await script.end()
    async with scene("refusals", js_edge, user, **given) as script:
        found, closed, after = await script.end()
    assert (found["found"]["kind"], found["found"]["status"]) == (kind, status)
    assert found["later"] == after["after"] == found["found"]
    assert closed["closed"] is None


async def test_an_unknown_execution(js_edge: EdgeProcess, user: str) -> None:
    """An execution begins with `execution:started`."""
    async with scene("unknown", js_edge, user) as script:
        (said,) = await script.end()
    assert (said["found"]["kind"], said["found"]["status"]) == ("UnknownExecution", 404)
