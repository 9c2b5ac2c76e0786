"""Viewers of one log in one protocol share a renderer where theirs would render the same: what each of them gets is, to
the byte, what it would get alone."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from broker.executions.fold import Fold
from broker.live.rendering import MAX_MET, RenderedView, Rendering
from broker.live.topic import EVENTS_AT_ONCE, Topic
from broker.live.topic import MANY as MANY_SHARERS
from broker.live.view import StreamView
from broker.live.viewer import Viewer, ViewerState
from broker.protocols.a2a.codec import Codec
from broker.protocols.a2a.projection import MAX_SHOWN_BYTES, TaskProjection
from broker.protocols.a2a.renderer import PLAIN, SettledTask, TaskStream, Wrap, rpc_result
from broker.protocols.a2a.simple import Simple
from broker.protocols.a2a.task_view import Opening
from broker.protocols.a2a.v03 import V03
from broker.protocols.a2a.v03_rest import V03Rest
from broker.protocols.a2a.v10 import V10
from broker.protocols.ag_ui.frames import Place
from broker.protocols.ag_ui.renderer import Known, View
from broker.protocols.ag_ui.renderer import Renderer as AgUi
from broker.protocols.ag_ui.requests import Message
from broker.protocols.ai_sdk.approvals import ALL_ANSWERED, Approvals
from broker.protocols.ai_sdk.chunk_items import ChunkItems, Chunks
from broker.protocols.ai_sdk.counted import Counted as AiSdkCounted
from broker.protocols.ai_sdk.counted import Place as Count
from broker.protocols.ai_sdk.renderer import Renderer as AiSdk
from broker.protocols.durable_streams.renderer import Renderer as DurableStreams
from emitter import events
from emitter.wire import envelope
from emitter.wire.entries import Entry
from emitter.wire.ids import START
from tests.broker.executions.test_state import recorded
from tests.broker.live.viewers import viewer_of, written
from tests.protocols.made_up import EXECUTION, MadeUp

STARTED = events.ExecutionStarted(task="t", started_at=1, attempt=1)
OPENING = Opening(EXECUTION, "c")
Make = Callable[[], Rendering]

LOGS = {
    **{name: recorded(f"{name}.jsonl") for name in ("every_event", "cancelled", "failed")},
    **{f"made up {seed}": MadeUp(seed, ids=3 + seed).log(60) for seed in range(3)},
}
CODECS: dict[str, Codec] = {"0.3": V03(), "1.0": V10(), "0.3 rest": V03Rest(), "simple": Simple()}


def entries(*told: events.Event, first: int = 1) -> list[Entry]:
    found = []
    for seq, event in enumerate(told, first):
        type_ = envelope.event_type(event)
        json_ = envelope.envelope(type_, EXECUTION, envelope.encode_data(event), ts=seq, max_bytes=0)
        found.append(Entry(1_000 + seq, seq, type_.encode(), json_))
    return found


# --- the ways in which viewers come ----------------------------------------------------------------------------------


def known_at(log: Sequence[Entry], place: int) -> Known:
    fold = Fold(EXECUTION)
    for entry in log[:place]:
        fold.apply_entry(entry)
    return Known(place, fold.attempt, frozenset(each.input_id for each in fold.open_inputs()))


def ai_sdk(log: Sequence[Entry]) -> Iterator[Make]:
    for attempt in (1, 1, known_at(log, len(log)).attempt):
        yield lambda attempt=attempt: AiSdk(EXECUTION, attempt)
    for approvals in (Approvals(), Approvals(len(log) // 2), ALL_ANSWERED):
        yield lambda approvals=approvals: AiSdk(EXECUTION, approvals=approvals)
        for start in (0, 3, 50):
            yield lambda approvals=approvals, start=start: AiSdkCounted(EXECUTION, Count(start, 9), approvals)


def chunks(_: Sequence[Entry]) -> Iterator[Make]:
    for approvals in (None, Approvals(), ALL_ANSWERED):
        for start in (0, 0, 3, 50):
            yield lambda approvals=approvals, start=start: DurableStreams(
                ChunkItems(Chunks(EXECUTION, approvals=approvals), start), clock=lambda: 2e9
            )


def ag_ui(log: Sequence[Entry]) -> Iterator[Make]:
    for place in range(0, len(log), 3):
        known = known_at(log, place)
        yield lambda known=known: AgUi(view(known=known), shared={"theirs": 1})
        yield lambda known=known: AgUi(view(known=known), [Message(id="u", role="user", content="t")])
        for after in (Place(log[place].id), Place(log[place].id, 1), Place(log[place].id, 2)):
            yield lambda known=known, after=after: AgUi(view(known=known, after=after))
            yield lambda known=known, after=after: AgUi(view(known=known, after=after, is_resumed=True))


def view(**asked: Any) -> View:
    return View(execution_id=EXECUTION, thread_id="t", run_id="r", **asked)


def a2a(version: str, *, is_followed: bool) -> Callable[[Sequence[Entry]], Iterator[Make]]:
    def ways(log: Sequence[Entry]) -> Iterator[Make]:
        for place in range(0, len(log), 3):
            yield lambda place=place: task_at(log, place, version, is_followed=is_followed)

    return ways


def task_at(
    log: Sequence[Entry], place: int, version: str = "1.0", wrap: Wrap = PLAIN, *, is_followed: bool = True
) -> TaskStream:
    projection = TaskProjection(OPENING)
    for entry in log[:place]:
        projection.take(entry)
    return TaskStream(projection, CODECS[version], wrap, answered=projection.answered, is_followed=is_followed)


WAYS: dict[str, Callable[[Sequence[Entry]], Iterator[Make]]] = {
    "ai_sdk": ai_sdk,
    "durable_streams chunks": chunks,
    "ag_ui": ag_ui,
    **{f"a2a {version}": a2a(version, is_followed=True) for version in CODECS},
    "a2a up to a question": a2a("1.0", is_followed=False),
}
EVERY_WAY = pytest.mark.parametrize("way", WAYS)
EVERY_LOG = pytest.mark.parametrize("name", LOGS)


# --- what a renderer says of itself ----------------------------------------------------------------------------------


@EVERY_LOG
@EVERY_WAY
def test_renderers_with_equal_keys_go_on_alike(way: str, name: str) -> None:
    """Whenever and however their viewers came, those that say that they are in the same state render the same from
    there to the end."""
    log = LOGS[name]
    alike: dict[Any, set[bytes]] = defaultdict(set)
    met = 0
    for first in (0, 2):  # of a log that was trimmed too
        for make in WAYS[way](log):
            renderer = make()
            renderer.open()
            keys, shown = [], []
            for entry in log[first:]:
                shown.append(b"" if renderer.is_over else renderer.render([entry]))
                keys.append(None if renderer.is_over else renderer.state_key)
            for number, key in enumerate(keys):
                if key is not None:
                    met += key in alike
                    alike[key].add(b"".join(shown[number + 1 :]))
    assert all(len(found) == 1 for found in alike.values())
    assert met, "they never meet"


@EVERY_LOG
@EVERY_WAY
def test_a_fork_goes_on_alone(way: str, name: str) -> None:
    """At every place a fork renders the rest as its original does, whichever of them goes first; neither sees what the
    other takes."""
    log = LOGS[name]
    for make in itertools.islice(WAYS[way](log), 0, None, 7):
        renderer = make()
        shown = [renderer.open(), *(renderer.render([entry]) for entry in log)]
        renderer = make()
        renderer.open()
        for number, entry in enumerate(log):
            if number % 4 == 0 and not renderer.is_over and renderer.state_key is not None:
                fork, spoiled = renderer.fork(), renderer.fork()
                assert fork.state_key == renderer.state_key
                spoiled.render(log[number:])
                assert [b"" if fork.is_over else fork.render([each]) for each in log[number:]] == shown[number + 1 :]
                assert fork.is_over or not log[-1].type.startswith(b"execution:")
            assert (b"" if renderer.is_over else renderer.render([entry])) == shown[number + 1]


def test_a_state_that_was_cut_is_shared_with_who_cut_it_there() -> None:
    """How much is kept of a large task depends on where its viewer came. Those who came at one place still share."""
    text = "x" * (MAX_SHOWN_BYTES // 4)
    log = entries(STARTED, *(events.MessageDelta(message_id=f"m{number}", delta=text) for number in range(8)))
    early, late, beside = task_at(log, 1), task_at(log, 7), task_at(log, 7)
    for stream in (early, late, beside):
        stream.open()
        stream.render(log)
    assert late.state_key == beside.state_key != early.state_key


def test_a_task_that_is_awaited_is_shared_with_nobody() -> None:
    assert SettledTask(TaskProjection(OPENING), lambda _: b"{}").state_key is None
    assert TaskStream(TaskProjection(OPENING), V10()).state_key is None, "it has not shown its task"


# --- together --------------------------------------------------------------------------------------------------------


class Counted:
    """A rendering that notes the ordinals it renders, with those of its forks."""

    def __init__(self, rendering: Rendering, told: list[int]) -> None:
        self.rendering = rendering
        self.told = told

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rendering, name)

    def render(self, entries_: Sequence[Entry]) -> bytes:
        self.told += [entry.seq for entry in entries_]
        return self.rendering.render(entries_)

    def fork(self) -> Counted:
        return Counted(self.rendering.fork(), self.told)


class Stage:
    """A topic and its viewers, as `LogSource` treats them."""

    def __init__(self, log: Sequence[Entry]) -> None:
        self.log = log
        self.topic: Topic[Viewer] = Topic("log", is_execution=True)
        self.topic.set_baseline(START, [])
        self.viewers: list[Viewer] = []

    def come(self, rendering: Rendering, *, room: int = 1 << 30) -> Viewer:
        view_ = RenderedView(rendering, chunked=False)
        viewer = viewer_of(self.topic, view_, room=room)
        self.viewers.append(viewer)
        viewer.write(view_.open())
        self.catch_up(viewer)
        return viewer

    def catch_up(self, viewer: Viewer) -> None:
        """Replay, one by one, and become live."""
        for entry in self.log[viewer.cursor.seq : self.topic.last.seq if self.topic.last else 0]:
            viewer.write(viewer.view.render((entry,)))
            viewer.advance(entry.id, 1)
        if viewer.view.is_over:
            viewer.close()
        else:
            viewer.go_live()

    def tell(self, count: int, is_late: Callable[[], bool] | None = None) -> None:
        """Deliver so many more of the log, and see to those who need attention."""
        topic = self.topic
        first = topic.last.seq if topic.last else 0
        fresh = topic.accept(self.log[first : first + count])
        assert fresh is not None
        topic.deliver(fresh, is_late)
        behind, lagging, over = topic.behind, topic.lagging, topic.over
        topic.behind, topic.lagging, topic.over = [], [], []
        assert not topic.failed
        for viewer in behind:
            assert topic.before is not None
            viewer.fall_behind(topic.before)
        for viewer in lagging:
            if viewer.state is ViewerState.LIVE:
                viewer.fall_behind(viewer.position)
        for viewer in over:
            if viewer.state is ViewerState.LIVE:
                viewer.close()

    def drain(self) -> None:
        """Whoever lags has room again."""
        for viewer in self.viewers:
            written(viewer).unsent = 0
            viewer.paused = False
            if viewer.state is ViewerState.REPLAYING:
                self.catch_up(viewer)


@EVERY_LOG
@EVERY_WAY
def test_each_gets_what_it_would_get_alone(way: str, name: str) -> None:
    """Whenever they come, fall behind and come back, viewers that share get their bytes, each once and in order."""
    log, dice = LOGS[name], random.Random(f"{way} {name}")
    makes = list(WAYS[way](log))
    stage, came = Stage(log), list[tuple[Viewer, Make]]()
    while stage.topic.last is None or stage.topic.last.seq < len(log):
        for make in dice.sample(makes, min(3, len(makes))):
            came.append((stage.come(make(), room=dice.choice([1 << 30, 1 << 30, 500])), make))
        stage.tell(dice.choice([1, 1, 2, 3, EVENTS_AT_ONCE + 1]), lambda: dice.random() < 0.1)
        if dice.random() < 0.5:
            stage.drain()
    stage.drain()
    assert came
    for viewer, make in came:
        alone = RenderedView(make(), chunked=False)
        assert written(viewer).data == alone.open() + b"".join(alone.render((entry,)) for entry in log)
    assert not stage.topic.groups
    assert not stage.topic.shared


def run_of(count: int) -> list[Entry]:
    """A run that has begun, and then says much."""
    told = [events.MessageDelta(message_id=f"m{number // 20}", delta="word ") for number in range(count)]
    return entries(STARTED, *told)


MANY = 100
SAME: dict[str, Callable[[int], Rendering]] = {
    "ai_sdk": lambda _: AiSdk(EXECUTION),
    "ag_ui": lambda _: AgUi(view()),
    "a2a 1.0": lambda _: TaskStream(TaskProjection(OPENING), V10()),
    "a2a 0.3, with ids of their own": lambda number: TaskStream(TaskProjection(OPENING), V03(), rpc_result(number)),
}
EACH = pytest.mark.parametrize("name", SAME)


@EACH
def test_an_event_is_rendered_once_for_all(name: str) -> None:
    """A hundred viewers of one log in one protocol cost one rendering of each event, and of all that comes at once."""
    log, told = run_of(400), list[int]()
    stage = Stage(log)
    stage.tell(1)
    for number in range(MANY):
        stage.come(Counted(SAME[name](number), told))  # type: ignore[arg-type]  # it has all that its rendering has
    told.clear()
    for count in (*[1] * 50, EVENTS_AT_ONCE + 10, 100):
        stage.tell(count)
    assert told == list(range(2, 2 + 50 + EVENTS_AT_ONCE + 10 + 100))
    assert len({written(viewer).data.count(b"data: ") for viewer in stage.viewers}) == 1
    assert len(stage.topic.shared) == 1


@EACH
def test_who_comes_later_joins_in(name: str) -> None:
    """Who was shown the beginning on its own shares what follows, and so does who fell behind."""
    log, told = run_of(100), list[int]()
    stage = Stage(log)
    for number in range(40):
        stage.tell(1)
        stage.come(Counted(SAME[name](number), told))  # type: ignore[arg-type]
    slow = stage.come(Counted(SAME[name](40), told))  # type: ignore[arg-type]
    written(slow).room = written(slow).unsent
    stage.tell(1)
    assert slow.state is ViewerState.REPLAYING
    stage.drain()
    told.clear()
    stage.tell(1)
    stage.drain()
    assert told == [42]
    stage.tell(5)
    assert told[:6] == [42, 43, 44, 45, 46, 47]


@EACH
@pytest.mark.parametrize("count", [MANY_SHARERS - 1, MANY_SHARERS])
def test_many_do_not_wait(name: str, count: int) -> None:
    """In a delivery that takes too long, few who share go back to the log, all of them; many are shown it all the same,
    since each of them would do the work again."""
    log, told = run_of(10), list[int]()
    stage = Stage(log)
    stage.topic.add(viewer_of(stage.topic, StreamView(named=False)))
    stage.tell(1)
    for number in range(count):
        stage.come(Counted(SAME[name](number), told))  # type: ignore[arg-type]
    told.clear()
    stage.tell(1, lambda: True)
    waited = [viewer.state is ViewerState.REPLAYING for viewer in stage.viewers]
    assert waited == [count < MANY_SHARERS] * count
    stage.drain()
    assert told == [2] * (count if count < MANY_SHARERS else 1)
    assert all(b"word" in written(viewer).data for viewer in stage.viewers)


def test_who_leaves_takes_a_rendering_along() -> None:
    """A viewer that falls behind others goes on with a fork at its place; the last one keeps what they had."""
    log = run_of(10)
    stage = Stage(log)
    stage.tell(3)
    viewers = [stage.come(AiSdk(EXECUTION)) for _ in range(3)]
    shared = viewers[0].view
    assert all(viewer.view is shared for viewer in viewers)
    for viewer in viewers:
        viewer.fall_behind(viewer.position)
    assert len({id(viewer.view) for viewer in viewers}) == 3
    assert viewers[2].view is shared
    assert not stage.topic.shared
    assert not stage.topic.groups


def test_an_error_costs_all_that_share() -> None:
    """What fails for one fails for all that are at its place, also for those with bytes of their own; others go on."""
    log = run_of(5)
    stage = Stage(log)
    stage.tell(1)
    with_ids = [stage.come(TaskStream(TaskProjection(OPENING), V10(), rpc_result(number))) for number in range(3)]
    others = [stage.come(AiSdk(EXECUTION)) for _ in range(2)]
    rendering = next(iter(stage.topic.shared)).rendering
    rendering.render = lambda _: 1 / 0
    topic = stage.topic
    fresh = topic.accept(log[1:2])
    assert fresh is not None
    late = iter([False, True, True, True])  # once the first has failed
    topic.deliver(fresh, lambda: next(late))
    assert {failure.viewer for failure in topic.failed} == set(with_ids)
    assert not topic.behind, "nobody can go on from a rendering that failed"
    assert all(b"word" in written(viewer).data for viewer in others)


def test_of_many_different_ones_few_are_looked_at() -> None:
    """To become live costs no more among many viewers that show the log differently, and none of them is kept."""
    log = run_of(5)
    stage = Stage(log)
    stage.tell(2)
    asked = list[str]()

    class Asked(AiSdk):
        @property
        def state_key(self) -> Any:
            asked.append(self.execution_id)
            return super().state_key

    for number in range(200):
        stage.come(Asked(f"ex_{number}"))
    assert len(asked) <= 200 * (MAX_MET + 1)
    assert len(stage.topic.shared) == 200
    for viewer in stage.viewers:
        viewer.close()
    assert not stage.topic.shared


def test_nothing_is_kept_of_a_delivery() -> None:
    """The bytes that several views need are dropped with the delivery."""
    log = run_of(5)
    stage = Stage(log)
    stage.tell(1)
    for number in range(3):
        stage.come(TaskStream(TaskProjection(OPENING), V10(), rpc_result(number)))
    stage.tell(2)
    [shared] = stage.topic.shared
    assert not shared.has_made(log[1:3])
    assert shared._made == b""
    assert shared._entries == ()
