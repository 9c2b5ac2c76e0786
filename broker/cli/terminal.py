"""Watching an execution, or a user's feed, in a terminal: `runcast run … --follow` and `runcast tail`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import termios
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, TextIO

import msgspec
from rich.console import Console, Group
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType
from rich.text import Text

from broker.cli.client import (
    FEED_PATH,
    ApiError,
    Conflict,
    Connected,
    ConnectionLost,
    EdgeClient,
    EdgeUnreachable,
    Link,
    stream_path,
)
from broker.cli.eventsource import ClientEvent
from broker.cli.lines import clean, short
from broker.cli.transcript import Transcript
from broker.cli.writer import Writer
from emitter.events import InputRequired
from emitter.wire.ids import EventId

EXIT_STATUS: Mapping[str, int] = {"completed": 0, "failed": 1, "cancelled": 130}
REPLAY: Mapping[str, str] = {"compact": "true"}
FRAME_SECONDS = 0.125
PLANNED_ENDS = ("aged", "draining")
"""Reasons of `stream:end` after which a reconnect is part of the day's work and not worth a line."""
MAY_ACCEPT = ("stream:live", "execution:queued", "execution:started")
"""Events after which an agent may take messages that took none before."""


class Feed(msgspec.Struct, frozen=True):
    """Everything of one user: of the token's own, or (scope `admin`) of the one named."""

    user: str | None = None
    org: str | None = None

    @property
    def params(self) -> dict[str, str]:
        return {name: value for name, value in (("user", self.user), ("org", self.org)) if value is not None}


async def watch(
    api: EdgeClient,
    target: str | Feed,
    console: Console,
    *,
    cursor: EventId | None = None,
    stdin: TextIO | None = None,
) -> int:
    """Show the execution of this id (or the feed) until it ends, across lost connections.

    When `stdin` (default: the process's) and the console are terminals, what the agent asks is asked here, and a line
    that is typed becomes a message to an agent that takes messages. Returns the exit status: 0 completed, 1 failed, 130
    cancelled. Raises what `EdgeClient.follow` raises.
    """
    many = isinstance(target, Feed)
    transcript = Transcript(many=many, plain=not console.is_terminal, answer_hint=_hint(api))
    path, params = (FEED_PATH, target.params) if isinstance(target, Feed) else (stream_path(target), REPLAY)
    person = None if isinstance(target, Feed) else _person(console, stdin or sys.stdin)
    asker = Asker(api, str(target), console, person) if person else None
    async with (
        _Screen(console, transcript, asker) as screen,
        contextlib.aclosing(api.follow(path, cursor, params=params, on_link=screen.on_link)) as events,
    ):
        async for event in events:
            screen.show(event)
    if isinstance(target, Feed):
        return 0
    outcome = transcript.outcome or (await api.get(target)).get("status", "")
    return EXIT_STATUS.get(outcome, 1)


def _hint(api: EdgeClient) -> str:
    url = f"{api.base_url}/api/agent/executions/{{id}}/input"
    return f"answer with: curl -X POST {url} -H \"Authorization: Bearer $RUNCAST_TOKEN\" -d '{{body}}'"


def _person(console: Console, stdin: TextIO) -> TextIO | None:
    """Where somebody types who sees the console."""
    with contextlib.suppress(ValueError, OSError):  # a closed or replaced stdin asks nobody
        if console.is_terminal and stdin.isatty():
            return stdin
    return None


