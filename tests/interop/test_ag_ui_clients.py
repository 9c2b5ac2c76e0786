"""AG-UI's own client, unmodified, its verifier on, over real sockets: edges, a worker and Redis behind them."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from clients import Stand, needs_node, node, running, stand
from redis.asyncio import Redis

from emitter.events import (
    Event,
    ExecutionComplete,
    ExecutionStarted,
    ExecutionSuperseded,
    InputRequired,
    MessageComplete,
    MessageDelta,
    Phase,
    PhaseStart,
    Plan,
    PlanCreated,
    SpecialistActivated,
    ThinkingDelta,
    ToolComplete,
    ToolStart,
)
from emitter.store.connection import connect
from emitter.wire import ids, keys
from tests.edges import Author, call, edge, eventually, token_for, under_load

pytestmark = needs_node

SCRIPT = "ag_ui_client.mjs"
GOLDEN = Path(__file__).parents[1] / "golden"
TEXT = "Sum: 3 \u2028é \U0001f600."
STARTED = ExecutionStarted(task="t", started_at=1, attempt=1)
DONE = ExecutionComplete(result={"ok": True}, duration=1.0)
Kept = dict[str, Any]


@pytest.fixture(scope="module")
def site() -> Iterator[Stand]:
    with stand() as started:
        yield started


@pytest.fixture
async def redis_of_site(site: Stand) -> AsyncIterator[Redis]:
    client = connect(site.redis_url)
    yield client
    await client.aclose()


class App:
    """An application of one user."""

    def __init__(self, site: Stand) -> None:
        self.site = site
        self.user = site.new_user()
        self.token = token_for(self.user)

    def given(self, **given: Any) -> Kept:
        return {"edges": self.site.urls, "token": self.token, "threadId": "thread-1", **given}

    async def scene(self, name: str, **given: Any) -> Kept:
        return dict(await node(SCRIPT, name, self.given(**given)))

    async def unknown_to_edges(self, agent: str) -> bool:
        ports = [edge.port for edge in self.site.edges]
        body = {"task": "t", "agent": "-"}
        asked = [call(port, "POST", "/api/agent/execute", self.token, body) for port in ports]
        return any(agent not in answer.body["known"] for answer in await asyncio.gather(*asked))

    async def executions(self) -> list[dict[str, Any]]:
        answer = await call(self.site.edges[0].port, "GET", "/api/agent/executions", self.token)
        return list(answer.body["executions"])


@pytest.fixture
def app(site: Stand) -> App:
    return App(site)


def sound(kept: Kept) -> Kept:
    """Of a run that went well, as far as the client can tell."""
    assert (kept["error"], kept["warnings"]) == (None, [])
    return kept


def of_role(kept: Kept, role: str) -> list[dict[str, Any]]:
    return [message for message in kept["messages"] if message["role"] == role]


def text(kept: Kept) -> str:
    return "".join(message.get("content") or "" for message in of_role(kept, "assistant"))


def calls(kept: Kept) -> list[tuple[str, str]]:
    """Names and arguments of the tool calls."""
    found = [tool for message in of_role(kept, "assistant") for tool in message.get("toolCalls", [])]
    return [(tool["function"]["name"], tool["function"]["arguments"]) for tool in found]


def customs(kept: Kept) -> list[str]:
    return [event["name"] for event in kept["events"] if event["type"] == "CUSTOM"]


def last(kept: Kept) -> dict[str, Any]:
    return dict(kept["events"][-1])


async def test_a_whole_run(app: App) -> None:
    """Text, reasoning, calls, plan, state, results and usage arrive as the client understands them, each once."""
    seen = sound(await app.scene("run", agent="teller", runId="run-1", props={"pace": 0}))
    (execution,) = await app.executions()
    assert (execution["executionId"], execution["conversationId"]) == ("run-1", "thread-1")
    assert text(seen) == TEXT
    assert [each["content"] for each in of_role(seen, "reasoning")] == ["Where to begin?", "First things first."]
    assert calls(seen) == [("add", '{"a":1,"b":2}'), ("divide", '{"by":0}')]
    assert [each["content"] for each in of_role(seen, "tool")] == ['{"sum":3}', "by zero"]
    plan, result = of_role(seen, "activity")
    assert [(phase["name"], phase["status"]) for phase in plan["content"]["phases"]] == [
        ("Look", "complete"),
        ("Say", "complete"),
    ]
    assert result["content"] == {"result": {"half": True}}
    assert customs(seen) == ["tool:progress", "artifact", "custom:acme.seen"]
    assert [event["stepName"] for event in seen["events"] if event["type"].startswith("STEP_")] == [
        "Look", "Look", "Say", "Say",
    ]  # fmt: skip
    assert seen["results"] == [{"outcome": "success", "result": {"sum": 3}, "pending": []}]
    assert last(seen)["usage"] == [{"inputTokens": 10, "outputTokens": 5, "totalTokens": 15}]
    state = seen["state"]
    assert state["theirs"] == 1, "the application's own state is left alone"
    native = await call(app.site.edges[1].port, "GET", "/api/agent/executions/run-1", app.token)
    assert {name: native.body[name] for name in state["execution"]} == state["execution"]


async def test_a_person_is_asked(app: App) -> None:
    """A question ends a run as an interrupt; the run that resumes it goes on in the same execution, at another edge."""
    asked, done = (sound(kept) for kept in (await app.scene("resume", agent="asker", answers=[
        {"status": "resolved", "payload": True}
    ]))["runs"])  # fmt: skip
    (question,) = asked["interrupts"]
    assert (question["message"], question["reason"]) == ("Go on?", "approval")
    assert question["responseSchema"] == {"type": "boolean"}
    assert text(asked) == "Before. "
    assert asked["results"] == [{"outcome": "interrupt"}]
    assert text(done) == "Before. After."
    assert (done["interrupts"], done["results"][0]["result"]) == ([], {"approved": True})
    assert last(done)["runId"] != last(asked)["runId"]
    assert len(await app.executions()) == 1


async def test_a_question_that_is_left(app: App) -> None:
    """An approval that the user cancels is refused."""
    _, done = (await app.scene("resume", agent="asker", answers=[{"status": "cancelled"}]))["runs"]
    assert sound(done)["results"][0]["result"] == {"approved": False}


async def test_an_answer_that_does_not_fit(app: App) -> None:
    """An answer that is none fails the run with what is allowed, and another one may follow."""
    answers = [{"status": "resolved", "payload": "maybe"}, {"status": "resolved", "payload": True}]
    _, wrong, right = (await app.scene("resume", agent="asker", answers=answers))["runs"]
    assert wrong["error"]["status"] == 422
    assert "true or false" in wrong["error"]["message"]
    assert sound(right)["results"][0]["result"] == {"approved": True}


async def test_a_failure(app: App) -> None:
    """A failed execution is a run error with its message and code; what was said before stays."""
    seen = await app.scene("run", agent="failer")
    assert last(seen)["type"] == "RUN_ERROR"
    assert (last(seen)["message"], last(seen)["code"]) == ("RuntimeError: as told", "agent_error")
    assert text(seen) == "So far"
    assert seen["state"]["execution"]["status"] == "failed"


async def test_a_cancelled_run(app: App) -> None:
    """Cancelling the execution ends the run as cancelled, neither failed nor finished."""
    async with running(SCRIPT, "run", app.given(agent="sleeper", runId="run-1")) as process:
        async with asyncio.timeout(under_load(20)):
            while not [each for each in await app.executions() if each["state"] == "running"]:
                await asyncio.sleep(0.05)
        path = "/api/agent/executions/run-1/cancel"
        assert (await call(app.site.edges[1].port, "POST", path, app.token, {"reason": "enough"})).status == 202
        async with asyncio.timeout(under_load(20)):
            out, _ = await process.communicate()
    seen = sound(json.loads(out))
    assert seen["results"] == [{"outcome": "cancelled"}]
    assert last(seen)["metadata"] == {"reason": "enough", "by": app.user}


@pytest.mark.parametrize("cut", ["things ", "TOOL_CALL_END", '"Sum', "STEP_FINISHED", "RUN_FINISHED"])
@pytest.mark.parametrize("with_cursor", [True, False])
async def test_a_lost_connection(app: App, cut: str, with_cursor: bool) -> None:
    """A run that is asked for again, by a client that has some of it, continues at another edge: nothing is missing,
    nothing is there twice, nothing was started twice."""
    seen = await app.scene("again", agent="teller", runId="run-1", cut=cut, withCursor=with_cursor)
    assert seen["lost"]["message"] == "terminated"
    assert len(await app.executions()) == 1
    whole, got = sound(await app.scene("attach", path="/ag-ui/run-1")), sound(seen["second"])
    assert (text(got), calls(got)) == (TEXT, calls(whole))
    for role in ("reasoning", "tool"):
        assert of_role(got, role) == of_role(whole, role)
    contents = {message["id"]: message["content"] for message in of_role(whole, "activity")}
    assert {message["id"]: message["content"] for message in of_role(got, "activity")} == contents
    assert got["state"]["execution"] == whole["state"]["execution"]
    assert got["results"][-1]["outcome"] == "success"


async def test_every_event_is_understood(app: App) -> None:
    """The recorded rendering of every event type is taken without an error or a warning, to its end."""
    seen = sound(await app.scene("recorded", body=(GOLDEN / "ag_ui_every_event.txt").read_text()))
    assert text(seen).endswith('\u2028, an emoji \U0001f600 and "quotes".Published.')
    assert last(seen)["result"] == {"url": "https://staging.example.com"}


async def test_a_message_to_the_agent_at_work(app: App) -> None:
    """A run with the id of one that is at work, or of its thread, brings a new message to its agent, once, and shows
    the whole execution to its end."""
    seen = await app.scene("steer", agent="listener", runId="run-1")
    (execution,) = await app.executions()
    path = f"/api/agent/executions/{execution['executionId']}"
    state = (await call(app.site.edges[0].port, "GET", path, app.token)).body
    assert state["result"] == {"heard": ["shorter", "louder", "stop"]}
    ids = [message["messageId"] for message in state["userMessages"]]
    assert ids == ["said-shorter", "said-louder", "said-stop"]
    for kept in (seen["first"], *seen["others"]):
        assert text(sound(kept)) == "Heard shorter. Heard louder. Heard stop. "
        assert kept["results"][0]["result"] == state["result"]
    last_ = seen["others"][-1]
    assert [message["id"] for message in of_role(last_, "user")] == ["u1", "said-stop"]
    assert last(last_)["runId"] == "run-stop"


async def test_a_message_to_an_agent_that_takes_none(app: App) -> None:
    """By the run's id it is refused; in its thread it starts a run of its own."""
    body = {"threadId": "thread-1", "runId": "run-1", "state": {}, "tools": [], "context": [], "forwardedProps": {}}
    said = [{"id": f"u{number}", "role": "user", "content": "t"} for number in (1, 2)]
    async with running(SCRIPT, "run", app.given(agent="sleeper", runId="run-1")):
        async with asyncio.timeout(under_load(20)):
            while not [each for each in await app.executions() if each["state"] == "running"]:
                await asyncio.sleep(0.05)
        port = app.site.edges[0].port
        refused = await call(port, "POST", "/ag-ui/sleeper", app.token, body | {"messages": said})
        assert (refused.status, refused.body["type"].rpartition(":")[2]) == (409, "not-steerable")
        async with running(SCRIPT, "run", app.given(agent="sleeper", runId="run-2", messages=said)):
            async with asyncio.timeout(under_load(20)):
                while len(await app.executions()) < 2:
                    await asyncio.sleep(0.05)


