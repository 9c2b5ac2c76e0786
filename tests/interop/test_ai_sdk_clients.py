"""The Vercel AI SDK's own clients, unmodified, over real sockets: edges, a worker and Redis behind them."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from clients import NODE_SECONDS, Stand, needs_node, node, running, stand
from redis.asyncio import Redis

from broker.protocols.ai_sdk.message import MessageBuilder
from broker.protocols.ai_sdk.renderer import VOID, Renderer
from emitter.events import (
    ExecutionComplete,
    ExecutionStarted,
    ExecutionSuperseded,
    MessageDelta,
    PhaseStart,
    ToolComplete,
    ToolStart,
)
from emitter.store.connection import connect
from emitter.wire import ids, keys
from tests.broker.executions.test_state import recorded
from tests.edges import Author, call, edge, request, token_for
from tests.protocols.made_up import EXECUTION, MadeUp

pytestmark = needs_node

SCRIPT = "ai_sdk_client.mjs"
REACT_SCRIPT = "ai_sdk_react.mjs"
VERSIONS = ["ai5", "ai6", "ai7"]
GOLDEN = Path(__file__).parents[1] / "golden"
TEXT = "Sum: 3 \u2028é \U0001f600."


@pytest.fixture(scope="module")
def site() -> Iterator[Stand]:
    with stand() as started:
        yield started


@pytest.fixture
async def redis_of_site(site: Stand) -> AsyncIterator[Redis]:
    client = connect(site.redis_url)
    yield client
    await client.aclose()


class Page:
    """A browser page of one user and one version of the SDK."""

    def __init__(self, site: Stand, sdk: str) -> None:
        self.site = site
        self.sdk = sdk
        self.user = site.new_user()
        self.token = token_for(self.user)

    async def scene(self, name: str, *, chat: str = "chat-1", **given: Any) -> dict[str, Any]:
        given |= {"edges": self.site.urls, "token": self.token, "chatId": chat}
        return dict(await node(SCRIPT, self.sdk, name, {"text": "t", **given}))

    async def executions(self) -> list[dict[str, Any]]:
        answer = await call(self.site.edges[0].port, "GET", "/api/agent/executions", self.token)
        return list(answer.body["executions"])


@pytest.fixture(params=VERSIONS)
def page(request: pytest.FixtureRequest, site: Stand) -> Page:
    return Page(site, request.param)


def parts(message: dict[str, Any], type_: str) -> list[dict[str, Any]]:
    return [part for part in message["parts"] if part["type"] == type_]


def text(message: dict[str, Any]) -> str:
    return "".join(part["text"] for part in parts(message, "text"))


def data(message: dict[str, Any], name: str) -> dict[str, Any]:
    """The data parts of one name, by their ids."""
    return {part["id"]: part["data"] for part in parts(message, "data-" + name)}


async def test_a_whole_turn(page: Page) -> None:
    """Text, reasoning, calls, data and usage arrive as the parts that a page expects, each once and in order."""
    seen = await page.scene("turn", agent="teller")
    assert (seen["status"], seen.get("error")) == ("ready", None)
    asked, answer = seen["messages"]
    (execution,) = await page.executions()
    assert (asked["role"], answer["role"], answer["id"]) == ("user", "assistant", execution["executionId"])
    assert text(answer) == TEXT
    assert [part["text"] for part in parts(answer, "reasoning")] == ["Where to begin?", "First things first."]
    assert all(part["state"] == "done" for part in parts(answer, "reasoning") + parts(answer, "text"))
    added, divided = parts(answer, "dynamic-tool")
    assert (added["toolCallId"], added["state"], added["input"]) == ("c1", "output-available", {"a": 1, "b": 2})
    assert added["output"] == {"sum": 3}
    assert (divided["state"], divided["errorText"]) == ("output-error", "by zero")
    assert [phase["name"] for phase in data(answer, "plan")["plan"]["phases"]] == ["Look", "Say"]
    assert {id_: phase["state"] for id_, phase in data(answer, "phase").items()} == {
        "look": "complete",
        "say": "complete",
    }
    assert data(answer, "progress") == {"progress": {"progress": 100.0}}
    assert [part["result"] for part in data(answer, "partial-result").values()] == [{"half": True}]
    assert [part["name"] for part in data(answer, "custom").values()] == ["acme.seen"]
    assert data(answer, "artifact")["a1"]["text"] == "3\n"
    metadata = answer["metadata"]
    assert metadata["usage"] == {"inputTokens": 10, "outputTokens": 5, "totalTokens": 15}
    assert (metadata["result"], metadata["attempt"]) == ({"sum": 3}, 1)
    assert metadata["tools"]["c2"] == {"duration": 0.1}
    kinds = [part["type"] for part in answer["parts"] if not part["type"].startswith("data-")]
    steps = ["step-start", "reasoning", "reasoning", "dynamic-tool", "dynamic-tool", "step-start", "text"]
    assert kinds == steps, "a phase is a step, and parts stand in the order of what happened"


async def test_every_chunk_is_understood(page: Page) -> None:
    """The recorded rendering of every event type is valid for each version of the SDK, to its end."""
    seen = await page.scene("recorded", body=(GOLDEN / "ai_sdk_every_event.txt").read_text())
    assert (seen["status"], seen.get("error")) == ("ready", None)
    answer = seen["messages"][-1]
    assert text(answer).endswith('\u2028, an emoji \U0001f600 and "quotes".Published.')
    assert answer["metadata"]["result"] == {"url": "https://staging.example.com"}


async def test_a_person_is_asked(page: Page) -> None:
    """A question is a data part; the stream stays open until it is answered, and goes on after that."""
    seen = await page.scene("approval", agent="asker")
    (question,) = data(seen["asked"], "input").values()
    assert (question["state"], question["prompt"], question["kind"]) == ("required", "Go on?", "approval")
    assert (seen["answered"]["status"], seen["status"]) == (202, "ready")
    answer = seen["messages"][-1]
    (answered,) = data(answer, "input").values()
    assert (answered["state"], answered["value"], answered["by"]) == ("received", True, page.user)
    assert [part["text"] for part in parts(answer, "text")] == ["Before. ", "After."]
    assert answer["metadata"]["result"] == {"approved": True}


@pytest.mark.parametrize("page", ["ai6", "ai7"], indirect=True)  # 5 has no approvals
@pytest.mark.parametrize("again", [False, True])
async def test_an_approval_of_the_sdk(page: Page, again: bool) -> None:
    """Where the page says so, an approval is a call of the SDK that waits for one: the stream ends there, the page's
    answer is that to the agent's question, and its stream goes on with the same message."""
    approved = [True, False]
    seen = await page.scene("toolApproval", agent="careful", again=again, approved=approved)
    assert seen["waiting"] == "ready"
    (waiting,) = [part for part in seen["asked"][-1]["parts"] if part.get("state") == "approval-requested"]
    assert (waiting["toolName"], waiting["input"]["prompt"]) == ("approval", "Publish it?")
    assert (seen["status"], seen.get("error")) == ("ready", None)
    assert len(seen["messages"]) == 2
    answer = seen["messages"][-1]
    calls = [(part["toolName"], part["state"]) for part in parts(answer, "dynamic-tool")]
    assert calls == [("publish", "output-available"), ("approval", "output-available"), ("approval", "output-denied")]
    assert parts(answer, "dynamic-tool")[0]["output"] == "published"
    assert text(answer) == "Before. After."
    assert answer["metadata"]["result"] == {"approved": approved}
    assert len(await page.executions()) == 1
    assert [message["id"] for message in seen["valid"]] == [message["id"] for message in seen["messages"]]
    kept = [(part["toolName"], part["state"]) for part in parts(seen["kept"][-1], "dynamic-tool")]
    assert kept == calls


