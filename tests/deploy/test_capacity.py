"""The table of capacities says what the benches measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_readme_has_what_the_measurements_come_to() -> None:
    """`deploy/README.md` changes with `tests/bench/RESULTS.md`."""
    made = subprocess.run(
        [sys.executable, "tests/bench/capacity.py"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    )
    text = (ROOT / "deploy" / "README.md").read_text()
    begin, end = "<!-- capacity: made by tests/bench/capacity.py -->\n", "\n<!-- /capacity -->"
    assert text.partition(begin)[2].partition(end)[0] == made.stdout.strip()
    assert "1,000,000" in made.stdout