# --- executions that the tests write ---------------------------------------------------------------------------------

BEGUN: list[Event] = [
    STARTED,
    PlanCreated(plan=Plan(goal="g", phases=[Phase(id="p", name="P")])),
    PhaseStart(phase_id="p", phase_name="P"),
    SpecialistActivated(specialist="s"),
    ThinkingDelta(message_id="r", delta="Hm"),
    ToolStart(call_id="c", tool_name="look", params={"at": 1}),
    MessageDelta(message_id="m", delta="One "),
]
REST: list[Event] = [
    ToolComplete(call_id="c", tool_name="look", result={"seen": 1}, duration=0.1),
    MessageDelta(message_id="m", delta="two."),
    MessageComplete(message_id="m", text="One two."),
    DONE,
]


@pytest.fixture
async def manual(app: App, redis_of_site: Redis) -> Author:
    """Writes the execution `run-1`, whose agent no worker runs."""
    await redis_of_site.zadd(keys.AGENTS_KNOWN, {"manual": ids.now_ms()})
    async with asyncio.timeout(10):
        while await app.unknown_to_edges("manual"):
            await asyncio.sleep(0.05)
    return Author(redis_of_site, app.user, "run-1")


async def until_there(app: App) -> None:
    async with asyncio.timeout(under_load(20)):
        while not await app.executions():
            await asyncio.sleep(0.02)


