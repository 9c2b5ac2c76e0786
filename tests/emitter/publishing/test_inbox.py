"""Messages to an agent without Redis: the inbox over messages of a test, and what `RecordingEmitter` offers for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

import pytest

from emitter import Context, Interrupted, Message
from emitter.errors import AlreadySent, ExecutionEnded, InvalidEvent
from emitter.publishing.inbox import Inbox
from emitter.testing import RecordingEmitter


class SlowSource:
    """Takes only when it may; counts the takes by name."""

    def __init__(self) -> None:
        self.may_take = asyncio.Event()
        self.waiting: list[Message] = []
        self.names: list[str] = []
        self.wakes: list[Callable[[], None]] = []

    def put(self, *ids: str, mode: str = "queue") -> None:
        self.waiting += [Message(message_id=id_, text=id_, mode=mode) for id_ in ids]  # type: ignore[arg-type]
        for wake in self.wakes:
            wake()

    async def take(self, name: str, most: int, kinds: str) -> list[Message]:
        self.names.append(name)
        await self.may_take.wait()
        wanted = [each for each in self.waiting if not kinds or each.interrupts == (kinds == "i")][:most]
        self.waiting = [each for each in self.waiting if each not in wanted]
        return wanted

    @contextlib.contextmanager
    def waking(self, wake: Callable[[], None]) -> Iterator[None]:
        self.wakes.append(wake)
        try:
            yield
        finally:
            self.wakes.remove(wake)


@pytest.fixture
def source() -> SlowSource:
    return SlowSource()


@pytest.fixture
def inbox(source: SlowSource) -> Inbox:
    return Inbox(source, lambda: False)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def test_a_cancelled_wait_loses_nothing(source: SlowSource, inbox: Inbox) -> None:
    """What was taken for it goes to the next call."""
    source.put("a", "b")
    call = asyncio.create_task(inbox.next())
    await until(lambda: bool(source.names))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    source.may_take.set()
    found = [await inbox.next(5), await inbox.next(5)]
    assert [each.message_id for each in found if each] == ["a", "b"]


async def test_no_message_is_heard_twice(source: SlowSource, inbox: Inbox) -> None:
    """Not even if Redis has lost the take in a failover, and has the message waiting again."""
    source.may_take.set()
    source.put("a")
    assert [each.message_id for each in await inbox.all()] == ["a"]
    source.put("a", "b")
    assert [each.message_id for each in await inbox.all()] == ["b"]


async def test_a_wait_ends_in_time(source: SlowSource, inbox: Inbox) -> None:
    """Also one of which the take hangs; 0 does not wait for a message."""
    source.may_take.set()
    assert await inbox.next(0.01) is None
    assert await inbox.next(0) is None
    source.put("a")
    message = await inbox.next(0)
    assert message is not None
    source.may_take.clear()
    source.put("b")
    assert await inbox.next(0.01) is None
    source.may_take.set()
    message = await inbox.next(1)
    assert message is not None
    assert message.message_id == "b"


async def test_several_tasks_share_the_messages(source: SlowSource, inbox: Inbox) -> None:
    """Each message goes to one of them."""
    source.may_take.set()
    calls = [asyncio.create_task(inbox.next(5)) for _ in range(3)]
    await asyncio.sleep(0)
    source.put("a", "b", "c")
    found = await asyncio.gather(*calls)
    assert sorted(each.message_id for each in found if each) == ["a", "b", "c"]


async def test_a_message_interrupts_the_block(source: SlowSource, inbox: Inbox) -> None:
    """At its next await; what does not interrupt waits for the call that asks for it."""
    source.may_take.set()
    source.put("quiet")
    with pytest.raises(Interrupted) as caught:  # noqa: PT012 - the block is what raises
        async with inbox.interruptible():
            asyncio.get_running_loop().call_later(0.01, lambda: source.put("loud", mode="interrupt"))
            await asyncio.sleep(30)
    assert caught.value.message.message_id == "loud"
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]
    assert [each.message_id for each in await inbox.all()] == ["quiet"]


async def test_one_that_waits_already_interrupts(source: SlowSource, inbox: Inbox) -> None:
    source.may_take.set()
    source.put("loud", mode="interrupt")
    with pytest.raises(Interrupted):
        async with inbox.interruptible():
            await asyncio.sleep(30)


async def test_outside_of_a_block_it_waits_like_others(source: SlowSource, inbox: Inbox) -> None:
    source.may_take.set()
    source.put("loud", mode="interrupt")
    await asyncio.sleep(0.05)
    assert [each.message_id for each in await inbox.all()] == ["loud"]


async def test_a_cancel_counts_more_than_a_message(source: SlowSource, inbox: Inbox) -> None:
    """Both at once: the task ends as cancelled, and the message is not lost."""
    source.may_take.set()
    entered = asyncio.Event()

    async def work() -> None:
        async with inbox.interruptible():
            entered.set()
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                await until(lambda: task.cancelling() > 1)
                raise

    task = asyncio.create_task(work())
    await entered.wait()
    source.put("loud", mode="interrupt")
    await until(lambda: task.cancelling() > 0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [each.message_id for each in await inbox.all()] == ["loud"]


async def test_a_timeout_in_the_block_stays_one(source: SlowSource, inbox: Inbox) -> None:
    """And a task group in it ends its tasks when a message interrupts."""
    source.may_take.set()
    async with inbox.interruptible():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.sleep(30)
    ended: list[str] = []

    async def part() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ended.append("part")

    with pytest.raises(Interrupted):  # noqa: PT012 - the block is what raises
        async with inbox.interruptible(), asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(part())
            group.create_task(part())
            asyncio.get_running_loop().call_later(0.01, lambda: source.put("loud", mode="interrupt"))
    assert ended == ["part", "part"]


async def test_what_interrupts_is_not_taken_by_a_call_in_the_block(source: SlowSource, inbox: Inbox) -> None:
    """Also not one that an earlier call has left."""
    source.put("loud", mode="interrupt")
    call = asyncio.create_task(inbox.next())
    await until(lambda: bool(source.names))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    source.may_take.set()
    await until(lambda: not source.waiting)
    source.put("quiet")
    found = []
    with pytest.raises(Interrupted) as caught:  # noqa: PT012 - the block is what raises
        async with inbox.interruptible():
            found += [await inbox.next(0)]
            found += await inbox.all()
            await asyncio.sleep(30)
    assert [each.message_id for each in found if each] == ["quiet"]
    assert caught.value.message.message_id == "loud"


async def test_all_that_wait_are_all_after_a_wait_that_was_cancelled(source: SlowSource, inbox: Inbox) -> None:
    """The take of one message that had begun is not the whole answer."""
    source.put("a", "b", "c")
    assert await inbox.next(0.01) is None
    source.may_take.set()
    assert [each.message_id for each in await inbox.all()] == ["a", "b", "c"]


async def test_the_innermost_block_is_interrupted(source: SlowSource, inbox: Inbox) -> None:
    """And the outer one by the next message."""
    source.may_take.set()
    seen: list[str] = []
    with pytest.raises(Interrupted) as caught:  # noqa: PT012 - the block is what raises
        async with inbox.interruptible():
            try:
                async with inbox.interruptible():
                    source.put("one", mode="interrupt")
                    await asyncio.sleep(30)
            except Interrupted as inner:
                seen.append(inner.message.message_id)
            source.put("two", mode="interrupt")
            await asyncio.sleep(30)
    assert [*seen, caught.value.message.message_id] == ["one", "two"]


async def test_a_block_that_ends_waits_for_its_take(source: SlowSource, inbox: Inbox) -> None:
    """The message was taken for it, so it is the block that raises."""
    source.put("loud", mode="interrupt")
    with pytest.raises(Interrupted):  # noqa: PT012 - the block is what raises
        async with inbox.interruptible():
            await until(lambda: bool(source.names))
            asyncio.get_running_loop().call_later(0.01, source.may_take.set)


async def test_a_block_that_raises_keeps_its_own_error(source: SlowSource, inbox: Inbox) -> None:
    """The message waits for the next call."""
    source.put("loud", mode="interrupt")

    async def work() -> None:
        async with inbox.interruptible():
            await until(lambda: bool(source.names))
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await work()
    source.may_take.set()
    message = await inbox.next(5)
    assert message is not None
    assert message.message_id == "loud"


async def test_code_that_swallows_the_interruption_is_interrupted_at_the_end(source: SlowSource, inbox: Inbox) -> None:
    source.may_take.set()
    with pytest.raises(Interrupted):  # noqa: PT012 - the block is what raises
        async with inbox.interruptible():
            source.put("loud", mode="interrupt")
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(30)
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


# --- emitter.testing ---


async def test_a_recording_has_what_is_sent_and_taken() -> None:
    """In the order of a log; what waits at the end is dropped."""
    emitter = RecordingEmitter(messages=["first"])
    context = Context(emitter, task="t")
    emitter.send_message("second", data={"n": 1}, mode="interrupt")
    emitter.send_message("third")
    first = await context.next_message()
    assert first is not None
    assert (first.text, first.by) == ("first", "tester")
    await context.emitter.thinking("hm")
    assert [each.text for each in await context.waiting_messages()] == ["second", "third"]
    emitter.send_message("late")
    await emitter.execution_complete(None)
    assert emitter.types == [
        *["user:message"] * 3, "user:message:taken", "thinking", "user:message:taken", "user:message",
        "user:message:dropped", "execution:complete",
    ]  # fmt: skip
    with pytest.raises(ExecutionEnded):
        emitter.send_message("too late")


async def test_an_agent_under_test_is_interrupted() -> None:
    emitter = RecordingEmitter()
    context = Context(emitter, task="t")

    async def agent() -> str:
        try:
            async with context.interruptible():
                await asyncio.sleep(30)
        except Interrupted as interrupted:
            return str(interrupted.message.text)
        return ""

    running = asyncio.create_task(agent())
    await asyncio.sleep(0.01)
    emitter.send_message("stop that", mode="interrupt")
    assert await running == "stop that"


async def test_an_agent_under_test_follows_its_messages() -> None:
    emitter = RecordingEmitter()
    found: list[str | None] = []

    async def agent() -> None:
        async for message in Context(emitter, task="t").messages():
            found.append(message.text)
            if message.text == "enough":
                return

    running = asyncio.create_task(agent())
    for text in ("one", "two", "enough"):
        await asyncio.sleep(0)
        emitter.send_message(text)
    await running
    assert found == ["one", "two", "enough"]


def test_a_recording_refuses_what_an_edge_refuses() -> None:
    emitter = RecordingEmitter()
    emitter.send_message("a", message_id="one")
    with pytest.raises(AlreadySent):
        emitter.send_message("a", message_id="one")
    with pytest.raises(InvalidEvent, match="text or data"):
        emitter.send_message()
    with pytest.raises(InvalidEvent, match="messageId"):
        emitter.send_message("a", message_id="not one")
