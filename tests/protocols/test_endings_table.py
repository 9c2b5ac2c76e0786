"""Whatever an execution has open when it ends, however it ends, is closed wherever the execution is shown: one table of
what can be open, every ending, and every rendering.

Each rendering has a function here that says what is open in it. It is tried on logs that have not ended too, where it
must find what the table says: a rendering in which nothing is ever open would pass for nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import pytest
from rich.console import Group

from broker.cli.eventsource import ClientEvent
from broker.cli.transcript import Transcript
from broker.executions.fold import Fold
from broker.protocols.a2a.codec import Codec
from broker.protocols.a2a.projection import TaskProjection
from broker.protocols.a2a.renderer import TaskStream
from broker.protocols.a2a.simple import Simple
from broker.protocols.a2a.task_view import Opening
from broker.protocols.a2a.v03 import V03
from broker.protocols.a2a.v03_rest import V03Rest
from broker.protocols.a2a.v10 import V10
from broker.protocols.ag_ui.frames import Place
from broker.protocols.ag_ui.renderer import Known, View
from broker.protocols.ag_ui.renderer import Renderer as AgUi
from broker.protocols.ag_ui.requests import Message
from broker.protocols.ai_sdk.renderer import Renderer as AiSdk
from emitter import events as ev
from emitter.wire import envelope
from emitter.wire.entries import Entry
from tests.broker.executions.test_state import recorded
from tests.broker.sse_reader import parse
from tests.interop.clients import HERE as INTEROP
from tests.interop.clients import NODE, needs_node
from tests.protocols.test_ag_ui import Client

Json = dict[str, Any]
TASK = "ex_1"
GOES_ON = {"running", "active", "open", "streaming", "required", "queued", "waiting_input", "input-streaming"}
"""What states are called that something is in which may go on."""


class Said(NamedTuple):
    event: ev.Event
    keys: Mapping[str, str] = {}


class Case(NamedTuple):
    """What is said before the end, and in which renderings something is open then. `calls`: names of open calls."""

    said: Sequence[Said]
    open_in: frozenset[str]
    calls: Sequence[str] = ()


def case(*said: ev.Event | Said, open_in: str, calls: Sequence[str] = ()) -> Case:
    told = [each if isinstance(each, Said) else Said(each) for each in said]
    return Case(told, frozenset(open_in.split()), calls)


BEGUN = [
    Said(ev.ExecutionQueued(task="t", agent="a")),
    Said(ev.ExecutionStarted(task="t", started_at=1, attempt=1)),
]
INNER = {"agent": "writer", "parent_id": "c0"}
OUTER = ev.ToolStart(call_id="c0", tool_name="delegate", params={"to": "writer"})
PLAN = ev.PlanCreated(plan=ev.Plan("g", [ev.Phase("p", "Research"), ev.Phase("q", "Build")]))
PHASE = ev.PhaseStart(phase_id="p", phase_name="Research")
CALL = ev.ToolStart(call_id="c", tool_name="look_up", params={"q": 1})
TEXT = ev.MessageDelta(message_id="m", delta="Half a sen")
THOUGHT = ev.ThinkingDelta(message_id="r", delta="Perhaps")
MEMBER = ev.SpecialistActivated(specialist="writer", task="Write")
CHILD = ev.ChildStarted(execution_id="ch_1", agent="a", task="Look it up")
QUESTION = ev.InputRequired(input_id="i", prompt="Publish it?", kind="approval")
CASES: dict[str, Case] = {
    "a phase": case(PHASE, open_in="state ai_sdk ag_ui terminal"),
    "a phase of a plan": case(PLAN, PHASE, open_in="state ai_sdk ag_ui terminal"),
    "a call": case(CALL, open_in="state ai_sdk ag_ui terminal", calls=["look_up"]),
    "a call without parameters": case(
        ev.ToolStart(call_id="c", tool_name="now", params=None),
        open_in="state ai_sdk ag_ui terminal",
        calls=["now"],
    ),
    "a call half way": case(
        CALL,
        ev.ToolProgress(call_id="c", progress=50, message="half"),
        open_in="state ai_sdk ag_ui terminal",
        calls=["look_up"],
    ),
    "a message": case(TEXT, open_in="state ai_sdk ag_ui a2a terminal"),
    "two messages": case(
        TEXT,
        ev.MessageDelta(message_id="n", delta="Another"),
        ev.MessageDelta(message_id="m", delta="tence"),
        open_in="state ai_sdk ag_ui a2a terminal",
    ),
    "a thought": case(THOUGHT, open_in="ai_sdk ag_ui terminal"),
    "an approval": case(QUESTION, open_in="state ai_sdk a2a terminal"),
    "a form": case(
        ev.InputRequired(input_id="i", prompt="Who?", kind="form", schema={"type": "object"}),
        open_in="state ai_sdk a2a terminal",
    ),
    "two questions": case(
        QUESTION,
        ev.InputRequired(input_id="j", prompt="Where?", kind="choice", options=["a", "b"]),
        open_in="state ai_sdk a2a terminal",
    ),
    "a specialist": case(MEMBER, open_in="state ai_sdk ag_ui terminal"),
    "a specialist half way": case(
        MEMBER, ev.Progress(progress=40, specialist="writer"), open_in="state ai_sdk ag_ui terminal"
    ),
    "a sub-agent's text, thought and call": case(
        MEMBER,
        OUTER,
        Said(THOUGHT, INNER),
        Said(TEXT, INNER),
        Said(CALL, INNER),
        open_in="state ai_sdk ag_ui a2a terminal",
        calls=["delegate", "look_up"],
    ),
    "a child": case(CHILD, open_in="state ai_sdk terminal"),
    "two children, of which one is detached": case(
        CHILD,
        ev.ChildStarted(execution_id="ch_2", agent="b", task="t", detached=True),
        open_in="state ai_sdk terminal",
    ),
    "a document": case(
        ev.Artifact(artifact_id="a:1", media_type="text/html", text="<h1>"),
        ev.Artifact(artifact_id="a:1", media_type="text/html", text="Hi", append=True),
        open_in="state a2a",
    ),
    "a synthesis": case(
        ev.Synthesis(message="Waiting", specialists_complete=["a"], specialists_pending=["b"]), open_in="a2a"
    ),
    "the progress of all": case(ev.Progress(progress=40, current_action="Reading"), open_in="terminal"),
    "a message to the agent": case(
        ev.UserMessage(message_id="u", by="alice", mode="queue", text="Shorter"), open_in="state"
    ),
    "a question in a call in a phase, after half a thought and half a sentence": case(
        PHASE,
        CALL,
        MEMBER,
        THOUGHT,
        TEXT,
        QUESTION,
        open_in="state ai_sdk a2a terminal",
        calls=["look_up"],
    ),
}
CLOSE = {
    ev.PhaseComplete, ev.MessageComplete, ev.ToolComplete, ev.ToolError, ev.SpecialistComplete, ev.InputReceived,
    ev.UserMessageTaken, ev.UserMessageDropped,
    ev.ChildEnded,
}  # fmt: skip
LIFE = {
    ev.ExecutionQueued, ev.ExecutionStarted, ev.ExecutionSuperseded, ev.ExecutionComplete, ev.ExecutionError,
    ev.ExecutionCancelled,
}  # fmt: skip
WHOLE = {
    ev.Thinking,
    ev.Status,
    ev.PartialResult,
    ev.UsageTotals,
    ev.ModelCall,
    ev.Timeout,
    ev.BudgetNotice,
    ev.SandboxViolation,
}
"""What is over when it is said."""

AGAIN = Said(ev.ExecutionStarted(task="t", started_at=2, attempt=2))
DONE = Said(ev.ExecutionComplete(result=None, duration=1.0))
FAILED = Said(ev.ExecutionError(error="it broke", code="agent_error"))
CANCELLED = Said(ev.ExecutionCancelled(reason="enough", by="alice"))
LOST = Said(ev.ExecutionError(error="the worker was lost 3 times", code="worker_lost"))
EXPIRED = Said(ev.InputReceived(input_id="i", by=ev.EXPIRED, value=None))


def taken_over(told: int, *, keeps: bool) -> Said:
    """By a second attempt, for which all that was said before counts, or nothing."""
    return Said(ev.ExecutionSuperseded(from_seq=told if keeps else 1, attempt=2))


ENDINGS: dict[str, Callable[[int], list[Said]]] = {
    "complete": lambda _: [DONE],
    "complete with a text": lambda _: [Said(ev.ExecutionComplete(result="All of it.", duration=1.0))],
    "error": lambda _: [FAILED],
    "cancelled": lambda _: [CANCELLED],
    "worker lost": lambda _: [LOST],
    "expired, then complete": lambda _: [EXPIRED, DONE],
    "taken over, then complete": lambda told: [taken_over(told, keeps=False), AGAIN, DONE],
    "taken over, then cancelled before it starts": lambda told: [taken_over(told, keeps=False), CANCELLED],
    "taken over with all that was said, then error": lambda told: [taken_over(told, keeps=True), AGAIN, FAILED],
    "taken over, said again, then cancelled": lambda told: [
        taken_over(told, keeps=False),
        AGAIN,
        Said(PHASE),
        Said(CALL),
        Said(TEXT),
        CANCELLED,
    ],
}


def log(said: Sequence[Said]) -> list[Entry]:
    found = []
    for seq, (event, keys) in enumerate(said, 1):
        type_ = envelope.event_type(event)
        data = envelope.encode_data(event)
        json_ = envelope.envelope(type_, TASK, data, ts=seq, keys=envelope.envelope_keys(**keys))
        found.append(Entry(1_000 + seq, seq, type_.encode(), json_))
    return found


def ended(name: str, ending: str) -> list[Entry]:
    told = [*BEGUN, *CASES[name].said]
    return log([*told, *ENDINGS[ending](len(told))])


# --- what is open ----------------------------------------------------------------------------------------------------


def going_on(value: Any, path: str = "") -> list[str]:
    """Where in a JSON value a state says that something goes on."""
    if isinstance(value, dict):
        here = [f"{path}/{name}" for name in ("status", "state") if value.get(name) in (*GOES_ON, "input-available")]
        return here + [found for name, each in value.items() for found in going_on(each, f"{path}/{name}")]
    if isinstance(value, list):
        return [found for number, each in enumerate(value) for found in going_on(each, f"{path}/{number}")]
    return []


def open_in_state(state: Json) -> list[str]:
    """What of a folded state is open, besides the execution."""
    written = [*state["messages"], *state["artifacts"]]
    found = [path for path in going_on(state) if path != "/status"]
    found += [f"text {each['text']}" for each in written if not each["complete"] and not each["interrupted"]]
    return found + [question["prompt"] for question in state["openInputs"]]


def folded(entries: Sequence[Entry]) -> Json:
    fold = Fold(TASK)
    for entry in entries:
        fold.apply_entry(entry)
    state: Json = json.loads(msgspec.json.encode(fold.state()))
    return state


def chunks_of(body: bytes) -> list[Json]:
    return [json.loads(frame.data) for frame in parse(body) if frame.data != "[DONE]"]


def open_in_chunks(chunks: Sequence[Json]) -> list[str]:
    """What of AI SDK's chunks has begun and not ended; data parts count as they were last."""
    found: dict[str, None] = {}
    data: dict[str, Json] = {}
    for chunk in chunks:
        kind, _, verb = chunk["type"].rpartition("-")
        key = f"{kind.removeprefix('tool-')} {chunk.get('id') or chunk.get('toolCallId')}"
        match chunk["type"]:
            case "text-start" | "reasoning-start":
                found[key] = None
            case "text-end" | "reasoning-end":
                del found[key]
            case "start-step":
                assert "step" not in found
                found["step"] = None
            case "finish-step":
                del found["step"]
            case "tool-input-available":
                found[f"call {chunk['toolCallId']}"] = None
            case "tool-output-available" | "tool-output-error":
                found.pop(f"call {chunk['toolCallId']}", None)
            case type_ if type_.startswith("data-"):
                data[f"{type_} {chunk['id']}"] = chunk["data"]
        assert verb != "delta" or key in found
    return [*(each for each in found if each != "step"), *going_on(data)]


