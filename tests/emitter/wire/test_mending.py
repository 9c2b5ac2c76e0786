"""What is only shown is never fatal to the agent that says it."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import enum
import inspect
import json
import pathlib
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import attrs
import numpy as np
import pydantic
import pytest
from langchain_core.messages import AIMessage
from msgspec.structs import replace
from redis.asyncio import Redis

from emitter import AgentEmitter, SyncAgentEmitter, events
from emitter.errors import HookFailed, InvalidEvent, PayloadTooLarge
from emitter.events import CATALOGUE, Custom, Event, InputRequired
from emitter.publishing.event_methods import EventMethods
from emitter.publishing.hooks import Origin
from emitter.publishing.publisher import Publisher
from emitter.store.append import LogLimits
from emitter.testing import RecordingEmitter
from emitter.values import MAX_INTEGER
from emitter.wire import mending
from emitter.wire.envelope import decode_event, encode_data, event_type
from emitter.wire.keys import Owner

LOG = Owner("alice").execution("ex_1").log


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Real(float):
    pass


class Model(pydantic.BaseModel):
    a: int


@attrs.define
class Point:
    x: int


@dataclass
class Row:
    id: int


class Colour(enum.Enum):
    RED = "red"


@pytest.fixture
async def emitter(redis: Redis, redis_url: str) -> AsyncIterator[AgentEmitter]:
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url) as made:
        yield made


async def stored(redis: Redis) -> list[tuple[str, Any]]:
    rows = [json.loads(next(iter(fields.values()))) for _, fields in await redis.xrange(LOG)]
    return [(event["type"], event["data"]) for event in rows]


def said(redis_events: list[tuple[str, Any]], type_: str = "message:delta") -> str:
    return "".join(data["delta"] for name, data in redis_events if name == type_)


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (AIMessage("x").text, "x"),
        (Text("é"), "é"),
        (Number(7), 7),
        (Real(0.5), 0.5),
        (np.float64(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (decimal.Decimal("1.10"), "1.10"),
        (datetime.date(2026, 11, 21), "2026-11-21"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (pathlib.PurePosixPath("/tmp/x"), "/tmp/x"),
        (deque([1]), [1]),
        (Model(a=1), {"a": 1}),
        (Point(1), {"x": 1}),
        (Row(1), {"id": 1}),
        (Colour.RED, "red"),
        (float("nan"), None),
        (float("inf"), None),
        ({None: 1, Text("k"): Text("v")}, {"null": 1, "k": "v"}),
        ("\ud83d\ude00", "😀"),
        ("half \ud83d", "half \ufffd"),
        (ValueError("no"), "ValueError: no"),
        (2**70, 2**70),
        (10**30 - 1, 10**30 - 1),
    ],
    ids=lambda value: f"{type(value).__name__}-{str(value)[:20]!a}",
)
async def test_foreign_values_have_a_form_everywhere(
    redis: Redis, emitter: AgentEmitter, given: Any, shown: Any
) -> None:
    """As parameters, results, artifacts, data of one's own and the result of the execution."""
    await emitter.tool_start("c", "t", {"p": given})
    await emitter.tool_complete("c", "t", given, 0.1)
    await emitter.partial_result([given])
    await emitter.artifact("a", "application/json", data={"d": given})
    await emitter.custom("mine", {"m": given})
    await emitter.execution_complete(given)
    start, end, partial, artifact, own, complete = [data for _, data in await stored(redis)]
    assert (start["params"], end["result"], partial["result"]) == ({"p": shown}, shown, [shown])
    assert (artifact["data"], own, complete["result"]) == ({"d": shown}, {"m": shown}, shown)


