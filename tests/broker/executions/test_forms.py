"""Forms are checked beside the edge: it goes on, whatever a schema does. A checker that takes its time stands in for a
schema that takes for ever."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.base.problem import Problem
from broker.executions import forms
from broker.executions.forms import CHECKS_AT_ONCE, MAX_UNUSABLE, PROGRAM, UNUSABLE_SECONDS, Checked, Forms
from emitter.form_check import check
from emitter.wire.keys import Owner

ANN, BOB, EVE = Owner("ann"), Owner("bob"), Owner("eve")
NAME = {"properties": {"name": {"type": "string"}}}
SLEEPS = "import time; time.sleep(60)"
ANSWERS = "import sys; sys.stdin.read(); print('{}')"
SLEEPS_FOR_SOME = "import json, sys, time; time.sleep(60 * ('slow' in json.load(sys.stdin)['value'])); print('{}')"
BUSY = "while True: pass"
"""In the place of the check itself: work without an end."""
LARGE = "answer = {'misfits': [bytearray(1 << 20) for _ in range(4096)]}"

Program = Callable[[str], tuple[str, ...]]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """The command of another program in the place of the check."""

    def write(code: str) -> tuple[str, ...]:
        path = tmp_path / "check.py"
        path.write_text(code)
        return (sys.executable, "-P", str(path))

    return write


def doing(code: str) -> str:
    """The check's own program, with its limits, that does something else than to check."""
    source = PROGRAM.read_text()
    call = 'answer = check(asked["schema"], asked["value"])'
    assert call in source
    return source.replace(call, code).replace("CPU_SECONDS = 2", "CPU_SECONDS = 0")


def children() -> list[str]:
    pid = os.getpid()
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


async def until_running(count: int, before: list[str]) -> None:
    while len(children()) < len(before) + count:
        await asyncio.sleep(0.01)


async def test_a_form_is_checked() -> None:
    """With the fields that do not fit, whatever they hold."""
    checks = Forms()
    assert await checks.check(ANN, NAME, {"name": "Ann \u2028 é"}) == Checked()
    found = await checks.check(ANN, NAME, {"name": 5})
    assert found == Checked(misfits=[("$.value.name", "5 is not of type 'string'")])
    assert (await checks.check(ANN, {"type": "objct"}, {})).unusable is not None


async def test_a_child_that_hangs(program: Program) -> None:
    """The check is given up, nothing is let through, no process is left, and the event loop went on. The schema is not
    blamed: what a clock on the wall says is also the machine's load."""
    checks, before, beats = Forms(program(SLEEPS), check_seconds=1.0), children(), 0
    task = asyncio.create_task(checks.check(ANN, NAME, {}))
    while not task.done():
        await asyncio.sleep(0.01)
        beats += 1
    assert task.result() == Checked(unchecked="it took too long")
    assert beats > 10
    assert children() == before


@pytest.mark.parametrize(("code", "why"), [(BUSY, "it took too long"), (LARGE, "it took too much memory")])
async def test_a_child_ends_by_itself(program: Program, code: str, why: str) -> None:
    """By its own limits of work and of memory, also if nobody is left to kill it; and its schema is blamed."""
    checks = Forms(program(doing(code)), check_seconds=3600.0)
    assert await checks.check(ANN, NAME, {}) == Checked(unchecked=why, is_costly=True)


async def test_what_the_check_needs_fits_its_limits() -> None:
    """A schema and an answer as large as an event can be."""
    schema = {"properties": {f"field{number}": {"type": "string", "maxLength": 50} for number in range(1200)}}
    value = {f"field{number}": "x" * 30 for number in range(1200)}
    assert check(schema, value) == {"misfits": []}
    assert await Forms().check(ANN, schema, value) == Checked()


async def test_a_schema_that_took_too_much_is_not_tried_again(program: Program) -> None:
    """For its user, for ten minutes. Other schemas are checked as ever, and so are the answers of others to it."""
    now, before = 0.0, children()
    checks = Forms(program(doing(BUSY)), clock=lambda: now)
    await checks.check(ANN, NAME, {})
    program(ANSWERS)
    refused = await checks.check(ANN, NAME, {"name": "x"})
    assert refused.unchecked == "an answer to this form took too much to check; try again in ten minutes"
    assert await checks.check(ANN, {**NAME, "title": "another"}, {}) == Checked()
    assert await checks.check(BOB, NAME, {}) == Checked()
    now = UNUSABLE_SECONDS
    assert await checks.check(ANN, NAME, {}) == Checked()
    assert children() == before


async def test_so_many_are_remembered() -> None:
    """Of the schemas that took too much."""
    checks = Forms()
    for number in range(MAX_UNUSABLE + 5):
        checks._remember(number.to_bytes(4, "big"))
    assert len(checks._costly) == MAX_UNUSABLE


async def test_a_check_that_is_cancelled_leaves_no_process(program: Program) -> None:
    """As when the edge stops."""
    checks, before = Forms(program(SLEEPS)), children()
    task = asyncio.create_task(checks.check(ANN, NAME, {}))
    await until_running(1, before)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert children() == before


async def test_a_few_at_a_time(program: Program) -> None:
    """One of each user. Others wait for their turn, for a while; then they are told to come back."""
    checks, before = Forms(program(SLEEPS), check_seconds=30.0, wait_seconds=0.2), children()
    tasks = [asyncio.create_task(checks.check(user, NAME, {})) for user in (ANN, BOB)]
    await until_running(CHECKS_AT_ONCE, before)
    for user, status in ((EVE, 503), (BOB, 429)):
        with pytest.raises(Problem) as caught:
            await checks.check(user, NAME, {})
        assert (caught.value.status, "Retry-After" in caught.value.headers) == (status, True)
    assert len(children()) == len(before) + CHECKS_AT_ONCE
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_one_user_leaves_a_turn_to_the_others(program: Program) -> None:
    """However many slow forms one answers, another's is checked meanwhile."""
    checks, before = Forms(program(SLEEPS_FOR_SOME), check_seconds=30.0), children()
    tasks = [asyncio.create_task(checks.check(EVE, NAME, {"slow": True})) for _ in range(20)]
    await until_running(1, before)
    async with asyncio.timeout(20):
        assert await checks.check(BOB, NAME, {}) == Checked()
    assert not any(task.done() for task in tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert children() == before


async def test_the_programs_neighbours_are_not_imported(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module beside it with the name of one of the standard library's."""
    command = program(PROGRAM.read_text())
    assert command[:-1] == forms.COMMAND[:-1]
    (tmp_path / "resource.py").write_text("raise ImportError('not this one')")
    assert await Forms(command).check(ANN, NAME, {"name": "Ann"}) == Checked()


async def test_a_check_that_cannot_be_made_is_an_error(program: Program) -> None:
    """Of this installation, not of the answer."""
    with pytest.raises(RuntimeError, match="no jsonschema"):
        await Forms(program("raise ImportError('no jsonschema')")).check(ANN, NAME, {})