def open_in_run(client: Client) -> list[str]:
    """What AG-UI's client has that begins, and waits or goes on."""
    calls = {call["id"] for message in client.messages for call in message.get("toolCalls", [])}
    answered = {message["toolCallId"] for message in client.of_role("tool")}
    activities = going_on({message["id"]: message["content"] for message in client.of_role("activity")})
    found = [*map(str, client.open), *sorted(calls - answered), *activities]
    execution = client.state.get("execution", {}) if isinstance(client.state, dict) else {}
    found += [path for path in going_on(execution) if path != "/status"]
    return found + [question["prompt"] for question in execution.get("openInputs", [])]


def open_in_task(frames: Sequence[Json]) -> list[str]:
    """Artifacts of A2A's updates of which there may be more, and whether an answer is waited for."""
    more: dict[str, bool] = {}
    status: Json = {}
    for frame in frames:
        each = next(iter(frame.values())) if "kind" not in frame else frame
        if "artifact" in each:
            more[each["artifact"]["artifactId"]] = not each["lastChunk"]
        elif "status" in each:
            status = each["status"]
    waits = status.get("state") in ("input-required", "TASK_STATE_INPUT_REQUIRED")
    return [id_ for id_, is_open in more.items() if is_open] + (["a question"] if waits else [])


