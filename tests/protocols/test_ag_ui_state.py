"""The state of an AG-UI run: what is said of an event is what it changed, and comes to the state as it is."""

from __future__ import annotations

import json
from typing import Any

import jsonpatch
import msgspec
import pytest

from broker.executions import state as folded
from broker.protocols.ag_ui import state as board
from broker.protocols.ag_ui.frames import Place
from broker.protocols.ag_ui.renderer import Known, Renderer, View
from broker.protocols.ag_ui.state import FOLDED, Board
from emitter import events
from emitter.events import (
    ExecutionStarted,
    ExecutionSuperseded,
    InputReceived,
    InputRequired,
    PhaseComplete,
    PhaseStart,
    SpecialistActivated,
    SpecialistComplete,
)
from emitter.wire import envelope
from emitter.wire.entries import Entry
from tests.edges import SseReader
from tests.protocols.made_up import EXECUTION, MadeUp

STARTED = ExecutionStarted(task="t", started_at=1, attempt=1)
Json = dict[str, Any]


def entries(*told: events.Event, first: int = 1) -> list[Entry]:
    found = []
    for seq, event in enumerate(told, first):
        name = envelope.event_type(event)
        found.append(
            Entry(seq, seq, name.encode(), envelope.envelope(name, EXECUTION, envelope.encode_data(event), ts=seq))
        )
    return found


def state_of(log: list[Entry]) -> Json:
    """The state that a board has that takes this log and only then is looked at."""
    made = Board(EXECUTION)
    for entry in log:
        made.apply(entry.id, *envelope.decode_envelope(entry.json))
    return plain(made.snapshot())


def plain(value: Any) -> Any:
    return json.loads(msgspec.json.encode(value))


class Watcher:
    """A client that has the state and the plan only by what it is sent."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self.state: Any = None
        self.plan: Any = None
        self.patched: list[Json] = []
        self.bytes = 0

    def take(self, entry: Entry) -> None:
        self.patched = []
        data = self._renderer.render([entry])
        self.bytes += len(data)
        for frame in SseReader().feed(data):
            self._hear(json.loads(frame.data or ""))

    def _hear(self, event: Json) -> None:
        match event["type"]:
            case "STATE_SNAPSHOT":
                self.state = event["snapshot"]
            case "STATE_DELTA":
                self.patched += event["delta"]
                self.state = jsonpatch.apply_patch(self.state, event["delta"])
            case "ACTIVITY_SNAPSHOT" if event["messageId"].endswith(":plan"):
                self.plan = event["content"] or None
            case "ACTIVITY_DELTA":
                self.plan = jsonpatch.apply_patch(self.plan, event["patch"])


def watcher(*, after: Place | None = None, known: Known | None = None) -> Watcher:
    known = known or Known()
    return Watcher(Renderer(View(execution_id=EXECUTION, thread_id="t", run_id="r", after=after, known=known)))


# --- patches come to the state ---------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that are met often."""
    monkeypatch.setattr(folded, "MAX_OTHERS", 4)
    monkeypatch.setattr(board, "MAX_BOARD_BYTES", 12_000)


def changes(seed: int) -> list[Entry]:
    """Events that change the state, more often than others those of its lists."""
    dice = MadeUp(seed, ids=7)
    kinds: list[type[events.Event]] = [each for each in FOLDED if each.type not in events.TERMINAL_STATE_OF]
    kinds += [PhaseStart, PhaseComplete, SpecialistActivated, SpecialistComplete, InputRequired, InputReceived] * 4
    log = [dice.entry(seq, dice.choice(kinds)) for seq in range(1, dice.randint(20, 90))]
    return [*log, dice.entry(len(log) + 1, dice.choice([events.ExecutionError, events.ExecutionComplete]))]


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("is_small", [False, True], ids=["usual bounds", "small bounds"])
def test_patches_come_to_the_state(seed: int, is_small: bool, request: pytest.FixtureRequest) -> None:
    """After every event of any log the patches have made of the first snapshot what a snapshot is now, whatever was
    forgotten, given up, taken back or answered meanwhile."""
    if is_small:
        request.getfixturevalue("small")
    made, taken, state = Board(EXECUTION), list[Entry](), None
    for entry in changes(seed):
        taken.append(entry)
        made.apply(entry.id, *envelope.decode_envelope(entry.json))
        if state is None:
            state = plain({"execution": made.snapshot()})
        else:
            state = jsonpatch.apply_patch(state, plain(made.patch()))
        assert state["execution"] == state_of(taken), entry


@pytest.mark.parametrize("seed", range(15))
def test_a_client_has_state_and_plan(seed: int, small: None) -> None:
    """A client that is sent the frames, from the beginning or from any place on, has the state and the plan."""
    log = changes(seed)
    known = Known(seq=len(log), open=frozenset())  # no question ends the run
    clients = [watcher(known=known)]
    dice = MadeUp(seed)
    for number, entry in enumerate(log):
        if dice.random() < 0.1:
            after = dice.choice([f"{entry.id}", f"{entry.id}.1", f"{entry.id}.2", f"{entry.id}.3"])
            late = watcher(after=Place.parse(after), known=known)
            for earlier in log[:number]:
                late.take(earlier)
            clients.append(late)
        for client in clients:
            client.take(entry)
        state = state_of(log[: number + 1])
        for client in clients:
            if client.state is None:
                continue
            assert client.state["execution"] == state
            if entry.type in (b"plan:created", b"phase:start", b"phase:complete") and state["plan"] is not None:
                assert client.plan == {"goal": state["plan"]["goal"], "phases": state["phases"]}


def test_a_long_lost_attempt() -> None:
    """Of an attempt that is not shown nothing piles up: the state comes as a whole after it, with the client's own."""
    view = View(execution_id=EXECUTION, thread_id="t", run_id="r", known=Known(seq=10**6, attempt=2))
    renderer = Renderer(view, shared={"mine": 1})
    client = Watcher(renderer)
    lost = [PhaseStart(phase_id=f"p{number}", phase_name="n") for number in range(1_000)]
    queued = events.ExecutionQueued(task="t", agent="a")
    again = ExecutionStarted(task="t", started_at=2, attempt=2)
    log = entries(queued, STARTED, *lost, ExecutionSuperseded(from_seq=2, attempt=2), again, lost[0], lost[1])
    for entry in log:
        client.take(entry)
        assert renderer._board.changes <= 51
    assert client.state == {"mine": 1, "execution": state_of(log)}