@pytest.mark.parametrize("given", [AIMessage("x").text, Text("x")])
async def test_texts_of_a_subclass_are_texts(redis: Redis, emitter: AgentEmitter, given: str) -> None:
    """In every field, and in questions and answers too, where nothing else is mended."""
    await emitter.text(given)
    await emitter.message_delta(given, Text("m1_1"))
    await emitter.thinking_delta(given, given)
    await emitter.thinking(given)
    await emitter.status(given, given)
    await emitter.input_required("q", given, "choice", options=[given])
    await emitter.input_received("q", "alice", value=given)
    await emitter.execution_error(given)
    log = await stored(redis)
    assert said(log) == "xx"
    assert [data for name, data in log if name == "thinking"] == [{"thought": "x"}]
    assert [data["prompt"] for name, data in log if name == "input:required"] == ["x"]
    assert [data["value"] for name, data in log if name == "input:received"] == ["x"]
    assert log[-1] == ("execution:error", {"error": "x"})


async def test_a_question_of_foreign_texts_can_be_asked() -> None:
    """Its id is that of the plain question, or a retry would not find the answer."""
    emitter = RecordingEmitter(answers={"x": "x"})
    assert await emitter.ask(Text("x"), kind="choice", options=[Text("x")]) == "x"
    plain = RecordingEmitter(answers={"x": "x"})
    await plain.ask("x", kind="choice", options=["x"])
    assert emitter.of("input:required") == plain.of("input:required")


Broken = Callable[[AgentEmitter], Any]


@pytest.mark.parametrize(
    ("call", "data"),
    [
        (lambda e: e.progress(100.00000000000001), {"progress": 100}),
        (lambda e: e.progress(7 * (100 / 7)), {"progress": 100}),
        (lambda e: e.progress(-1e-12), {"progress": 0}),
        (lambda e: e.progress(250), {"progress": 100}),
        (lambda e: e.progress(float("nan")), {"progress": 0}),
        (lambda e: e.progress(np.float32(50)), {"progress": 50}),
        (lambda e: e.progress("50"), {"progress": 50}),
        (lambda e: e.progress(None), {"progress": 0}),
        (lambda e: e.tool_progress("c", progress=100.00000000000001), {"callId": "c", "progress": 100}),
        (lambda e: e.thinking(None), {"thought": ""}),
        (lambda e: e.thinking(5), {"thought": "5"}),
        (lambda e: e.thinking([{"type": "text"}]), {"thought": '[{"type": "text"}]'}),
        (lambda e: e.thinking("a", iteration=np.int64(2)), {"thought": "a", "iteration": 2}),
        (lambda e: e.thinking("a", visible=np.bool_(False)), {"thought": "a", "visible": False}),
        (lambda e: e.custom("My Event!", {"a": 1}), {"a": 1}),
        (lambda e: e.custom("x", [1]), {"value": [1]}),
        (lambda e: e.timeout("m", "waiting"), {"message": "m", "action": "continuing"}),
        (lambda e: e.synthesis("m", specialists_complete=None), {"message": "m"}),
        (lambda e: e.synthesis("m", specialists_complete=(Text("a"),)), {"message": "m", "specialistsComplete": ["a"]}),
        (lambda e: e.plan_created(None, ["a"]), {"plan": {"goal": "", "phases": [{"id": "a", "name": "a"}]}}),
        (lambda e: e.plan_created("g", [(1, 2)]), {"plan": {"goal": "g", "phases": [{"id": "1", "name": "2"}]}}),
        (
            lambda e: e.tool_error("c", "t", "x\udcff", None),
            {"callId": "c", "toolName": "t", "error": "x\ufffd", "duration": 0},
        ),
        (lambda e: e.tool_complete("c", "t", 1, "1.5"), {"callId": "c", "toolName": "t", "result": 1, "duration": 1.5}),
        (lambda e: e.message_delta("x", 5), {"messageId": "5", "delta": "x"}),
        (lambda e: e.message_delta("x", "id \udfff"), {"messageId": "id \ufffd", "delta": "x"}),
        (lambda e: e.tool_start("c", "t"), {"callId": "c", "toolName": "t", "params": {}}),
    ],
)  # fmt: skip
async def test_what_the_catalogue_cannot_hold_is_mended(
    redis: Redis, emitter: AgentEmitter, call: Broken, data: Any
) -> None:
    """And the emitter goes on: what is said next is there as well, the end included."""
    await call(emitter)
    await emitter.status("after", "")
    await emitter.execution_complete(1)
    (_, first), after, end = await stored(redis)
    empty = {"specialistsComplete": [], "specialistsPending": []} if "specialistsComplete" in first else {}
    assert first == empty | data
    assert (after[0], end[0]) == ("status", "execution:complete")