async def test_a_page_is_opened_again_on_another_edge(page: Page) -> None:
    """A page that was left in the middle, and so stopped nothing, has the whole answer after it was opened again."""
    seen = await page.scene("resume", agent="asker")
    assert text(seen["before"][-1]) == "Before. "
    asked, answer = seen["messages"]
    assert (seen["status"], text(answer), asked["role"]) == ("ready", "Before. After.", "user")
    assert len(await page.executions()) == 1


@pytest.mark.parametrize("page", ["ai6", "ai7"], indirect=True)  # 5 keeps what it had, and appends the replay to it
async def test_a_broken_connection_is_resumed(page: Page) -> None:
    """A page whose connection broke replays into the same message: nothing is missing and nothing twice."""
    seen = await page.scene("reconnect", agent="asker")
    assert seen["broken"] == "error"
    assert (seen["status"], [text(message) for message in seen["messages"]]) == ("ready", ["t", "Before. After."])


async def test_nothing_to_resume(page: Page) -> None:
    """A chat in which nothing runs has nothing to resume, whatever its id looks like."""
    for chat in ("chat-1", "a/b ü?"):
        seen = await page.scene("nothing", chat=chat)
        assert (seen["status"], seen["messages"]) == ("ready", [])


async def test_stop_cancels(page: Page) -> None:
    """Stop ends the execution, and the stream with it; no call stays pending. Any id of a chat will do."""
    seen = await page.scene("stop", chat="a/b ü?", agent="sleeper")
    (execution,) = await page.executions()
    assert execution["state"] == "cancelled"
    assert seen["stopped"]["status"] == 202
    assert [each["executionId"] for each in seen["stopped"]["body"]["executions"]] == [execution["executionId"]]
    answer = seen["messages"][-1]
    assert (seen["status"], answer["metadata"]["cancelled"]["reason"]) == ("ready", "enough")
    assert [part["state"] for part in parts(answer, "dynamic-tool")] == ["output-error"]