class _Screen:
    """The lines so far, above a live part that is redrawn a few times a second if the console is a terminal."""

    def __init__(self, console: Console, transcript: Transcript, asker: Asker | None) -> None:
        self._console = console
        self._transcript = transcript
        self._asker = asker
        self._writer: Writer | None = None
        self._live: Live | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._lost = False
        self._ever_connected = False
        self._planned_end = False
        self._caught_up = False

    async def __aenter__(self) -> _Screen:
        if self._asker is not None:
            self._writer = self._asker.writer(lambda line: self._print([line]))
        if self._console.is_terminal:
            self._ticker = asyncio.create_task(self._tick(), name="terminal-live")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._asker is not None:
            await self._asker.stop()
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)
        if self._writer is not None:
            await self._writer.stop()
        self._pause()

    def show(self, event: ClientEvent) -> None:
        lines = self._transcript.apply(event)
        if event.type == "stream:live":
            self._caught_up = True
        elif event.type == "stream:end":
            self._planned_end = event.data.get("reason") in PLANNED_ENDS
        # Not while history is replayed: what was asked then has most likely been answered since.
        asker = self._asker if self._caught_up else None
        if asker is not None:
            asker.withdraw(self._transcript.open_inputs(asker.execution_id))
        self._print(lines)
        if asker is not None:
            asker.look(self._pause)
            if self._writer is not None and event.type in MAY_ACCEPT:
                self._writer.look()

    def on_link(self, link: Link) -> None:
        if isinstance(link, ConnectionLost):
            self._on_lost(link)
        elif isinstance(link, Connected):
            if self._lost:
                self._print([Text("~ resumed" if self._ever_connected else "~ connected", "green")])
            self._lost, self._ever_connected, self._planned_end = False, True, False

    def _on_lost(self, link: ConnectionLost) -> None:
        self._caught_up = False
        if self._lost or self._planned_end:
            return
        self._lost = True
        if not self._ever_connected:
            text = f"~ no stream yet ({clean(link.reason)}); trying until there is one"
        elif link.cursor is None:
            text = f"~ connection lost ({clean(link.reason)}), connecting again…"
        else:
            text = f"~ connection lost ({clean(link.reason)}), resuming after {link.cursor}…"
        self._print([Text(text, "yellow")])

    def _print(self, lines: list[Text]) -> None:
        if not lines:
            return
        whole = Text("\n").join(lines)  # as one: each print draws the live part again
        if self._asker is not None:
            self._asker.clear_prompt()
        self._console.print(whole, soft_wrap=not self._console.is_terminal, highlight=False)
        if self._asker is not None:
            self._asker.show_prompt()

    # --- the live part ---

    def _pause(self) -> None:
        if self._writer is not None:
            self._writer.release()
        if self._live is not None:
            self._live.stop()
            self._live = None

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(FRAME_SECONDS)
            if self._asker is not None and self._asker.busy:
                continue  # a redraw would write over what the person types
            if self._live is None:
                self._live = Live(
                    console=self._console,
                    auto_refresh=False,
                    transient=True,
                    redirect_stdout=False,
                    redirect_stderr=False,
                )
                self._live.start()
            if self._writer is not None:
                self._writer.take()
            self._live.update(self._shown(), refresh=True)

    def _shown(self) -> Group:
        width = self._console.width
        line = None if self._writer is None else self._writer.line(width)
        under_way = self._transcript.live(time.time_ns() // 1_000_000, width)
        return Group(under_way, *([] if line is None else [line]))


class Asker:
    """Puts what an agent asks to the person at the terminal, one question at a time, and sends the answers."""

    def __init__(self, api: EdgeClient, execution_id: str, console: Console, stdin: TextIO) -> None:
        self.execution_id = execution_id
        self._api = api
        self._console = console
        self._stdin = stdin
        self._open: Mapping[str, InputRequired] = {}
        self._asked: set[str] = set()
        self._reading: InputRequired | None = None
        self._task: asyncio.Task[None] | None = None
        self._abandoned: list[asyncio.Task[None]] = []

    def writer(self, say: Callable[[Text], None]) -> Writer:
        """For what the same person says to the agent unasked."""
        return Writer(self._api, self.execution_id, self._stdin, say)

    @property
    def busy(self) -> bool:
        return self._task is not None and not self._task.done()

    def withdraw(self, open_inputs: Mapping[str, InputRequired]) -> None:
        """Learn what is open now, and stop asking what was answered elsewhere."""
        self._open = open_inputs
        if self._reading is not None and self._reading.input_id not in open_inputs:
            self._abandon()

    def look(self, before: Callable[[], None]) -> None:
        """Ask what is open, after calling `before`."""
        if not self.busy and self._next() is not None:
            before()
            self._task = asyncio.create_task(self._converse(), name="terminal-ask")

    def clear_prompt(self) -> None:
        """Make room for lines: an agent that waits for an input may emit other events."""
        if self._reading is not None:
            self._console.control(Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2)))

    def show_prompt(self) -> None:
        if self._reading is not None:
            self._console.print(Text(prompt_for(self._reading), "bold yellow"), end="")

    def _next(self) -> InputRequired | None:
        return next((question for name, question in self._open.items() if name not in self._asked), None)

    def _abandon(self) -> None:
        assert self._task is not None
        self._task.cancel()
        self._abandoned = [task for task in self._abandoned if not task.done()] + [self._task]
        self._task = self._reading = None
        self._console.print()

    async def stop(self) -> None:
        if self.busy:
            self._abandon()
        await asyncio.gather(*self._abandoned, return_exceptions=True)

    async def _converse(self) -> None:
        while (question := self._next()) is not None:
            self._asked.add(question.input_id)
            # What was typed before the question was there is no answer to it.
            with contextlib.suppress(termios.error, OSError, ValueError):
                termios.tcflush(self._stdin.fileno(), termios.TCIFLUSH)
            while not await self._answered(question):
                pass

    async def _answered(self, question: InputRequired) -> bool:
        """Prompt once. False: it must be asked again."""
        self._reading = question
        self.show_prompt()
        line = await read_line(self._stdin)
        self._reading = None
        if line is None:
            return True
        try:
            await self._api.answer(self.execution_id, question.input_id, parse_answer(question, line))
        except Conflict:
            self._console.print(Text("  somebody was faster", "yellow"))
        except (ValueError, ApiError, EdgeUnreachable) as error:
            self._console.print(Text(f"  {clean(str(error))}", "yellow"))
            return False
        return True