def printed(entries: Sequence[Entry]) -> tuple[list[str], Transcript]:
    transcript = Transcript(plain=True)
    lines = []
    for entry in entries:
        head = json.loads(entry.json)
        event = ClientEvent(
            type=head["type"], data=head["data"], execution_id=TASK, ts=head["ts"], agent=head.get("agent")
        )
        lines += [line.plain for line in transcript.apply(event)]
    return lines, transcript


def open_in_lines(entries: Sequence[Entry]) -> list[str]:
    """What a terminal was told to begin and not to end, and what it shows as under way."""
    lines, transcript = printed(entries)
    found: list[str] = []
    for line in lines:
        mark, rest = line[:2], line[2:]
        match mark:
            case "▸ ":
                found.append(rest)
            case "◇ ":
                found.append(rest.split()[0])
            case "↳ ":
                found.append(rest.split("  ")[1].removesuffix(" (detached)"))
            case "↲ ":
                found = [each for each in found if each not in rest]
            case "? ":
                found.append(rest.split("  [")[0])
            case "✓ " | "◆ " | "⊘ ":
                found = [each for each in found if not (rest.startswith(each) or f" {each}  " in rest)]
            case "! ":
                found = [each for each in found if each.startswith("ch_")]  # another attempt of the same children
        if line == "  nobody answered in time":  # what was asked first
            asked = [each for each in found if each.endswith("?")][:1]
            found = [each for each in found if each not in asked]
    under_way = transcript.live(10_000, 80)
    assert isinstance(under_way, Group)
    return found + [str(each) for each in under_way.renderables]