async def test_an_error_is_an_error(page: Page) -> None:
    """An execution that fails is the chat's error, and what was said until then stays."""
    seen = await page.scene("turn", agent="failer")
    assert seen["status"] == "error"
    assert "as told" in seen["error"]
    assert text(seen["messages"][-1]) == "So far"


async def test_a_refusal_is_an_error(page: Page) -> None:
    """What is refused before a stream begins is the chat's error, with the reason."""
    seen = await page.scene("turn", agent="nobody")
    assert seen["status"] == "error"
    assert "nobody" in seen["error"]
    assert await page.executions() == []


@pytest.mark.parametrize("last_only", [False, True])
async def test_a_conversation(page: Page, last_only: bool) -> None:
    """A second turn is an execution of its own whose agent has what was said before, whether or not the page sends it;
    another answer to the same question is a third."""
    seen = await page.scene("conversation", agent="rememberer", lastOnly=last_only)
    first = "user: one"
    second = f"user: one | assistant: {first} | user: two"
    assert [text(message) for message in seen["twice"]] == ["one", first, "two", second]
    assert text(seen["messages"][-1]) == second
    executions = await page.executions()
    assert len(executions) == 3
    assert {execution["conversationId"] for execution in executions} == {"chat-1"}


@pytest.mark.parametrize("stops", [True, False])
async def test_a_message_to_the_agent_at_work(page: Page, stops: bool) -> None:
    """What a page sends while its agent works reaches the agent, and the answer goes on in a message of its own, in the
    order of the chat; the same request again is no other message, and shows that answer."""
    seen = await page.scene("steer", agent="listener", stops=stops)
    assert (seen["status"], seen.get("error")) == ("ready", None)
    (execution,) = await page.executions()
    path = f"/api/agent/executions/{execution['executionId']}"
    state = (await call(page.site.edges[0].port, "GET", path, page.token)).body
    assert state["result"] == {"heard": ["shorter", "stop"]}
    asked = [message for message in seen["messages"] if message["role"] == "user"]
    assert [message["messageId"] for message in state["userMessages"]] == [message["id"] for message in asked[1:]]
    assert [message["role"] for message in seen["messages"]] == ["user", "assistant"] * 3
    answers = seen["messages"][1::2]
    assert [message["id"] for message in answers] == [
        execution["executionId"], *(f"{execution['executionId']}-{message['id']}" for message in asked[1:])
    ]  # fmt: skip
    assert text(answers[2]) == "Heard stop. "
    assert answers[2]["metadata"]["result"] == state["result"]
    if stops:
        assert [text(message) for message in answers] == ["", "Heard shorter. ", "Heard stop. "]
    assert "Heard stop. " in seen["again"]
    assert "Heard shorter" not in seen["again"]
    chunks, rest = ([line for line in seen[name].split("\n") if line[:5] == "data:"] for name in ("again", "rest"))
    assert rest == chunks[3:], "who counts chunks counts those of this answer"


