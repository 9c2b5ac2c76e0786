"""Made-up input for everything that reads what others send, a few seconds of it: always the same input. For longer, and
with input that differs: `python -m tests.abuse.fuzz --seconds 600`."""

from __future__ import annotations

import random
import shutil
from typing import Any

import pytest

from tests.abuse import fuzz  # noqa: F401 - with all fuzzers
from tests.abuse.fuzzing import FUZZERS, run, run_for

pytestmark = pytest.mark.timeout(120)
EXAMPLES = {"routes": 50, "cursors": 200, "browser_parser": 200, "browser_markdown": 200}


def fuzzers() -> list[Any]:
    needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="no node")
    return [pytest.param(name, marks=needs_node if name.startswith("browser") else ()) for name in FUZZERS]


@pytest.mark.parametrize("name", fuzzers())
def test_a_few_examples(name: str) -> None:
    with FUZZERS[name]() as fuzzer:
        run(fuzzer, EXAMPLES.get(name, 60))


@pytest.mark.abuse_long
@pytest.mark.parametrize("name", fuzzers())
def test_for_a_while(name: str) -> None:
    with FUZZERS[name]() as fuzzer:
        assert run_for(fuzzer, 30, random.Random()) > 0
