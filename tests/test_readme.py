"""The README says what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

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


PAGES = [
    *ROOT.glob("*.md"),
    *ROOT.glob("*/README.md"),
    *(ROOT / ".github").rglob("*.md"),
    *(ROOT / "tests").glob("*/README.md"),
    *(path for path in (ROOT / "deploy").rglob("*.md") if "node_modules" not in path.parts),
    *(path for path in (ROOT / "broker" / "web").rglob("*.md") if "node_modules" not in path.parts),
]
"""The project's Markdown."""
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
CODE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub makes them."""
    headings = HEADING.findall(CODE.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    """Relative links in the project's Markdown name files that exist, and headings that those have."""
    for link in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", CODE.sub("", page.read_text())):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{page}: {link}"
        assert not anchor or target.suffix != ".md" or anchor in anchors(target), f"{page}: {link}"


def test_the_pages_of_links_are_all_that_people_read() -> None:
    """The security policy, contributing, the upgrade notes and the decisions are among them."""
    names = {str(page.relative_to(ROOT)) for page in PAGES}
    wanted = {
        "SECURITY.md",
        "CHANGELOG.md",
        ".github/CONTRIBUTING.md",
        "deploy/UPGRADE.md",
        "deploy/decisions/README.md",
    }
    assert wanted <= names