# --- the renderings --------------------------------------------------------------------------------------------------


def run_of(entries: Sequence[Entry], **view: Any) -> tuple[bytes, AgUi]:
    asked = {"execution_id": TASK, "thread_id": "t", "run_id": "r", **view}
    made = AgUi(View(**asked), [Message(id="u1", role="user", content="t")], {"theirs": 1})
    return made.open() + b"".join(made.render([entry]) for entry in entries), made


def runs_of(entries: Sequence[Entry]) -> list[bytes]:
    """What one is shown who is there all the time, and answers: a run up to what is asked, and one for what follows."""
    body, made = run_of(entries)
    assert made.is_over
    if b'"type":"interrupt"' not in body:
        return [body]
    place = Place.parse(parse(body)[-1].id or "")
    attempt = 1 if place.id.seq <= len(BEGUN) else folded(entries)["attempt"]
    known = Known(seq=len(entries), attempt=attempt)
    return [body, run_of(entries, run_id="r2", after=place, known=known, is_resumed=True)[0]]


def late_run_of(entries: Sequence[Entry]) -> bytes:
    """What one is shown who comes when all is over."""
    return run_of(entries, known=Known(seq=len(entries), attempt=folded(entries)["attempt"]))[0]


def page_of(entries: Sequence[Entry], attempt: int = 1) -> bytes:
    made = AiSdk(TASK, attempt=attempt)
    return made.open() + b"".join(made.render([entry]) for entry in entries)


