"""`docs/reference` is what the code says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from broker.streams.admission import TOO_MANY
from tests.docs.blocks import DOCS, ROOT


def test_the_reference_is_current(tmp_path: Path) -> None:
    """If this fails: `python docs/site/reference.py`."""
    command = [sys.executable, DOCS / "site" / "reference.py", tmp_path]
    subprocess.run(command, check=True, timeout=50)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    by_hand = ("README.md", "problems.md")
    kept = {path.name: path.read_text() for path in (DOCS / "reference").glob("*.md") if path.name not in by_hand}
    assert made.keys() == kept.keys()
    for name, text in made.items():
        assert text == kept[name], name


def test_it_has_every_part() -> None:
    """An alert, a metric, a setting, an event and a command are where a reader looks for them."""
    for page, pattern in {
        "events.md": r"^## execution:complete$",
        "endpoints.md": r"`POST /api/agent/execute`",
        "settings.md": r"^\| `RUNCAST_REDIS_URL` \|",
        "metrics.md": r"`runcast_worker_running`",
        "alerts.md": r"`RuncastNoEdge` \| critical",
        "cli.md": r"^## runcast dev$",
    }.items():
        assert re.search(pattern, (DOCS / "reference" / page).read_text(), re.MULTILINE), page


def test_it_has_every_kind_of_problem() -> None:
    """With the statuses under which the edges raise it, and none that they do not."""
    page = (DOCS / "reference" / "problems.md").read_text()
    listed = {
        (status, slug)
        for slugs, statuses in re.findall(r"^\| (`[a-z`, -]+`) \| ([\d, ]+) \|", page, re.MULTILINE)
        for slug in re.findall(r"[a-z-]+", slugs)
        for status in re.findall(r"\d+", statuses)
    }
    raised = {("429", TOO_MANY)}
    for path in (ROOT / "broker").rglob("*.py"):
        raised |= set(re.findall(r"(?:Problem|__init__)\(\s*(\d{3}),\s*\"([a-z-]+)\"", path.read_text()))
    assert listed == raised
