"""What all protocols have in common on the wire: the same log is the same bytes, at every edge, live and replayed; and
no event can break a frame."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Sequence

import msgspec
import pytest
from redis.asyncio import Redis
from shows import SHOWS, SUBSCRIBE, Show, Turn, after, begin, blocks, contents, known

from emitter import events
from emitter.events import Event
from emitter.wire.envelope import decode_envelope
from tests.broker.executions.test_state import recorded
from tests.edges import Author, EdgeProcess

STARTED = events.ExecutionStarted(task="t", started_at=1, attempt=1)
BURSTS = (1, 3, 1, 2, 7)
"""Events that are appended at a time, over and over."""
MAX_FRAME = 4 * 1024 * 1024


@pytest.fixture(autouse=True)
async def agents(redis: Redis, two_edges: list[EdgeProcess]) -> None:
    await known(redis, two_edges)


def every_event() -> list[Event]:
    """The recorded log after its first event: a lost attempt, questions, and every other type there is."""
    return [decode_envelope(entry.json)[1] for entry in recorded("every_event.jsonl")][1:]


def one_attempt() -> list[Event]:
    """The same without what makes a replay differ from what was seen live: a lost attempt, questions."""
    told = every_event()
    lost = next(at for at, event in enumerate(told) if isinstance(event, events.ExecutionSuperseded))
    asked = (events.InputRequired, events.InputReceived)
    return [event for event in told[lost + 1 :] if not isinstance(event, asked)]


async def write(author: Author, told: Sequence[Event]) -> None:
    left = list(told)
    while left:
        for size in BURSTS:
            if left:
                await author.write(*left[:size])
                del left[:size]


async def live(edges: Sequence[EdgeProcess], turn: Turn, told: Sequence[Event]) -> dict[str, list[bytes]]:
    """What viewers at every edge, there from the beginning, are shown of these events, to the end of their streams."""
    async with contextlib.AsyncExitStack() as stack:
        opened = [(show, await stack.enter_async_context(show.stream(edge, turn))) for show in SHOWS for edge in edges]
        reading = [asyncio.create_task(response.body()) for _, response in opened]
        await write(turn.author, told)
        async with asyncio.timeout(20):
            bodies = await asyncio.gather(*reading)
        assert all(response.whole for _, response in opened)
    found: dict[str, list[bytes]] = {show.name: [] for show in SHOWS}
    for (show, _), body in zip(opened, bodies, strict=True):
        found[show.name].append(show.plain(body))
    return found


async def test_the_same_log_is_the_same_bytes(two_edges: list[EdgeProcess], author: Author) -> None:
    """Two edges show one log in identical bytes, in every protocol and version; so does a replay after its end, and
    who comes back in between gets exactly what comes after his cursor."""
    turn = await begin(two_edges[0], author)
    shown = await live(two_edges, turn, one_attempt())
    log = await turn.author.log()
    for show in SHOWS:
        first, second = shown[show.name]
        assert first == second, show.name
        assert first.count(show.end) == 1, show.name
        if show.name == "ai_sdk resume":
            async with show.open(two_edges[0], turn) as response:
                assert response.status == 204, "what has ended is not resumed"
            continue
        assert await show.whole(two_edges[0], turn) == first, show.name
        if show.resumes:
            await resumed(show, two_edges[1], turn, first, [event.id for event in log[:-1]])


async def resumed(show: Show, edge: EdgeProcess, turn: Turn, whole: bytes, cursors: Sequence[str]) -> None:
    ids = set(re.findall(rb"(?m)^id: (\d+-\d+)$", whole))
    for cursor in [each for each in cursors if each.encode() in ids][:: 1 if show.name == "native" else 4]:
        rest = await show.whole(edge, turn, cursor=cursor)
        assert rest.endswith(after(whole, cursor)), (show.name, cursor)
        introduced = rest.removesuffix(after(whole, cursor))
        seen = re.findall(rb"(?m)^id: (.*)$", introduced)
        task = [cursor.encode()] if show in SUBSCRIBE else []  # as it was at that place
        assert seen == task, (show.name, cursor, "nothing comes twice")


async def test_two_edges_agree_on_what_is_taken_back_and_asked(two_edges: list[EdgeProcess], author: Author) -> None:
    """Over a lost attempt and questions, too, live viewers of one log are shown the same bytes wherever they are, and
    each stream ends as its protocol has it: at its first question, or at the end."""
    turn = await begin(two_edges[0], author)
    shown = await live(two_edges, turn, every_event())
    for show in SHOWS:
        first, second = shown[show.name]
        assert first == second, show.name
        at_question = show.from_first or show.name.startswith(("ag_ui", "responses"))
        last = contents(first)[-1]
        assert ("Publish it?" in json.dumps(last)) == at_question, (show.name, last)


async def test_viewers_beside_each_other(two_edges: list[EdgeProcess], author: Author) -> None:
    """Viewers at one edge share their renderings where they can: whenever they come, those who come together are shown
    the same, and who came in between is shown the rest as those before him were."""
    turn, told = await begin(two_edges[0], author), one_attempt()
    some = len(told) // 3
    edge = two_edges[0]
    async with contextlib.AsyncExitStack() as stack:
        waves = []
        for part in (told[:some], told[some:]):
            opened = [[await stack.enter_async_context(show.stream(edge, turn)) for _ in range(2)] for show in SHOWS]
            waves.append([[asyncio.create_task(each.body()) for each in group] for group in opened])
            await write(turn.author, part)
        async with asyncio.timeout(20):
            bodies = [[{*await asyncio.gather(*group)} for group in wave] for wave in waves]
    for number, show in enumerate(SHOWS):
        came = [{show.plain(body) for body in wave[number]} for wave in bodies]
        assert [len(each) for each in came] == [1, 1], show.name
        [first], [last] = came
        rest = blocks(last)[1:]
        assert len(rest) >= some, show.name
        assert rest[-some:] == blocks(first)[-some:], show.name


# --- what no event can do --------------------------------------------------------------------------------------------

HOSTILE = (
    "\r\n\r\ndata: x\n\n\r: hb\n\x00\x1b\x1c\x1d\x1e\x0b\x0c\x7f\x85\xa0\u2028\u2029\ufeff\ufffe"
    "\U0001f600\U0010ffff </script>\\\"'"
)
"""Line ends of all kinds, controls, what some clients take for line ends, and what lies outside the first plane."""
LONG = HOSTILE + "\U0001f600" * 4_000
MAX = "\x00\r\u2028\U0001f600" * 2_400
"""As much of it as one event holds."""


def hostile() -> list[Event]:
    """Every text that an agent may write, wherever it may write it."""
    keys = {HOSTILE: {HOSTILE: [HOSTILE, LONG]}}
    return [
        events.ExecutionStarted(task=HOSTILE, started_at=1, attempt=1),
        events.PlanCreated(plan=events.Plan(goal=HOSTILE, phases=[events.Phase(id=HOSTILE, name=HOSTILE)])),
        events.PhaseStart(phase_id=HOSTILE, phase_name=HOSTILE),
        events.Status(status=HOSTILE, message=LONG),
        events.SpecialistActivated(specialist=HOSTILE, task=HOSTILE, icon=HOSTILE),
        events.Thinking(thought=LONG),
        events.ThinkingDelta(message_id=HOSTILE, delta=LONG),
        events.ToolStart(call_id=HOSTILE, tool_name=HOSTILE, params=keys),
        events.ToolProgress(call_id=HOSTILE, message=HOSTILE),
        events.ToolComplete(call_id=HOSTILE, tool_name=HOSTILE, result=keys, duration=0.1),
        events.ToolStart(call_id=HOSTILE + "2", tool_name=HOSTILE, params={}),
        events.ToolError(call_id=HOSTILE + "2", tool_name=HOSTILE, error=LONG, duration=0.1),
        events.Progress(progress=50, current_action=HOSTILE, specialist=HOSTILE),
        events.PartialResult(result=keys, specialist=HOSTILE),
        events.SpecialistComplete(specialist=HOSTILE, summary=HOSTILE),
        events.Synthesis(message=HOSTILE, specialists_complete=[HOSTILE], specialists_pending=[]),
        *(events.MessageDelta(message_id=HOSTILE, delta=MAX) for _ in range(12)),
        events.MessageComplete(message_id=HOSTILE),
        events.Artifact(artifact_id=HOSTILE, media_type=HOSTILE, name=HOSTILE, text=MAX),
        events.Artifact(artifact_id=HOSTILE, media_type=HOSTILE, text=MAX, append=True, last=True),
        events.Artifact(artifact_id=HOSTILE + "2", media_type=HOSTILE, data=keys, last=True),
        events.Artifact(artifact_id=HOSTILE + "3", media_type=HOSTILE, url=HOSTILE, last=True),
        events.UsageTotals(input_tokens=1, output_tokens=1, total_tokens=2, model=HOSTILE),
        events.ModelCall(call_id=HOSTILE, model=HOSTILE, input_tokens=1, output_tokens=1, duration=1.0, error=HOSTILE),
        events.Timeout(message=HOSTILE, action="continuing"),
        events.SandboxViolation(rule=HOSTILE, detail=HOSTILE),
        events.Custom(name="acme.x", data=keys),
        events.PhaseComplete(phase_id=HOSTILE, phase_name=HOSTILE),
        events.ExecutionComplete(result=keys, duration=1.0),
    ]


def check_frames(name: str, body: bytes) -> None:
    """Frames of ASCII lines that end with LF, none too large for any client."""
    odd = re.search(rb"[^\x20-\x7f\n]", body)
    assert odd is None, (name, body[max(0, odd.start() - 80) : odd.end() + 20])
    for block in blocks(body):
        assert len(block) < MAX_FRAME, name
        *lines, last, blank = block.split(b"\n")
        assert (blank, last) == (b"", b"")
        for line in lines:
            assert re.match(rb"(id: \d+-\d+(\.\d+)?$|event: [a-z0-9:._-]+$|retry: \d+$|data: |: hb$)", line), (
                name,
                line,
            )
    contents(body)


async def test_no_event_breaks_a_frame(two_edges: list[EdgeProcess], author: Author) -> None:
    """Whatever agents write, in whatever field: lines end with LF, all bytes are ASCII, every frame is one that clients
    take, and what was written comes out."""
    turn = await begin(two_edges[0], author)
    shown = await live(two_edges, turn, hostile())
    for show in SHOWS:
        first, second = shown[show.name]
        check_frames(show.name, first)
        assert first == second, show.name
        text = json.dumps(contents(first), ensure_ascii=False)
        assert json.dumps(LONG, ensure_ascii=False)[1:-1] in text, show.name


@pytest.mark.parametrize("show", SUBSCRIBE, ids=lambda show: show.name)
async def test_a_task_of_many_megabytes(two_edges: list[EdgeProcess], author: Author, show: Show) -> None:
    """A task that is larger than a client takes in one frame comes in several, and what is added to its artifacts
    afterwards finds them there."""
    turn = await begin(two_edges[0], author)
    made = [events.Artifact(artifact_id=f"a{n}", media_type="text/plain", text="\u2028" * 10_000) for n in range(80)]
    await write(turn.author, [STARTED, *made])
    cursor = (await turn.author.log())[-1].id
    async with show.stream(two_edges[1], turn, cursor=cursor) as response, asyncio.timeout(20):
        await turn.author.write(*(msgspec.structs.replace(each, text="+", append=True) for each in made))
        await turn.author.end()
        body = await response.body()
    check_frames(show.name, show.plain(body))
    first, *rest = blocks(show.plain(body))
    artifacts = {name: "".join(parts) for name, parts in artifacts_of(body).items()}
    assert b'"artifactId"' not in first
    assert {name for name, text in artifacts.items() if text == "\u2028" * 10_000 + "+"} == {f"a{n}" for n in range(80)}
    ids = re.findall(rb"(?m)^id: (.*)$", b"".join(rest))
    assert ids[0] == cursor.encode(), "who loses it among the artifacts gets it again"


def artifacts_of(body: bytes) -> dict[str, list[str]]:
    """The texts of each artifact's parts, as a client of any version puts them together. It refuses to add to what it
    has not got."""
    found: dict[str, list[str]] = {}
    for content in contents(body):
        result = content.get("result", content)
        update = result.get("artifactUpdate", result)
        if "artifact" not in update:
            continue
        artifact = update["artifact"]
        if not update["append"]:
            found[artifact["artifactId"]] = []
        found[artifact["artifactId"]] += [part["text"] for part in artifact["parts"] if "text" in part]
    return found