@pytest.mark.parametrize("page", ["ai6", "ai7"], indirect=True)
async def test_messages_beside_an_approval(page: Page) -> None:
    """Approvals of the SDK and messages to the agent go together: the answer to a message has the approval that is
    asked in it, or is open there, and what follows the page's answer is more of that message."""
    seen = await page.scene("steerAndApprove", agent="negotiator")
    assert (seen["status"], seen.get("error")) == ("ready", None)
    (execution,) = await page.executions()
    id_ = execution["executionId"]
    asked = [message["id"] for message in seen["messages"] if message["role"] == "user"]
    assert [message["id"] for message in seen["messages"][1::2]] == [id_, f"{id_}-{asked[1]}", f"{id_}-{asked[2]}"]
    assert [message["id"] for message in seen["before"]] == [message["id"] for message in seen["messages"][:4]]
    calls = [[part["state"] for part in parts(message, "dynamic-tool")] for message in seen["messages"][1::2]]
    assert calls == [[], ["approval-requested"], ["output-available"]]
    assert [text(message) for message in seen["messages"][1::2]][1:] == ["Heard shorter. ", "Heard faster."]
    assert seen["messages"][-1]["metadata"]["result"] == {"approved": True, "heard": ["shorter", "faster"]}


async def test_a_message_that_is_not_for_the_agent_at_work(page: Page) -> None:
    """With `steer: false` it is a turn of its own, which another execution answers."""
    seen = await page.scene("unsteered", agent="listener")
    assert len(await page.executions()) == 2
    assert [message["role"] for message in seen["messages"]] == ["user", "assistant", "user", "assistant"]


async def test_a_repeated_request_starts_nothing_new(page: Page) -> None:
    """The same message sent again shows the same execution from its beginning."""
    seen = (await page.scene("repeat", agent="teller"))["seen"]
    assert seen[0] == seen[1]
    assert text(seen[0]) == TEXT
    assert len(await page.executions()) == 1


async def test_use_chat_resumes_by_itself(site: Stand) -> None:
    """A React page that is opened again in the middle of an answer has it whole, from another edge, with nothing done
    for it but `resume: true`."""
    user = site.new_user()
    given = {"edges": site.urls, "token": token_for(user), "chatId": "chat-1", "agent": "asker", "text": "t"}
    seen = await node(REACT_SCRIPT, given)
    assert seen["items"] == ["user: t", "assistant: Before. ", "assistant: After."]
    assert (seen["status"], seen["messages"][-1]["metadata"]["result"]) == ("ready", {"approved": True})


# --- executions that the test writes ---------------------------------------------------------------------------------


async def manual(page: Page, redis: Redis) -> Author:
    """Starts an execution that no worker takes, for the test to write; its chat is `chat-1`."""
    await redis.zadd(keys.AGENTS_KNOWN, {"manual": ids.now_ms()})
    message = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "t"}]}
    body = json.dumps({"id": "chat-1", "messages": [message], "agent": "manual"}).encode()
    async with asyncio.timeout(10):
        while await status_of_post(page, body) == 422:  # an edge looks every second which agents there are
            await asyncio.sleep(0.05)
    (execution,) = await page.executions()
    return Author(redis, page.user, execution["executionId"])


