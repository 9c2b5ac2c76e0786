"""Messages to the agent, typed while one watches it: the line that is written, and the terminal's mode for it."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import re
import secrets
import termios
import tty
from collections.abc import Callable
from typing import Any, TextIO

from rich.text import Text

from broker.cli.client import ApiError, EdgeClient, EdgeUnreachable
from broker.cli.lines import clean

HINT = "a message to the agent; ! at its beginning interrupts"
TRIES = 3
RETRY_SECONDS = 0.5
_ESCAPE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|O.|[^\[O])")
_PARTIAL_ESCAPE = re.compile(r"\x1b(\[[0-?]*[ -/]*|O)?$")


class Draft:
    """What has been typed of a line. Pure: bytes of a terminal without line editing go in, whole lines come out."""

    def __init__(self) -> None:
        self.text = ""
        self._decode = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending = ""

    def feed(self, typed: bytes) -> list[str]:
        """The lines that Enter completed. Backspace, Ctrl-W and Ctrl-U delete; keys such as arrows do nothing."""
        given = _ESCAPE.sub("", self._pending + self._decode.decode(typed))
        cut = _PARTIAL_ESCAPE.search(given)
        self._pending = cut[0] if cut else ""
        lines = []
        for char in given.removesuffix(self._pending):
            if char in "\r\n":
                lines.append(self.text)
                self.text = ""
            else:
                self.text = _edited(self.text, char)
        return lines


def _edited(text: str, char: str) -> str:
    match char:
        case "\x7f" | "\x08":
            return text[:-1]
        case "\x15":
            return ""
        case "\x17":
            return re.sub(r"\S*\s*$", "", text)
        case "\t":
            return text + " "
        case _:
            return text + clean(char)


class Writer:
    """Takes the keyboard while the agent takes messages and nothing else is asked, and sends what is typed.

    The terminal does no line editing meanwhile: the line is part of what is redrawn. `say` shows a line about a message
    that could not be sent."""

    def __init__(self, api: EdgeClient, execution_id: str, stdin: TextIO, say: Callable[[Text], None]) -> None:
        self._api = api
        self._execution_id = execution_id
        self._fd = stdin.fileno()
        self._say = say
        self._draft = Draft()
        self._mode: list[Any] | None = None
        self._accepts = self._is_stale = False
        self._looking: asyncio.Task[None] | None = None
        self._lines: asyncio.Queue[str] = asyncio.Queue()
        self._sending = asyncio.create_task(self._send_all(), name="terminal-messages")

    def look(self) -> None:
        """Find out whether the agent takes messages: called when an attempt has begun or the stream is live."""
        self._is_stale = True
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="terminal-accepts")

    async def _look(self) -> None:
        while self._is_stale:  # an answer on its way may be from before the attempt began
            self._is_stale = False
            with contextlib.suppress(ApiError, EdgeUnreachable):  # an edge that knows no messages
                self._accepts = (await self._api.messages(self._execution_id)).get("acceptsMessages", False)

    # --- the keyboard ---

    def take(self) -> None:
        """Take the keyboard, if the agent takes messages; repeated, since a shell may have changed the mode."""
        if not self._accepts or not _is_foreground(self._fd):
            self.release()
            return
        with contextlib.suppress(termios.error, OSError):
            mode = termios.tcgetattr(self._fd)
            if mode[tty.LFLAG] & termios.ICANON:
                tty.setcbreak(self._fd, termios.TCSADRAIN)
                if self._mode is None:
                    self._mode = mode
                    asyncio.get_running_loop().add_reader(self._fd, self._read)

    def release(self) -> None:
        """Give the keyboard back; what was typed of a line is kept."""
        if self._mode is None:
            return
        mode, self._mode = self._mode, None
        asyncio.get_running_loop().remove_reader(self._fd)
        if _is_foreground(self._fd):
            with contextlib.suppress(termios.error, OSError):
                termios.tcsetattr(self._fd, termios.TCSADRAIN, mode)

    def line(self, width: int) -> Text | None:
        """The line with its end in view; `None` while the keyboard is not taken."""
        if self._mode is None:
            return None
        text = self._draft.text
        if not text:
            return Text.assemble(("» ", "bold green"), (HINT, "dim"), no_wrap=True, overflow="ellipsis")
        most = max(10, (width - 4) // 2)  # characters that are two cells wide fit, too
        shown = text if len(text) <= most else "…" + text[-most:]
        return Text.assemble(("» ", "bold green"), shown, ("▏", "dim"), no_wrap=True, overflow="crop")

    def _read(self) -> None:
        if not _is_foreground(self._fd):  # a read would stop this process
            self.release()
            return
        try:
            typed = os.read(self._fd, 4096)
        except OSError:
            typed = b""
        if not typed:
            self._accepts = False
            self.release()
        for text in self._draft.feed(typed):
            if text.removeprefix("!").strip():
                self._lines.put_nowait(text)

    # --- messages ---

    async def _send_all(self) -> None:
        while True:
            text = await self._lines.get()
            try:
                await self._send(text)
            except (ApiError, EdgeUnreachable) as error:
                self._say(Text(f"  not sent ({clean(str(error))}): {clean(text)}", "yellow"))

    async def _send(self, text: str) -> None:
        """A repeat has the same id, so the agent hears it once."""
        interrupts = text.startswith("!")
        text, message_id = text.removeprefix("!").strip(), "cli_" + secrets.token_hex(12)
        for left in reversed(range(TRIES)):
            try:
                await self._api.send_message(
                    self._execution_id, text, mode="interrupt" if interrupts else "queue", message_id=message_id
                )
            except EdgeUnreachable:
                if not left:
                    raise
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def stop(self) -> None:
        self.release()
        tasks = [self._sending] + ([self._looking] if self._looking else [])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _is_foreground(fd: int) -> bool:
    """Whether the terminal is at this process: changing its mode, or reading, would stop one in the background."""
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:  # not this process's terminal: nothing stops it
        return True