WIRES: dict[str, Codec] = {"0.3": V03(), "1.0": V10(), "0.3 rest": V03Rest(), "simple": Simple()}


def task_of(entries: Sequence[Entry], version: str, *, before: int = 0) -> tuple[list[Json], TaskStream]:
    """A task as its viewer is shown it, who came after so many entries."""
    story = TaskProjection(Opening(TASK, "c"))
    for entry in entries[:before]:
        story.take(entry)
    stream = TaskStream(story, WIRES[version], is_followed=True)
    body = stream.open() + b"".join(stream.render([entry]) for entry in entries[before:])
    frames = [json.loads(frame.data) for frame in parse(body)]
    return [_plain(frame) for frame in frames] if version == "simple" else frames, stream


def _plain(frame: Json) -> Json:
    """The simple form's, in the names of the others."""
    if "artifactId" not in frame:
        return {"x": {"status": {"state": frame["status"]}}}
    return {"x": {"artifact": {"artifactId": frame["artifactId"]}, "lastChunk": frame["last"]}}


def open_parts(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """What is open in each rendering of a log."""
    body, made = run_of(entries)
    return {
        "state": open_in_state(folded(entries)),
        "ai_sdk": open_in_chunks(chunks_of(page_of(entries))),
        "ag_ui": open_in_run(Client().take(parse(body))) if not made.is_over else [],
        "a2a": open_in_task(task_of(entries, "1.0")[0]),
        "terminal": open_in_lines(entries),
    }


# --- the table -------------------------------------------------------------------------------------------------------


def test_the_table_has_every_type() -> None:
    """A new type is listed: as one that opens something, with what that is; as one that closes; or as a whole."""
    opens = {type(said.event) for each in CASES.values() for said in each.said}
    groups = [opens, CLOSE, LIFE, WHOLE]
    assert set(ev.CATALOGUE) == set().union(*groups)
    assert sum(map(len, groups)) == len(ev.CATALOGUE), "each is in one group"


def test_what_is_whole_leaves_nothing_open() -> None:
    """In no rendering does anything of these go on after they were said."""
    samples = {entry.type.decode(): json.loads(entry.json)["data"] for entry in recorded("every_event.jsonl")}
    for kind in WHOLE:
        said = [*BEGUN, Said(msgspec.convert(samples[kind.type], kind))]
        assert open_parts(log(said)) == {rendering: [] for rendering in ALL}, kind


@pytest.mark.parametrize("name", CASES)
def test_what_is_open_before_the_end(name: str) -> None:
    """The cases open what the table says: or the rest of it would show nothing."""
    found = open_parts(log([*BEGUN, *CASES[name].said]))
    assert {rendering for rendering, parts in found.items() if parts} == CASES[name].open_in


ENDED = pytest.mark.parametrize("ending", ENDINGS)
ALL = ("state", "ai_sdk", "ag_ui", "a2a", "terminal")


@ENDED
def test_the_state(ending: str) -> None:
    """The folded state of an execution that ended has nothing that goes on."""
    for name in CASES:
        state = folded(ended(name, ending))
        assert state["status"] in ev.TERMINAL_STATES, name
        assert open_in_state(state) == [], name


@ENDED
def test_ai_sdk(ending: str) -> None:
    """For one who was there, and for one who comes later, all that starts ends, and every call has a result."""
    for name in CASES:
        entries = ended(name, ending)
        for attempt in {1, folded(entries)["attempt"]}:
            body = page_of(entries, attempt)
            assert body.endswith(b"data: [DONE]\n\n"), name
            chunks = chunks_of(body)
            assert chunks[-1]["type"] in ("finish", "error", "abort"), name
            assert open_in_chunks(chunks) == [], name


@ENDED
def test_ag_ui(ending: str) -> None:
    """The same for one who was there and answered what was asked, and for one who comes when it is over."""
    for name in CASES:
        entries = ended(name, ending)
        for bodies in (runs_of(entries), [late_run_of(entries)]):
            client = Client()
            for body in bodies:
                client.take(parse(body))
            assert not client.is_running, name
            assert client.end["type"] in ("RUN_FINISHED", "RUN_ERROR"), name
            assert open_in_run(client) == [], name


@pytest.mark.parametrize("version", WIRES)
@ENDED
def test_a2a(ending: str, version: str) -> None:
    """For one who watched from the beginning, and for one who came in the middle, each text has its last chunk, and the
    stream its end; the task alone has ended too."""
    for name in CASES:
        entries = ended(name, ending)
        for before in (0, len(BEGUN) + len(CASES[name].said)):
            frames, stream = task_of(entries, version, before=before)
            assert stream.is_over, name
            assert open_in_task(frames) == [], name
        story = TaskProjection(Opening(TASK, "c"))
        for entry in entries:
            story.take(entry)
        assert story.task().status.state in ("completed", "failed", "canceled"), name


@ENDED
def test_the_terminal(ending: str) -> None:
    """What was begun in the lines ends there; no call goes without a line, unless it is void."""
    for name in CASES:
        entries = ended(name, ending)
        lines, transcript = printed(entries)
        assert transcript.outcome in ev.TERMINAL_STATES, name
        assert open_in_lines(entries) == [], name
        if "taken over" not in ending:
            assert all(any(line.startswith(f"  ⊘ {call}") for line in lines) for call in CASES[name].calls), name


# --- as clients have it ----------------------------------------------------------------------------------------------


def given() -> Iterator[tuple[str, str, list[Entry], bytes]]:
    for name in CASES:
        for ending in ENDINGS:
            entries = ended(name, ending)
            events = [{"id": str(entry.id), "event": json.loads(entry.json)} for entry in entries]
            threads = {tuple(runs_of(entries)), (late_run_of(entries),)}  # often the same bytes
            bodies = [[body.decode() for body in thread] for thread in threads]
            line = {"log": events, "threads": bodies, "page": page_of(entries).decode()}
            yield name, ending, entries, json.dumps(line).encode()


@needs_node
async def test_clients() -> None:
    """The client's fold is the state; AG-UI's verifier takes every run, and leaves no call without a result; for the AI
    SDK every part is done."""
    assert NODE is not None
    cells = list(given())
    script = [NODE, "--no-warnings", "endings_table.mjs"]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*script, cwd=INTEROP, stdin=pipe, stdout=pipe, stderr=pipe)
    out, error = await process.communicate(b"\n".join(line for *_, line in cells))
    assert process.returncode == 0, error.decode()
    for (name, ending, entries, _), line in zip(cells, out.splitlines(), strict=True):
        _check(json.loads(line), entries, f"{name}: {ending}")


def _check(found: Json, entries: Sequence[Entry], cell: str) -> None:
    last = json.loads(entries[-1].json)
    failed = [last["data"]["error"]] if last["type"] == "execution:error" else []
    assert found["fold"] == folded(entries), cell
    for runs in found["threads"]:
        told = (runs["errors"], runs["warnings"], runs["failures"], runs["pending"])
        assert told == ([], [], failed, []), cell
        calls = {call["id"] for message in runs["messages"] for call in message.get("toolCalls", [])}
        answered = {message["toolCallId"] for message in runs["messages"] if message["role"] == "tool"}
        assert calls <= answered, cell
        assert [path for path in going_on(runs["state"]) if path != "/execution/status"] == [], cell
    assert found["page"]["errors"] == failed, cell
    assert going_on(found["page"]["message"]) == [], cell
