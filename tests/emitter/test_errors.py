"""What people read of an exception."""

from __future__ import annotations

import asyncio

import pytest

from emitter.errors import describe


class Unreadable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def nested(depth: int) -> BaseException:
    error: Exception = ValueError("deep")
    for _ in range(depth):
        error = ExceptionGroup("g", [error])
    return error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("no"), "ValueError: no"),
        (TimeoutError(), "TimeoutError"),
        (Unreadable(), "Unreadable: (its message cannot be shown)"),
        (ValueError("\ud83d"), "ValueError: \\ud83d"),
        (asyncio.CancelledError("via <Task-7 at /srv/app.py:185>"), "cancelled"),
        (ExceptionGroup("g", [OSError("a"), ValueError("b"), KeyError("c")]), "OSError: a and 2 more"),
        (BaseExceptionGroup("g", [ExceptionGroup("h", [OSError("a")]), KeyError("c")]), "OSError: a and 1 more"),
        (BaseExceptionGroup("g", [asyncio.CancelledError("x")]), "cancelled"),
        (nested(50), "ValueError: deep"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_an_exception_is_its_type_and_message(error: BaseException, text: str) -> None:
    """Of a group its leaves count; of a cancellation nothing that names the server."""
    assert describe(error) == text


@pytest.mark.parametrize("letter", ["x", "\ud83d"])
def test_it_is_clipped(letter: str) -> None:
    """However long it is in the end, and with how many more there are."""
    assert len(describe(ValueError(letter * 10_000), 100)) == 100
    group = ExceptionGroup("g", [ValueError(letter * 10_000)] * 3)
    assert describe(group, 100).endswith(" and 2 more")
    assert len(describe(group, 100)) == 100
