"""Who of several processes on a socket has the fewest connections."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from broker.http import shares
from broker.http.shares import Shares
from tests.edges import ROOT

OTHER = "import sys; from broker.http.shares import Shares; Shares(int(sys.argv[1]), 1).report(7)"


@pytest.fixture
def descriptor() -> Iterator[int]:
    made = shares.create(3)
    yield made
    os.close(made)


def test_only_others_that_accept_are_compared(descriptor: int) -> None:
    """At first nobody accepts; the least of those that do is found, without oneself, until they leave."""
    first, second, third = (Shares(descriptor, number) for number in range(3))
    assert first.least() is None
    first.report(0)
    assert first.least() is None
    second.report(5)
    third.report(4)
    assert [each.least() for each in (first, second, third)] == [4, 0, 0]
    third.leave()
    assert [each.least() for each in (first, second)] == [5, 0]


def test_another_process_is_seen(descriptor: int) -> None:
    """What a process reports on an inherited descriptor, the others read, also when it is gone."""
    command = [sys.executable, "-c", OTHER, str(descriptor)]
    subprocess.run(command, pass_fds=[descriptor], cwd=ROOT, check=True, timeout=30)
    assert Shares(descriptor, 0).least() == 7