async def printed(process: asyncio.subprocess.Process) -> Kept:
    async with asyncio.timeout(under_load(20)):
        out, error = await process.communicate()
    assert process.returncode == 0, error.decode()
    return dict(json.loads(out.splitlines()[-1]))


async def test_a_retry_takes_over(app: App, manual: Author) -> None:
    """What a lost attempt said disappears from the application when another takes over; what was there before stays."""
    async with running(SCRIPT, "run", app.given(agent="manual", runId="run-1")) as process:
        await until_there(app)
        await manual.write(*BEGUN)
        await eventually("shown", lambda: sum(edge.metric("runcast_connections") for edge in app.site.edges) >= 1)
        await manual.write(ExecutionSuperseded(from_seq=1, attempt=2))
        await manual.write(ExecutionStarted(task="t", started_at=2, attempt=2), *BEGUN[4:], *REST)
        seen = sound(await printed(process))
    assert [message["content"] for message in of_role(seen, "user")] == ["t"]
    assert (text(seen), calls(seen)) == ("One two.", [("look", '{"at":1}')])
    assert [message["content"] for message in of_role(seen, "reasoning")] == ["void: attempt 2 takes over", "Hm"]
    assert all(message["content"] == {} for message in of_role(seen, "activity"))
    assert seen["state"]["execution"]["attempt"] == 2


