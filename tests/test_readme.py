"""The README says what is so."""

from __future__ import annotations

import re
from pathlib import Path

from broker.base.settings import Settings, describe, settings_table
from emitter.settings import SharedSettings, settings_of

ROOT = Path(__file__).parents[1]


def test_the_settings_table_is_the_settings() -> None:
    """The README's table is what `settings_table()` makes."""
    readme = (ROOT / "README.md").read_text()
    table = re.search(r"<!-- settings:[^>]*-->\n(.*)<!-- /settings -->", readme, re.DOTALL)
    assert table is not None
    assert table[1].strip() == settings_table().strip()


def test_the_table_begins_with_what_workers_read() -> None:
    """As the README says: from the first setting that is shared to the last."""
    shared = [setting.variable for setting in settings_of(SharedSettings).values()]
    assert [row.name for row in describe(Settings())][: len(shared)] == shared
    readme = (ROOT / "README.md").read_text()
    assert f"workers those from `{shared[0]}` to `{shared[-1]}`" in " ".join(readme.split())


LIMITS = re.compile(r"_MAX_|_PER_MINUTE$|_BYTES|_MAXLEN$|_WRITE_TIMEOUT_")
"""In the names of settings that limit what somebody gets."""
NO_LIMITS = {"RUNCAST_MAX_STREAM_AGE_SECONDS"}


def test_the_table_of_limits_has_every_setting_that_is_one() -> None:
    """And only settings that there are."""
    section = (ROOT / "broker" / "README.md").read_text().partition("## Limits")[2].partition("\n## ")[0]
    named = set(re.findall(r"RUNCAST_\w+", section))
    settings = {row.name for row in describe(Settings())}
    assert {name for name in settings if LIMITS.search(name)} - NO_LIMITS <= named <= settings


def test_every_link_of_every_readme_leads_somewhere() -> None:
    """Relative links in the project's Markdown name files that exist."""
    for page in [ROOT / "README.md", *ROOT.glob("*/README.md"), *ROOT.glob("tests/*/README.md")]:
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page}: {link}"