async def status_of_post(page: Page, body: bytes) -> int:
    port, headers = page.site.edges[0].port, {"Content-Type": "application/json"}
    async with request(port, "POST", "/api/agent/chat", page.token, headers=headers, body=body) as response:
        return response.status


def attempt(number: int) -> ExecutionStarted:
    return ExecutionStarted(task="t", started_at=1, attempt=number)


LOST = [
    attempt(1),
    PhaseStart(phase_id="look", phase_name="Look"),
    MessageDelta(message_id="m", delta="Lost"),
    ToolStart(call_id="c1", tool_name="add", params={}),
    ToolComplete(call_id="c1", tool_name="add", result=1, duration=0.1),
    ToolStart(call_id="c2", tool_name="add", params={}),
    ExecutionSuperseded(from_seq=1, attempt=2),
]
FOUND = [
    attempt(2),
    ToolStart(call_id="c1", tool_name="add", params={}),
    ToolComplete(call_id="c1", tool_name="add", result=2, duration=0.1),
    MessageDelta(message_id="m", delta="Found"),
    ExecutionComplete(result=None, duration=1.0),
]


@pytest.mark.parametrize("resume", [False, True])
async def test_a_retry_takes_over(page: Page, redis_of_site: Redis, resume: bool) -> None:
    """What a lost attempt had shown is marked as void; a page that resumes after that is not shown it at all."""
    author = await manual(page, redis_of_site)
    if resume:
        await author.write(*LOST)
    given = {"edges": page.site.urls, "token": page.token, "chatId": "chat-1", "agent": "manual", "resume": True}
    async with running(SCRIPT, page.sdk, "watch", given) as process, asyncio.timeout(NODE_SECONDS):
        assert process.stdout is not None
        await process.stdout.readline()
        if not resume:
            await author.write(*LOST)
        await author.write(*FOUND)
        seen = json.loads(await process.stdout.readline())
    answer = seen["messages"][-1]
    calls = [(part["toolCallId"], part["state"]) for part in parts(answer, "dynamic-tool")]
    assert (seen["status"], answer["metadata"]["attempt"]) == ("ready", 2)
    if resume:
        assert ([part["text"] for part in parts(answer, "text")], calls) == (["Found"], [("c1", "output-available")])
        assert parts(answer, "data-phase") == []
        return
    assert calls == [("c1", "output-error"), ("c2", "output-error"), ("c1", "output-available")]
    assert data(answer, "phase") == {"look": {"superseded": True}}
    kinds = [part.get("text", part["type"]) for part in answer["parts"] if part["type"] in ("text", "data-superseded")]
    assert kinds == ["Lost", VOID, "data-superseded", "Found"], "what stands above the mark is void"


async def test_a_drained_edge_is_no_end(site: Stand) -> None:
    """An edge that goes away cuts the stream off: a clean end would pass for the end of the answer."""
    page = Page(site, "ai7")
    with edge(site.redis_url) as leaving:
        given = {"edges": [f"http://127.0.0.1:{leaving.port}"], "token": page.token, "chatId": "c", "agent": "sleeper"}
        async with running(SCRIPT, "ai7", "watch", {"text": "t", **given}) as process, asyncio.timeout(NODE_SECONDS):
            assert process.stdout is not None
            await process.stdout.readline()
            while (await page.executions())[0]["state"] != "running":  # what the page shows first, a queued one has too
                await asyncio.sleep(0.05)
            leaving.send_signal(signal.SIGTERM)
            seen = json.loads(await process.stdout.readline())
    assert seen["status"] == "error"
    (execution,) = await page.executions()
    assert execution["state"] == "running"


PNG = base64.b64encode(b"\x89PNG\xff").decode()
LINKED = {"url": "https://files.example.com/a.pdf", "mediaType": "application/pdf", "name": "a.pdf"}
HELD = {"url": f"data:image/png;base64,{PNG}", "mediaType": "image/png", "name": "a.png"}


