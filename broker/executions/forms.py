"""Checks the answers to forms, each in a process of its own.

A schema is a program that somebody else wrote: one pattern, or a few references to references, keeps a validator busy
for hours, and nothing can interrupt it in this process. A child can be killed, and the edge continues. People answer
rarely enough for the tenth of a second that a child takes. `deploy/decisions/0007` has the measurement of a validator
that bounds patterns, but neither references nor the time for which it keeps this process.
"""

from __future__ import annotations

import asyncio
import hashlib
import signal
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from broker.base.fairness import WAIT_SECONDS, FairSemaphore
from emitter import errors
from emitter.wire.keys import Owner

PROGRAM = Path(errors.__file__).with_name("form_check.py")
COMMAND = (sys.executable, "-P", str(PROGRAM))  # -P: its neighbours here must not hide the standard library
CHECKS_AT_ONCE, CHECKS_PER_USER = 2, 1
CHECK_SECONDS = 10.0
"""For all of a check. The child itself ends after two seconds of work, or when it takes too much memory."""
UNUSABLE_SECONDS = 600.0
MAX_UNUSABLE = 1000
TOO_LONG = "it took too long"


class Checked(msgspec.Struct, frozen=True):
    """`misfits` are (path, message), empty if the value fits. `unusable`: why the schema cannot check any value;
    `unchecked`: why it could not check this one. `is_costly`: the schema is the cause."""

    misfits: list[tuple[str, str]] = []
    unusable: str | None = None
    unchecked: str | None = None
    is_costly: bool = False


class Forms:
    """A few checks at a time, one of each user; the others wait for their turn. A schema that took too much is not
    tried again for its user, for a while. `command` and `check_seconds` are for tests."""

    def __init__(
        self,
        command: tuple[str, ...] = COMMAND,
        *,
        check_seconds: float = CHECK_SECONDS,
        wait_seconds: float = WAIT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._command = command
        self._check_seconds = check_seconds
        self._clock = clock
        self._turns = FairSemaphore("forms", CHECKS_AT_ONCE, CHECKS_PER_USER, wait_seconds=wait_seconds)
        self._costly: OrderedDict[bytes, float] = OrderedDict()

    async def check(self, user: Owner, schema: dict[str, Any], value: Any) -> Checked:
        """Raises `Problem` 429 and 503 when too many wait."""
        # Each user's alone: an answer of one must not keep another from answering the same form.
        named = [user.org, user.user, schema]
        digest = hashlib.sha256(msgspec.json.encode(named, order="deterministic")).digest()
        async with self._turns.turn(user):
            if self._clock() < self._costly.get(digest, 0.0):
                return Checked(unchecked="an answer to this form took too much to check; try again in ten minutes")
            checked = await self._run(msgspec.json.encode({"schema": schema, "value": value}))
        if checked.is_costly:
            self._remember(digest)
        return checked

    def _remember(self, digest: bytes) -> None:
        self._costly[digest] = self._clock() + UNUSABLE_SECONDS
        self._costly.move_to_end(digest)
        if len(self._costly) > MAX_UNUSABLE:
            self._costly.popitem(last=False)

    async def _run(self, asked: bytes) -> Checked:
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe, stderr=pipe)
        try:
            async with asyncio.timeout(self._check_seconds):
                answer, trouble = await child.communicate(asked)
        except TimeoutError:
            return Checked(unchecked=TOO_LONG)  # by the clock, which also runs while this machine is busy with others
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        status = await child.wait()
        if status < 0:  # killed: by its own limit, unless somebody else did it
            return Checked(unchecked=TOO_LONG, is_costly=-status == signal.SIGXCPU)
        if status > 0:
            raise RuntimeError(f"the check of a form failed: {trouble[-500:].decode(errors='replace')}")
        return msgspec.json.decode(answer, type=Checked)