@pytest.mark.parametrize("kind", [*CATALOGUE, Custom], ids=lambda kind: kind.type)
@pytest.mark.parametrize(
    "value", [None, "\ud83d", float("nan"), [[1]], {"a": {2}}, np.float64(2), "x" * 200_000, object()]
)
def test_every_event_of_the_catalogue_can_be_mended(kind: type[Event], value: Any) -> None:
    """Whatever stands in all of its fields, it has a form on the wire; what changes the meaning is left alone."""
    event = kind(**dict.fromkeys(kind.__struct_fields__, value))
    if not mending.may_mend(event):
        assert mending.valid(event, 65_536) is event
        return
    mended = mending.mended(event)
    for name in ("attempt", "started_at"):  # these are not mended
        mended = replace(mended, **{name: 1}) if name in kind.__struct_fields__ else mended
    for form in (mended, *mending.shorter(mended, 2000, lambda _, data: data)):
        assert isinstance(decode_event(event_type(form), encode_data(form)), kind)
    assert len(encode_data(form)) < 2000


@pytest.mark.parametrize("tokens", [None, np.int64(7), "7", 7.0, float("nan"), 2**60, {"prompt": 7}])
async def test_usage_of_any_server_is_no_reason_to_die(redis: Redis, emitter: AgentEmitter, tokens: Any) -> None:
    """Compatible servers send null, floats and more."""
    await emitter.usage(input_tokens=tokens, output_tokens=tokens)
    await emitter.usage(input_tokens=1, output_tokens=2, total_tokens=tokens, cost_usd=tokens)
    await emitter.message_complete("m", usage=events.Usage(input_tokens=tokens, output_tokens=1, total_tokens=1))
    await emitter.flush()
    log = await stored(redis)
    assert [name for name, _ in log] == ["usage", "usage", "message:complete"]
    assert all(isinstance(log[0][1][name], int) for name in ("inputTokens", "outputTokens", "totalTokens"))
    assert abs(log[0][1]["inputTokens"]) <= MAX_INTEGER


# --- cycles, depth, number -------------------------------------------------------------------------------------------


def friends(count: int) -> list[dict[str, Any]]:
    people: list[dict[str, Any]] = [{"name": str(number)} for number in range(count)]
    for person in people:
        person["friends"] = people
    return people


def doubled(levels: int) -> list[Any]:
    value: list[Any] = ["x"]
    for _ in range(levels):
        value = [value, value]
    return value


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("hooks", [(), (lambda event, _: event,)], ids=["plain", "hook"])
@pytest.mark.parametrize(
    "value", [friends(6), doubled(60), nested(500), ["y" * 10_000] * 10_000], ids=["cycle", "shared", "deep", "long"]
)
async def test_the_size_of_a_value_bounds_the_work(redis: Redis, redis_url: str, value: Any, hooks: Any) -> None:
    """What holds itself, is nested too deep or is too much is marked in its place, and other tasks are not held up."""
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url, hooks=hooks) as emitter:
        began = time.process_time()
        await emitter.tool_start("c", "t", {"small": 1, "value": value})
        await emitter.execution_complete(value)
        assert time.process_time() - began < 10
    (_, start), (_, end) = await stored(redis)
    assert start["params"]["small"] == 1
    assert '"clipped": true' in json.dumps(start["params"]["value"]) or "[clipped: " in json.dumps(start)
    assert '"clipped": true' in json.dumps(end["result"]) or "[clipped: " in json.dumps(end)


async def test_strictly_such_values_are_refused_at_once() -> None:
    """Without being encoded."""
    emitter = RecordingEmitter(strict=True)
    for value in (friends(6), doubled(60), nested(500)):
        with pytest.raises((InvalidEvent, PayloadTooLarge)):
            await emitter.partial_result(value)


