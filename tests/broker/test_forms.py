"""Forms are checked beside the edge: it goes on, whatever a schema does."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broker import forms
from broker.forms import CHECKS_AT_ONCE, Checked, Forms
from broker.problems import Problem

NAME = {"properties": {"name": {"type": "string"}}}
SLOW = {"properties": {"name": {"pattern": "^(a|a)*$"}}}
"""Whose pattern takes twice as long for each further letter of a name that does not match."""
BOMB = {
    "$defs": {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)} | {"d40": {}},
    "properties": {"name": {"$ref": "#/$defs/d0"}},
}
"""Two references at each of forty steps."""


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "CHECK_SECONDS", 1.0)


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Another program in the place of the check."""

    def write(code: str) -> None:
        path = tmp_path / "check.py"
        path.write_text(code)
        monkeypatch.setattr(forms, "PROGRAM", path)

    return write


def children() -> list[str]:
    pid = os.getpid()
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


async def test_a_form_is_checked() -> None:
    """With the fields that do not fit, whatever they hold."""
    checks = Forms()
    assert await checks.check(NAME, {"name": "Ann \u2028 é"}) == Checked()
    found = await checks.check(NAME, {"name": 5})
    assert found == Checked(misfits=[("$.value.name", "5 is not of type 'string'")])
    assert (await checks.check({"type": "objct"}, {})).unusable is not None


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("schema", [SLOW, BOMB], ids=["pattern", "references"])
async def test_a_schema_that_takes_for_ever(schema: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The check is given up, nothing is let through, no process is left, and the event loop went on."""
    checks, before, beats = Forms(), children(), 0
    task = asyncio.create_task(checks.check(schema, {"name": "a" * 100 + "!"}))
    while not task.done():
        await asyncio.sleep(0.01)
        beats += 1
    assert task.result() == Checked(unchecked="it took too long")
    assert beats > 10
    assert children() == before
    monkeypatch.undo()
    assert await checks.check(schema, {"other": "a"}) == Checked()


@pytest.mark.usefixtures("hasty")
async def test_a_child_that_hangs(program: Callable[[str], None]) -> None:
    """It is killed when its time is up."""
    program("import time; time.sleep(60)")
    before = children()
    assert await Forms().check(NAME, {}) == Checked(unchecked="it took too long")
    assert children() == before


async def test_a_child_ends_by_itself(program: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """By its own limit, also if nobody is left to kill it."""
    monkeypatch.setattr(forms, "CHECK_SECONDS", 3600.0)
    source = forms.PROGRAM.read_text().replace("CPU_SECONDS = 2", "CPU_SECONDS = 0")
    program(source)
    assert await Forms().check(SLOW, {"name": "a" * 100 + "!"}) == Checked(unchecked="it took too long")


async def test_a_check_that_is_cancelled_leaves_no_process(program: Callable[[str], None]) -> None:
    """As when the edge stops."""
    program("import time; time.sleep(60)")
    checks, before = Forms(), children()
    task = asyncio.create_task(checks.check(NAME, {}))
    while children() == before:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert children() == before


async def test_a_few_at_a_time(program: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Others wait for their turn, for a while; then they are told to come back."""
    monkeypatch.setattr(forms, "TURN_SECONDS", 0.1)
    program("import time; time.sleep(60)")
    checks, before = Forms(), children()
    tasks = [asyncio.create_task(checks.check(NAME, {})) for _ in range(CHECKS_AT_ONCE)]
    while len(children()) < len(before) + CHECKS_AT_ONCE:
        await asyncio.sleep(0.01)
    with pytest.raises(Problem) as caught:
        await checks.check(NAME, {})
    assert (caught.value.status, "Retry-After" in caught.value.headers) == (503, True)
    assert len(children()) == len(before) + CHECKS_AT_ONCE
    for pid in set(children()) - set(before):
        os.kill(int(pid), signal.SIGKILL)
    assert {(await task).unchecked for task in tasks} == {"it took too long"}


async def test_the_programs_neighbours_are_not_imported(program: Callable[[str], None], tmp_path: Path) -> None:
    """A module beside it with the name of one of the standard library's."""
    program(forms.PROGRAM.read_text())
    (tmp_path / "resource.py").write_text("raise ImportError('not this one')")
    assert await Forms().check(NAME, {"name": "Ann"}) == Checked()


async def test_a_check_that_cannot_be_made_is_an_error(program: Callable[[str], None]) -> None:
    """Of this installation, not of the answer."""
    program("raise ImportError('no jsonschema')")
    with pytest.raises(RuntimeError, match="no jsonschema"):
        await Forms().check(NAME, {})