def prompt_for(question: InputRequired) -> str:
    """What stands before the cursor."""
    if question.kind == "approval":
        return "  y/n > "
    if question.kind == "choice":
        return f"  1-{len(question.options or [])} > "
    return "  JSON object > " if question.kind == "form" else "  > "


def parse_answer(question: InputRequired, line: str) -> Any:
    """A typed line as the answer's value. `ValueError` says what is expected instead."""
    text = line.strip()
    if question.kind == "approval":
        return _approval(text.lower())
    if question.kind == "choice":
        return _choice(question.options or [], text)
    if question.kind == "form":
        try:
            return msgspec.json.decode(text, type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise ValueError(f"a JSON object, please ({error})") from error
    return line.rstrip("\r\n")


def _approval(text: str) -> bool:
    if text in ("y", "yes"):
        return True
    if text in ("n", "no"):
        return False
    raise ValueError("y or n, please")


def _choice(options: list[str], text: str) -> str:
    if text in options:
        return text
    if text.isdecimal() and 1 <= int(text) <= len(options):
        return options[int(text) - 1]
    raise ValueError(f"one of 1 to {len(options)}, please: {short(', '.join(options), 100)}")


async def read_line(stream: TextIO) -> str | None:
    """The next line typed at a terminal, `None` at its end. Cancelling leaves no thread behind that waits for input."""
    loop = asyncio.get_running_loop()
    typed: asyncio.Future[bytes] = loop.create_future()
    fd = stream.fileno()

    def readable() -> None:
        loop.remove_reader(fd)
        if not typed.done():
            try:
                typed.set_result(os.read(fd, 4096))
            except OSError:
                typed.set_result(b"")

    loop.add_reader(fd, readable)
    try:
        line = await typed
    finally:
        loop.remove_reader(fd)
    return line.decode("utf-8", "replace") if line else None