# --- length ----------------------------------------------------------------------------------------------------------


async def test_what_is_too_long_is_cut_and_says_so(redis: Redis, emitter: AgentEmitter) -> None:
    """Texts end with an ellipsis, values with a mark; small fields beside them are whole."""
    await emitter.thinking("é" * 70_000)
    rows = [{"id": number, "text": "x" * 1000} for number in range(200)]
    await emitter.tool_complete("c", "search", {"rows": rows, "n": 200}, 1)
    await emitter.artifact("a", "text/plain", text="z" * 100_000, name="z.txt")
    await emitter.plan_created("g", [(str(number), "x" * 1000) for number in range(100)])
    await emitter.flush()
    thought, tool, artifact, plan = [data for _, data in await stored(redis)]
    assert thought["thought"].startswith("ééé")
    assert thought["thought"].endswith("… [clipped: 70000 characters]")
    assert (tool["callId"], tool["toolName"], tool["result"]["n"], tool["duration"]) == ("c", "search", 200, 1)
    assert [row["id"] for row in tool["result"]["rows"]] == list(range(200))
    assert tool["result"]["rows"][-1]["text"].endswith("… [clipped: 1000 characters]")
    assert (artifact["artifactId"], artifact["name"]) == ("a", "z.txt")
    assert len(artifact["text"]) > 50_000
    assert [phase["id"] for phase in plan["plan"]["phases"]] == [str(number) for number in range(100)]


async def test_streamed_text_is_never_cut(redis: Redis, emitter: AgentEmitter) -> None:
    """A chunk that is too long for one event is several, and the text of a message that was not streamed is said."""
    await emitter.message_delta("é" * 200_000, "m1")
    await emitter.message_complete("m1", text="é" * 200_000)
    await emitter.message_complete("m2", text="ü" * 200_000)
    await emitter.flush()
    log = await stored(redis)
    texts = {
        id_: "".join(d["delta"] for n, d in log if n == "message:delta" and d["messageId"] == id_)
        for id_ in ("m1", "m2")
    }
    assert texts == {"m1": "é" * 200_000, "m2": "ü" * 200_000}
    assert [data for name, data in log if name == "message:complete"] == [{"messageId": "m1"}, {"messageId": "m2"}]


async def test_the_recording_emitter_splits_text_as_the_real_one() -> None:
    """So that tests of agents see what people will read."""
    emitter = RecordingEmitter()
    await emitter.message_delta("é" * 200_000, "m1")
    await emitter.message_complete("m1", text="é" * 200_000)
    await emitter.message_complete("m2", text="ü" * 200_000)
    assert emitter.text_emitted == "é" * 200_000 + "ü" * 200_000
    assert [event.text for event in emitter.of("message:complete")] == [None, None]


async def test_the_end_of_a_message_is_mended_too(redis: Redis, emitter: AgentEmitter) -> None:
    """Its text may be of any kind."""
    recording = RecordingEmitter()
    for each in (emitter, recording):
        for said in ("half \ud83d", None, 5, AIMessage("x").text, ["a"]):
            await each.message_complete("m", text=said)  # type: ignore[arg-type]
        await each.flush()
    shown = ["half \ufffd", None, "5", "x", '["a"]']
    assert [data.get("text") for _, data in await stored(redis)] == shown
    assert [event.text for event in recording.of("message:complete")] == shown


