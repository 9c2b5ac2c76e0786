"""The table of capacities says what the benches measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.capacity import main

ROOT = Path(__file__).parents[2]


def test_the_page_has_what_the_measurements_come_to() -> None:
    """`docs/run/sizing.md` changes with `tests/bench/RESULTS.md`."""
    made = subprocess.run(
        [sys.executable, "tests/bench/capacity.py"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    )
    text = (ROOT / "docs" / "run" / "sizing.md").read_text()
    begin, end = "<!-- capacity: made by tests/bench/capacity.py -->\n", "\n<!-- /capacity -->"
    assert text.partition(begin)[2].partition(end)[0] == made.stdout.strip()
    assert "1,000,000" in made.stdout


def test_numbers_of_ones_own_are_heeded(capsys: pytest.CaptureFixture[str]) -> None:
    """Viewers, events and hours each change what they should: 2,000 events a second for a day are some 39 GB."""
    main(["--viewers", "50000", "--events", "2000", "--hours", "24"])
    row = capsys.readouterr().out.splitlines()[2].split(" | ")
    assert row[:3] == ["| 50,000", "2,000", "10"]
    assert 30 < float(row[7].removesuffix(" GB")) < 50
    with pytest.raises(SystemExit):
        main(["--events", "2000"])