async def test_files(page: Page) -> None:
    """Files that a page sends reach the agent, with those of the messages before; a message of files alone as well."""
    files = [{"type": "file", "filename": file["name"], **file} for file in (LINKED, HELD)]
    seen = await page.scene("files", agent="keeper", text="look", files=files)
    assert (seen["status"], seen.get("error")) == ("ready", None)
    asked = {"role": "user", "content": "look", "attachments": [LINKED, HELD]}
    assert seen["first"]["metadata"]["result"] == {"task": "look", "messages": [asked]}
    result = seen["messages"][-1]["metadata"]["result"]
    assert (result["task"], result["messages"][0]) == ("a.pdf, a.png", asked)
    assert result["messages"][-1] == {"role": "user", "content": "", "attachments": [LINKED, HELD]}


async def test_a_chat_is_opened_again(page: Page) -> None:
    """What the edge has of a chat is valid for the SDK, is what the page had, and goes back to the agent."""
    files = [{"type": "file", "filename": LINKED["name"], **LINKED}]
    seen = await page.scene("reopened", chat="a/b ü?", agent="teller", text="Tell", files=files)
    asked, answer = seen["left"]
    assert seen["valid"] == seen["opened"]
    assert [message["role"] for message in seen["opened"]] == ["user", "assistant"]
    assert seen["opened"][0] == {
        "id": asked["id"],
        "role": "user",
        "parts": [
            {"type": "file", "url": LINKED["url"], "mediaType": LINKED["mediaType"], "filename": LINKED["name"]},
            {"type": "text", "text": "Tell"},
        ],
    }
    assert plain(seen["opened"][1]) == plain(answer)
    assert (seen["status"], text(seen["messages"][-1])) == ("ready", f"user: Tell | assistant: {TEXT} | user: and?")


LOGS = {
    **{name: recorded(f"{name}.jsonl") for name in ("every_event", "failed", "cancelled")},
    **{f"made up {seed}": MadeUp(seed).log(60) for seed in range(6)},
}


@pytest.mark.parametrize("name", LOGS)
@pytest.mark.parametrize("attempt", [1, 2])
async def test_a_message_is_made_as_by_the_client(site: Stand, name: str, attempt: int) -> None:
    """Of any log, what the edge makes is what the SDK makes of the stream, but for a part that empty messages lack."""
    renderer, builder = Renderer(EXECUTION, attempt), MessageBuilder(EXECUTION, attempt)
    body = (renderer.open() + renderer.render(LOGS[name])).decode()
    seen = await Page(site, "ai7").scene("recorded", body=body)
    builder.open()
    builder.add(LOGS[name])
    made = json.loads(msgspec.json.encode(builder.message))
    theirs = seen["messages"][-1]
    assert plain(made) == plain({**theirs, "parts": theirs["parts"] or [{"type": "step-start"}]})


def plain(message: dict[str, Any]) -> dict[str, Any]:
    """With numbers as JavaScript has them, and without ids that only one version of the SDK keeps."""
    message = json.loads(json.dumps(message), parse_int=float)
    kept = [{**part, "id": None} if part["type"] == "reasoning" else part for part in message["parts"]]
    return {**message, "parts": kept}


async def test_use_chat_sends_a_file(site: Stand) -> None:
    """A file that somebody chose in a React page reaches the agent; one that is too large is an error on the page."""
    file = {"text": "look", "name": "a.png", "mediaType": "image/png"}
    given = {"edges": site.urls, "token": token_for(site.new_user()), "agent": "keeper", **file}
    seen = await node("ai_sdk_files.mjs", {**given, "chatId": "chat-1", "bytes": PNG})
    result = seen["messages"][-1]["metadata"]["result"]
    assert result["messages"] == [{"role": "user", "content": "look", "attachments": [HELD]}]
    large = await node("ai_sdk_files.mjs", {**given, "chatId": "chat-2", "size": 200_000})
    assert large["status"] == "error"
    problem = json.loads(large["error"])
    assert (problem["status"], problem["path"]) == (413, "$.messages[0].parts[0].url")