async def test_attaching_to_a_run_in_progress(app: App, manual: Author) -> None:
    """Who attaches to a running execution at another edge has what was said, and then what is being said."""
    async with running(SCRIPT, "run", app.given(agent="manual", runId="run-1")) as first:
        await until_there(app)
        await manual.write(*BEGUN)
        async with running(SCRIPT, "attach", app.given(path="/ag-ui/run-1", messages=[], state={})) as second:
            await eventually("attached", lambda: app.site.edges[1].metric("runcast_connections") >= 1)
            await manual.write(*REST)
            there, here = sound(await printed(first)), sound(await printed(second))
    assert (text(there), calls(there)) == (text(here), calls(here)) == ("One two.", [("look", '{"at":1}')])
    assert there["messages"][1:] == here["messages"]
    assert there["state"]["execution"] == here["state"]["execution"]


async def test_questions_at_once(app: App, manual: Author) -> None:
    """Of questions that are asked at once the first ends the run, and the next run ends with the others."""
    answers = [{"status": "resolved", "payload": "so"}] * 2
    async with running(SCRIPT, "resume", app.given(agent="manual", runId="run-1", answers=answers)) as process:
        await until_there(app)
        await eventually("shown", lambda: app.site.edges[0].metric("runcast_connections") >= 1)
        await manual.write(*BEGUN, *(InputRequired(input_id=f"i{n}", prompt=f"{n}?", kind="text") for n in (1, 2, 3)))
        async with asyncio.timeout(under_load(20)):
            while [event.type for event in await manual.log()].count("input:received") < 3:
                await asyncio.sleep(0.02)
        await manual.write(*REST)
        runs = [sound(kept) for kept in (await printed(process))["runs"]]
    asked = [[interrupt["metadata"]["inputId"] for interrupt in kept["interrupts"]] for kept in runs]
    assert asked == [["i1"], ["i2", "i3"], []]
    assert (text(runs[-1]), calls(runs[-1])) == ("One two.", [("look", '{"at":1}')])
    assert [message["content"] for message in of_role(runs[-1], "reasoning")] == ["Hm"]


async def test_a_drained_edge(app: App, manual: Author) -> None:
    """An edge that stops cuts a run off, so that nobody takes it for finished; elsewhere it goes on."""
    with edge(app.site.redis_url) as leaving:
        given = app.given(agent="manual", runId="run-1", cut="no such text")
        given["edges"] = [f"http://127.0.0.1:{leaving.port}", app.site.urls[0]]
        async with running(SCRIPT, "again", given) as process:
            await eventually("shown", lambda: leaving.metric("runcast_connections") >= 1)
            await manual.write(*BEGUN)
            ways = ("runcast_events_delivered_total", "runcast_replayed_events_total")  # it may not have been live yet
            await eventually("shown all", lambda: sum(map(leaving.metric, ways)) > len(BEGUN))
            leaving.send_signal(signal.SIGTERM)
            leaving.wait()
            await manual.write(*REST)
            seen = await printed(process)
    assert seen["lost"] is not None
    assert not seen["first"]["results"], "a run that was cut off is not a success"
    again = sound(seen["second"])
    assert (text(again), calls(again)) == ("One two.", [("look", '{"at":1}')])


async def test_files(app: App) -> None:
    """Media parts of a message reach the agent from every source, with those of earlier messages; the client keeps its
    messages as it sent them."""
    png = base64.b64encode(b"\x89PNG\xff").decode()
    link = {"type": "url", "value": "https://files.example.com/a.pdf", "mimeType": "application/pdf"}
    parts = [
        {"type": "text", "text": "look"},
        {"type": "document", "source": link, "metadata": {"filename": "a.pdf"}},
        {"type": "image", "source": {"type": "data", "value": png, "mimeType": "image/png"}},
        {"type": "audio", "source": {"type": "file", "value": "file-1", "provider": "openai"}},
    ]
    sent = [{"id": f"u{number}", "role": "user", "content": parts[number:]} for number in (0, 1)]
    kept = sound(await app.scene("run", agent="keeper", runId="files-1", messages=sent))
    files = [
        {"url": "https://files.example.com/a.pdf", "mediaType": "application/pdf", "name": "a.pdf"},
        {"url": f"data:image/png;base64,{png}", "mediaType": "image/png"},
        {"references": {"openai": "file-1"}},
    ]
    (result,) = [each["result"] for each in kept["results"]]
    assert result["messages"] == [
        {"role": "user", "content": "look", "attachments": files},
        {"role": "user", "content": "", "attachments": files},
    ]
    assert of_role(kept, "user") == sent
