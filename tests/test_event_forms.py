"""A type of the catalogue has a form wherever events are shown, or stands in `GENERIC` with what is shown instead.

`Hologram` below is a type that nobody has heard of: it shows what a new type gets without a form of its own.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from broker.cli import lines, transcript
from broker.cli.eventsource import ClientEvent
from broker.executions import fold
from broker.protocols.a2a import projection, texts
from broker.protocols.a2a.renderer import TaskStream
from broker.protocols.a2a.v10 import V10
from broker.protocols.ag_ui import renderer as ag_ui
from broker.protocols.ai_sdk import renderer as ai_sdk
from emitter import events
from emitter.events import CATALOGUE, Event
from emitter.publishing.event_methods import EventMethods
from emitter.wire import envelope, redact
from emitter.wire.entries import Entry
from tests.web.browser import NODE

ROOT = Path(__file__).parents[1]
CONSOLE = ROOT / "broker" / "web" / "console"
HERE = "tests/test_event_forms.py"
_HANDLER = re.compile(r'^ +"?([a-z]+(?::[a-z_:]+)?)"?(?:\(event, data\) \{|: \(fold, seq, data\) =>)', re.MULTILINE)


def types_of(table: Iterable[type[Event]]) -> set[str]:
    return {kind.type for kind in table}


def handlers_in(script: str) -> set[str]:
    """The event types that have a handler in a module of the client or the console."""
    return set(_HANDLER.findall((ROOT / script).read_text()))


def names_in(script: str, name: str) -> set[str]:
    """The strings of a constant of such a module."""
    match = re.search(rf"const {name} = [^(]*\(([\[{{].*?[\]}}])\)", (ROOT / script).read_text(), re.DOTALL)
    assert match is not None, f"{script} has no {name}"
    return set(re.findall(r'"([a-z:_]+)"', match[1]))


def recorded() -> set[str]:
    logs = [ROOT / "tests" / "golden" / f"{name}.jsonl" for name in ("every_event", "failed", "cancelled")]
    types = {json.loads(line)["event"]["type"] for log in logs for line in log.read_text().splitlines()}
    return {type_ for type_ in types if not type_.startswith("custom:")}


def declared() -> set[str]:
    text = (ROOT / "broker" / "web" / "client" / "events.d.ts").read_text()
    return set(re.findall(r'^  type: "([^"]+)";$', text, re.MULTILINE))


def is_free(kind: msgspec.inspect.Type) -> bool:
    """Whether a value of this type has keys that the catalogue does not know."""
    inside: Sequence[msgspec.inspect.Type] = ()
    match kind:
        case msgspec.inspect.AnyType() | msgspec.inspect.DictType():
            return True
        case msgspec.inspect.UnionType(types=types):
            inside = types
        case msgspec.inspect.ListType(item_type=item):
            inside = (item,)
        case msgspec.inspect.StructType(fields=fields):
            inside = [field.type for field in fields]
    return any(is_free(each) for each in inside)


def looked_through(catalogue: Sequence[type[Event]]) -> set[str]:
    """Types all of whose free fields redaction knows; most have none."""
    found = set()
    for kind in catalogue:
        info = msgspec.inspect.type_info(kind)
        assert isinstance(info, msgspec.inspect.StructType)
        free = {field.encode_name for field in info.fields if is_free(field.type)}
        if free <= set(redact._FREE_FIELDS.get(kind.type, ())):
            found.add(kind.type)
    return found


class Place(NamedTuple):
    """Where a type may have a form. `forms` are the types that have one, of a catalogue."""

    file: str
    add: str
    forms: Callable[[Sequence[type[Event]]], set[str]]


TERMINAL = set(events.TERMINAL_STATE_OF)
PLACES = {
    "event methods": Place(
        "emitter/publishing/event_methods.py",
        "a method (`a_b` for type `a:b`)",
        lambda catalogue: {kind.type for kind in catalogue if hasattr(EventMethods, kind.type.replace(":", "_"))},
    ),
    "redaction": Place(
        "emitter/wire/redact/__init__.py", "its fields of type Any or dict to _FREE_FIELDS", looked_through
    ),
    "state": Place("broker/executions/fold.py", "a handler", lambda _: types_of(fold._HANDLERS) | TERMINAL),
    "client fold": Place(
        "broker/web/client/fold.js",
        "a handler",
        lambda _: handlers_in("broker/web/client/fold.js") | TERMINAL,
    ),
    "terminal": Place(
        "broker/cli/lines.py or transcript.py",
        "a line",
        lambda _: types_of(lines.LINES) | types_of(transcript._HANDLERS),
    ),
    "AI SDK": Place("broker/protocols/ai_sdk/renderer.py", "a handler", lambda _: types_of(ai_sdk._HANDLERS)),
    "AG-UI": Place("broker/protocols/ag_ui/renderer.py", "a handler", lambda _: types_of(ag_ui._HANDLERS)),
    "A2A": Place(
        "broker/protocols/a2a/texts.py or projection.py",
        "a text, or a teller",
        lambda _: types_of(texts._SAID) | types_of(projection._HANDLERS),
    ),
    "console": Place(
        "broker/web/console/event-handlers.js",
        "a handler, and a row in rows.js if none fits",
        lambda _: handlers_in("broker/web/console/event-handlers.js"),
    ),
    "declarations": Place(
        "broker/web/client/events.d.ts", "it with `runcast openapi --typescript`", lambda _: declared()
    ),
    "golden logs": Place("tests/golden/every_event.jsonl", "an event of the type", lambda _: recorded()),
}

MOMENT = "it only moves the cursor: nothing of it lasts"
OF_PEOPLE = ("user:message", "user:message:taken", "user:message:dropped")
PART = "a data part of its own, named after the type"
GENERIC: dict[str, dict[str, str]] = {
    "event methods": {
        "execution:queued": "the edge writes it",
        "budget": "who keeps the budget writes it",
        "user:message": "the edge writes it",
        "user:message:taken": "a call that takes messages writes it",
        "user:message:dropped": "the edge writes it, or the script that ends the execution",
        "child:started": "`context.start` writes it",
        "child:ended": "the process that ends the child writes it",
    },
    "redaction": {"input:required": "a JSON Schema has its own rules (clean_schema)"},
    "state": dict.fromkeys(("timeout", "sandbox:violation", "model:call"), MOMENT),
    "client fold": dict.fromkeys(("timeout", "sandbox:violation", "model:call"), MOMENT),
    "terminal": {},
    "AI SDK": dict.fromkeys(("partial:result", "timeout", "budget", "sandbox:violation", *OF_PEOPLE), PART),
    "AG-UI": {
        "artifact": "CUSTOM: the protocol has no word for it",
        "model:call": "CUSTOM: the protocol has no word for it",
        "timeout": "CUSTOM: the protocol has no word for it",
        "budget": "CUSTOM: the protocol has no word for it",
        "sandbox:violation": "CUSTOM: the protocol has no word for it",
        "input:received": "CUSTOM: the state shows that the question is closed",
        **dict.fromkeys(OF_PEOPLE, "CUSTOM: the protocol has no word for it"),
        "child:started": "CUSTOM: the protocol has no word for it",
        "child:ended": "CUSTOM: the protocol has no word for it",
    },
    "A2A": {},
    "console": {"usage": "not in the story: the overview shows the totals"},
    "declarations": {},
    "golden logs": {},
}
"""Place → type → what is shown there instead of a form of its own, and why that is enough."""


def missing(catalogue: Sequence[type[Event]]) -> list[str]:
    """What to do for each type that has no form in a place, in a sentence that names the file."""
    return [
        f"{kind.type} has no form in {name}: add {place.add} to {place.file}, "
        f"or say in GENERIC[{name!r}] of {HERE} what it gets instead"
        for name, place in PLACES.items()
        for kind in catalogue
        if kind.type not in place.forms(catalogue) | set(GENERIC[name])
    ]


class Hologram(Event, frozen=True):
    """A type that no module knows. Its data has keys that an agent chooses."""

    type = "holo:gram"
    image: dict[str, Any]


def test_every_type_has_a_form_in_every_place() -> None:
    """Or stands in `GENERIC`, with the reason."""
    assert missing(CATALOGUE) == []


def test_a_reason_stands_only_where_a_form_is_missing() -> None:
    """A type that has a form in a place needs no reason there, and no reason is for a type that does not exist."""
    assert set(GENERIC) == set(PLACES)
    for name, place in PLACES.items():
        assert set(GENERIC[name]) <= set(events.BY_TYPE) - place.forms(CATALOGUE), name


def test_no_place_has_a_form_for_what_is_not_in_the_catalogue() -> None:
    """What is left of a type that was removed is found, and so is a misspelled name."""
    for name, place in PLACES.items():
        assert place.forms(CATALOGUE) <= {*events.BY_TYPE, "custom"}, name


def test_the_client_s_fold_knows_the_types_without_an_effect() -> None:
    """So that the first event of a log begins the execution, whatever it is."""
    assert names_in("broker/web/client/fold.js", "WITHOUT_EFFECT") == set(GENERIC["client fold"])
    assert names_in("broker/web/console/event-handlers.js", "NOT_IN_STORY") == set(GENERIC["console"])


def test_a_new_type_is_missed_in_every_place() -> None:
    """A made-up type in the catalogue is reported once for each place, with files that exist."""
    found = missing([*CATALOGUE, Hologram])
    assert len(found) == len(PLACES)
    for message, place in zip(found, PLACES.values(), strict=True):
        assert message.startswith(f"{Hologram.type} has no form in ")
        assert place.file in message
        assert (ROOT / place.file.partition(" or ")[0]).is_file()


# --- what a type without a form of its own gets ----------------------------------------------------------------------

EXECUTION = "ex_1"
IMAGE = {"points": [1, 2]}


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[Entry]:
    """A log with a hologram in its middle, in an edge that has it in its catalogue."""
    monkeypatch.setitem(events.BY_TYPE, Hologram.type, Hologram)
    monkeypatch.setitem(envelope._decoders, Hologram.type, msgspec.json.Decoder(Hologram))
    started = events.ExecutionStarted(task="t", started_at=1, attempt=1)
    told = (started, Hologram(image=IMAGE), events.ExecutionComplete(result=None, duration=1))
    entries = []
    for seq, event in enumerate(told, 1):
        json_ = envelope.envelope(event.type, EXECUTION, envelope.encode_data(event), ts=seq, max_bytes=0)
        entries.append(Entry(1_000 + seq, seq, event.type.encode(), json_))
    return entries


def test_ai_sdk_clients_get_a_data_part(log: list[Entry]) -> None:
    """Named after the type."""
    shown = ai_sdk.Renderer(EXECUTION).render(log)
    assert b'data: {"type":"data-holo-gram","id":"1002-2","data":{"image":{"points":[1,2]}}}\n\n' in shown


def test_ag_ui_clients_get_a_custom_event(log: list[Entry]) -> None:
    """With the type as its name."""
    shown = ag_ui.Renderer(ag_ui.View(execution_id=EXECUTION, thread_id="t", run_id="r")).render(log)
    frames = [json.loads(line[6:]) for line in shown.decode().splitlines() if line.startswith("data: ")]
    (custom,) = [frame for frame in frames if frame["type"] == "CUSTOM"]
    assert (custom["name"], custom["value"]) == (Hologram.type, {"image": IMAGE})


def test_a2a_clients_get_a_message(log: list[Entry]) -> None:
    """With the type as its text, and the event as its data."""
    story = projection.TaskProjection(projection.Opening(EXECUTION, "c"))
    shown = TaskStream(story, V10(), is_followed=True).render(log).decode()
    frames = [json.loads(line[6:]) for line in shown.splitlines() if line.startswith("data: ")]
    messages = [frame.get("statusUpdate", {}).get("status", {}).get("message") for frame in frames]
    (parts,) = [message["parts"] for message in messages if message]
    assert parts[0]["text"] == Hologram.type
    assert parts[1]["data"] == {"type": Hologram.type, "data": {"image": IMAGE}}


def test_the_terminal_prints_type_and_data(log: list[Entry]) -> None:
    """As for an event that it does not know."""
    event = ClientEvent(Hologram.type, {"image": IMAGE}, log[1].id, EXECUTION, 2)
    assert [str(line) for line in transcript.Transcript().apply(event)] == ['  holo:gram image={"points":[1,2]}']


def test_the_state_stays(log: list[Entry]) -> None:
    """But for the cursor."""
    before, after = fold.fold(log[:1]), fold.fold(log[:2])
    assert after == msgspec.structs.replace(before, cursor="1002-2")


@pytest.mark.skipif(NODE is None, reason="needs node")
async def test_the_consoles_story_has_an_item() -> None:
    """With the type and the data, as a plug-in's event has; totals are not in the story."""
    script = f"""
        import {{ Story }} from {json.dumps((CONSOLE / "story.js").as_uri())};
        const story = new Story();
        story.apply({{ id: "1-1", ts: 1, type: "holo:gram", data: {{ points: 2 }} }});
        story.apply({{ id: "2-2", ts: 2, type: "custom:mood", data: {{ is: "good" }} }});
        story.apply({{ id: "3-3", ts: 3, type: "usage", data: {{}} }});
        console.log(JSON.stringify(story.items.map(({{ kind, name, value }}) => [kind, name, value])));
    """
    assert NODE is not None
    process = await asyncio.create_subprocess_exec(
        NODE, "--input-type=module", "-e", script, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(30):
        printed, _ = await process.communicate()
    assert json.loads(printed) == [["custom", "holo:gram", {"points": 2}], ["custom", "mood", {"is": "good"}]]