class Hostile:
    """Raises at every question that is put to it."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("__class__", "__dict__"):
            return object.__getattribute__(self, name)
        raise RuntimeError(name)

    def __float__(self) -> float:
        raise RuntimeError("float")

    def __bool__(self) -> bool:
        raise RuntimeError("bool")

    def __repr__(self) -> str:
        raise RuntimeError("repr")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("eq")

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    "value", [Hostile(), np.array([1, 2]), {"a": Hostile()}], ids=lambda value: type(value).__name__
)
async def test_values_that_raise_are_no_reason_to_die(value: Any) -> None:
    """In fields of every kind."""
    emitter = RecordingEmitter()
    await emitter.thinking(value, iteration=value, visible=value)
    await emitter.progress(value)
    await emitter.timeout(value, value)
    await emitter.usage(input_tokens=value, output_tokens=value, cost_usd=value, add=value)
    await emitter.tool_start(value, value, value)
    await emitter.tool_complete(value, value, value, value)
    await emitter.plan_created(value, [value])
    await emitter.text(value)
    await emitter.execution_complete(value)
    assert emitter.ended


class Kind(str, enum.Enum):  # noqa: UP042 - as many agents have it
    """A subclass of text whose `format` is another text."""

    STEP = "step"


def nested(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


FOREIGN = [
    None, 5, True, b"\xff", "\ud83d", Kind.STEP, Real(0.5), pathlib.PurePath("/x"), Model(a=1), AIMessage("m"),
    np.array([1, 2]), {"a": 1}, ["a", "b"], {"a"}, nested(3_000), friends(3), object(), Hostile(),
]  # fmt: skip
MEANT = {"emit", "input_required", "input_received", "execution_superseded"}
ENDS = {"execution_complete", "execution_error", "execution_cancelled"}
METHODS = sorted(name for name in vars(EventMethods) if not name.startswith("_") and name not in MEANT)
NEEDED = {"progress": 1, "duration": 1.0, "phases": [("a", "b")], "params": {}, "data": {}}


def calls_of(name: str) -> list[tuple[str, dict[str, Any]]]:
    """Every argument of a method with every foreign value, the other arguments as they should be."""
    parameters = inspect.signature(getattr(EventMethods, name)).parameters
    needed = {each: NEEDED.get(each, "x") for each, of in parameters.items() if of.default is of.empty}
    del needed["self"]
    if name == "custom":
        needed["data"] = {"a": 1}
    free = [each for each in parameters if (name, each) != ("execution_started", "attempt") and each != "self"]
    return [(each, {**needed, each: value}) for each in free for value in FOREIGN]


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ENDS])
async def test_every_argument_of_every_method_is_mended(redis: Redis, emitter: AgentEmitter, name: str) -> None:
    """Whatever stands in it: the agent goes on, the log has an event that its readers understand, and a test of the
    agent shows the same."""
    recording = RecordingEmitter()
    for argument, given in calls_of(name):
        for each in (emitter, recording):
            try:
                await getattr(each, name)(**given)
            except Exception as error:
                raise AssertionError(f"{argument}={type(given[argument]).__name__} of {type(each).__name__}") from error
    await emitter.end_text()
    await emitter.flush()
    events_ = await stored(redis)
    for type_, data in events_:
        decode_event(type_, json.dumps(data).encode())
    assert len(events_) >= len(FOREIGN) - 1  # chunks that follow each other are one


@pytest.mark.parametrize("name", sorted(ENDS))
async def test_every_argument_of_every_end_is_mended(redis: Redis, redis_url: str, name: str) -> None:
    """An execution can end however its end is told."""
    async with Publisher(redis_url=redis_url) as publisher:
        for number, (argument, given) in enumerate(calls_of(name)):
            made = AgentEmitter("alice", f"ex_{number}", publisher=publisher)
            for each in (made, RecordingEmitter()):
                try:
                    await getattr(each, name)(**given)
                except Exception as error:
                    raise AssertionError(f"{argument}={type(given[argument]).__name__}") from error
                assert each.ended


@pytest.mark.parametrize("value", FOREIGN, ids=lambda value: type(value).__name__)
async def test_phases_and_calls_of_foreign_names(redis: Redis, emitter: AgentEmitter, value: Any) -> None:
    """Blocks have them too."""
    async with emitter.phase(value), emitter.phase("p", value, index=value), emitter.tool(value, value) as call:
        await call.progress(value, value)
        call.result = value
    await emitter.flush()
    found = await stored(redis)
    assert len(found) == 7
    for type_, data in found:
        decode_event(type_, json.dumps(data).encode())


async def test_lists_that_are_one_thing() -> None:
    """A text where several are expected is one of them, and not its letters."""
    emitter = RecordingEmitter()
    await emitter.plan_created("g", "research")
    await emitter.synthesis("m", specialists_complete="ada", specialists_pending=np.array(["bob"]))  # type: ignore[arg-type]
    [plan] = emitter.of("plan:created")
    assert [phase.id for phase in plan.plan.phases] == ["research"]
    [synthesis] = emitter.of("synthesis")
    assert (synthesis.specialists_complete, synthesis.specialists_pending) == (["ada"], ["bob"])


async def test_a_custom_event_is_named_by_its_text(redis: Redis, emitter: AgentEmitter) -> None:
    """Also where the name is a member of an enumeration, which is formatted as another text."""
    await emitter.custom(Kind.STEP, {"n": 1})
    await emitter.flush()
    assert await stored(redis) == [("custom:step", {"n": 1})]


async def test_a_hook_that_fails_on_a_half_keeps_no_end_away(redis: Redis, redis_url: str) -> None:
    """What waited is lost then, not the last word."""

    def hook(event: Event, _: Origin) -> Event:
        if isinstance(event, events.MessageDelta):
            raise ValueError
        return event

    recording = RecordingEmitter(hooks=[hook])
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url, hooks=[hook]) as emitter:
        for each in (emitter, recording):
            await each.text("\ud83d")
            await each.execution_complete(1)
    assert (await stored(redis))[-1][0] == "execution:complete"
    assert recording.ended


async def test_a_half_comes_after_what_was_said_before_it(redis: Redis, redis_url: str) -> None:
    """Also after text that waits because a credential may follow."""
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url) as emitter:
        await emitter.text("the key is ghp_a1a1")
        await emitter.text("\ud83d")
    assert said(await stored(redis)).endswith("a1\ufffd")


async def test_half_of_a_credential_is_not_shown_by_a_cut(redis: Redis, redis_url: str) -> None:
    """Text is redacted before it is cut: wherever the cut falls, no part of a key is stored."""
    key = "ghp_" + "a1" * 20
    async with (
        Publisher(redis_url=redis_url, limits=LogLimits(max_event_bytes=1024), redact_keys=()) as publisher,
        AgentEmitter("alice", "ex_1", publisher=publisher) as emitter,
    ):
        for length in range(700, 1000, 7):
            await emitter.thinking("x " * (length // 2) + key + " y" * 1000)
        await emitter.flush()
    log = await stored(redis)
    assert len(log) == len(range(700, 1000, 7))
    assert not any("ghp_" in data["thought"] for _, data in log)


async def test_a_link_that_is_too_long_is_none(redis: Redis, emitter: AgentEmitter) -> None:
    """A part of it would lead nowhere, or show half an image: how long it was is told in its place."""
    url = "data:image/png;base64," + "A" * 100_000
    await emitter.artifact("a", "image/png", url=url)
    await emitter.artifact("b", "image/png", url=url * 50, name="x")
    await emitter.flush()
    (_, one), (_, other) = await stored(redis)
    assert one == {"artifactId": "a", "mediaType": "image/png", "data": {"clipped": True, "bytes": len(url)}}
    assert (other["name"], other["data"]["clipped"], other.get("url")) == ("x", True, None)


# --- half an emoji ---------------------------------------------------------------------------------------------------


async def test_halves_of_an_emoji_become_one(redis: Redis, emitter: AgentEmitter) -> None:
    """In every streamed text, also where two are streamed at a time, or something else is said in between."""
    await emitter.text("a\ud83d")
    await emitter.thinking_delta("b\ud83d", "t")
    await emitter.status("between", "")
    await emitter.flush()
    await emitter.text("\ude00c")
    await emitter.thinking_delta("\ude01", "t")
    await emitter.execution_complete(1)
    log = await stored(redis)
    assert said(log) == "a😀c"
    assert said(log, "thinking:delta") == "b😁"


@pytest.mark.parametrize("end", ["end_text", "complete", "close"])
async def test_a_half_that_stays_alone_is_shown_as_one(redis: Redis, redis_url: str, end: str) -> None:
    """When the text goes on otherwise, and when it ends."""
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url) as emitter:
        await emitter.text("\ud83d")
        await emitter.text("x\ud83d")
        await emitter.text("\ude00\ude00y\ud83d")
        if end == "end_text":
            await emitter.end_text()
        if end == "complete":
            await emitter.execution_complete(1)
    log = await stored(redis)
    assert said(log) == "\ufffdx😀\ufffdy\ufffd"
    assert [name for name, _ in log if name != "message:delta"] == {
        "end_text": ["message:complete"], "complete": ["message:complete", "execution:complete"], "close": [],
    }[end]  # fmt: skip


async def test_halves_in_the_blocking_and_the_recording_emitter(redis: Redis, redis_url: str) -> None:
    """They do the same."""

    def agent() -> None:
        with SyncAgentEmitter("alice", "ex_1", redis_url=redis_url) as emitter:
            emitter.text("\ud83d")
            emitter.text("\ude00")
            emitter.thinking(np.float64(0.5))  # type: ignore[arg-type]
            emitter.execution_complete(Model(a=1))

    await asyncio.to_thread(agent)
    log = await stored(redis)
    recording = RecordingEmitter()
    await recording.text("\ud83d")
    await recording.text("\ude00")
    await recording.thinking(np.float64(0.5))  # type: ignore[arg-type]
    await recording.execution_complete(Model(a=1))
    assert said(log) == recording.text_emitted == "😀"
    assert [name for name, _ in log] == recording.types
    assert log[-1][1]["result"] == recording.of("execution:complete")[0].result == {"a": 1}


async def test_a_lone_half_is_its_speakers(redis: Redis, emitter: AgentEmitter) -> None:
    """Whether the message ends or the execution does. So are the pieces of a text that is too long for one event."""
    recording = RecordingEmitter()
    speaker = {"agent": "clerk", "parent_id": "c1"}
    for each in (emitter, recording):
        for message in ("a", "b"):
            await each.emit(events.MessageDelta(message_id=message, delta="x\ud83d"), **speaker)
        await each.emit(events.MessageComplete(message_id="a"), **speaker)
        await each.emit(events.MessageComplete(message_id="c", text="y " * 100_000), **speaker)
        await each.execution_complete()
    assert said(await stored(redis)) == recording.text_emitted == "xx\ufffd" + "y " * 100_000 + "\ufffd"
    heads = [json.loads(next(iter(fields.values()))) for _, fields in await redis.xrange(LOG)]
    assert {(head["agent"], head["parentId"]) for head in heads[:-1]} == {("clerk", "c1")}
    assert {(head.agent, head.parent_id) for head in recording.envelopes[:-1]} == {("clerk", "c1")}


# --- the last word ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    ["x" * 70_000, "file \udcff", None, 5, ValueError("no"), {"a": 1}, "\x00"],
    ids=lambda w: str(w)[:9].encode("ascii", "replace").decode(),
)
@pytest.mark.parametrize("end", ["error", "cancelled", "complete", "tool"])
async def test_the_last_word_can_always_be_said(redis: Redis, emitter: AgentEmitter, end: str, words: Any) -> None:
    """However an execution ends, what is said of it is cleaned and cut."""
    if end == "error":
        await emitter.execution_error(words, code=words, stack=words)
    elif end == "cancelled":
        await emitter.execution_cancelled(reason=words, by=words)
    elif end == "complete":
        await emitter.execution_complete(words, duration=words, tokens_used=words)
    else:
        await emitter.tool_error("c", "t", words, words)
        await emitter.flush()
    (name, data), *rest = await stored(redis)
    assert not rest
    assert name == {"tool": "tool:error"}.get(end, f"execution:{end}")
    if words == "x" * 70_000 and end == "error":
        assert data["error"].endswith("… [clipped: 70000 characters]")


@pytest.mark.parametrize(
    "result",
    [object(), {1: {2}, "x": len}, "x" * 200_000, "\udcff", float("nan"), friends(3)],
    ids=lambda r: type(r).__name__,
)
async def test_an_execution_completes_with_any_result(redis: Redis, emitter: AgentEmitter, result: Any) -> None:
    """After all its work, an agent does not fail for what it returns."""
    await emitter.execution_complete(result)
    assert emitter.ended
    assert [name for name, _ in await stored(redis)] == ["execution:complete"]


@pytest.mark.parametrize("limit", [1024, 4096])
async def test_the_last_word_fits_small_limits(redis: Redis, redis_url: str, limit: int) -> None:
    """Also beside envelope keys, and in letters of which each takes twelve bytes."""
    async with Publisher(redis_url=redis_url, limits=LogLimits(max_event_bytes=limit), redact_keys=()) as publisher:
        for number, text in enumerate(("😀" * 50_000, '"' * 50_000, "password: hunter2hunter2 " * 2000)):
            async with AgentEmitter(
                "alice", f"ex_{number}", publisher=publisher, agent="a" * 64, request_id="r" * 64
            ) as emitter:
                await emitter.execution_error(text, code=text)
                assert emitter.ended


async def test_a_hook_gets_what_the_catalogue_allows(redis: Redis, redis_url: str) -> None:
    """It is given mended events, whole emoji, and texts that are not cut yet; strictly, it is not asked."""
    seen: list[Event] = []

    def hook(event: Event, _: Origin) -> Event:
        seen.append(event)
        encode_data(event)
        return replace(event)

    async with AgentEmitter("alice", "ex_1", redis_url=redis_url, hooks=[hook]) as emitter:
        await emitter.text("\ud83d")
        await emitter.text("\ude00")
        await emitter.thinking(np.float64(0.5))  # type: ignore[arg-type]
        await emitter.thinking("x" * 70_000)
        await emitter.execution_complete({"a": float("nan")})
    kinds = [event.type for event in seen]
    assert kinds == ["message:delta", "thinking", "thinking", "execution:complete", "message:complete"]
    assert len(seen[2].thought) == 70_000  # type: ignore[attr-defined]
    assert [name for name, _ in await stored(redis)] == [*kinds[:3], "message:complete", "execution:complete"]


async def test_a_hook_that_makes_a_mess_still_fails(redis: Redis, redis_url: str) -> None:
    """Only what agents say is mended, not what hooks return: they fail closed."""

    def hook(event: Event, _: Origin) -> Event:
        return replace(event, message=5) if isinstance(event, events.Status) else event

    async with AgentEmitter("alice", "ex_1", redis_url=redis_url, hooks=[hook]) as emitter:
        with pytest.raises(HookFailed):
            await emitter.status("s", "m")


async def test_no_message_id_kills_the_outbox(redis: Redis, emitter: AgentEmitter) -> None:
    """Neither one of a wrong type nor one that fills an event."""
    for message_id in (Text("m"), 5, None, "x" * 100_000, "\ud83d", ["a"]):
        await emitter.message_delta("a", message_id)  # type: ignore[arg-type]
        await emitter.message_complete(message_id)  # type: ignore[arg-type]
    await emitter.execution_complete(1)
    assert (await stored(redis))[-1][0] == "execution:complete"


def test_a_question_is_never_mended() -> None:
    """Somebody would answer something else than was asked."""
    question = InputRequired(input_id="q", prompt="x\ud83d", kind="text")
    assert not mending.may_mend(question)


# --- what counts tokens is no secret ---------------------------------------------------------------------------------


async def test_counts_of_tokens_and_policies_are_shown() -> None:
    """Of a LangChain message as it stands in a graph's output, and of what else has such names."""
    usage = {"completion_tokens": 7, "prompt_tokens": 5, "details": {"reasoning": 3}}
    message = AIMessage("x", response_metadata={"token_usage": usage, "model_name": "m"})
    told = {"token_count": "7", "nextPageToken": "b", "password_policy": "at least 12", "cookie_policy": "strict"}
    emitter = RecordingEmitter()
    await emitter.execution_complete({"messages": [message], **told})
    [complete] = emitter.of("execution:complete")
    assert complete.result["messages"][0]["response_metadata"]["token_usage"] == usage
    assert {name: complete.result[name] for name in told} == told
