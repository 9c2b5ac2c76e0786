"""What the project's Markdown says is so: its links lead somewhere, and the README is what it promises to be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from broker.base.settings import Settings, describe
from emitter.settings import SharedSettings, settings_of
from tests.docs.blocks import tracked

ROOT = Path(__file__).parents[1]


def test_the_readme_is_short_and_has_two_commands() -> None:
    """A screen and a half, and exactly two commands that do all their own set-up: the lines that are indented."""
    readme = (ROOT / "README.md").read_text()
    assert readme.count("\n") <= 90
    commands = [line.strip() for line in CODE.sub("", readme).splitlines() if line.startswith("    ")]
    assert commands == ["deploy/demo", "tests/run"]
    for command in commands:
        assert (ROOT / command).stat().st_mode & 0o111


def test_the_readme_of_deploy_is_a_list() -> None:
    """What users read is in docs; a merge must not bring it back."""
    assert (ROOT / "deploy" / "README.md").read_text().count("\n") < 40


def test_the_table_of_settings_begins_with_what_workers_read() -> None:
    """As its page says: from the first setting that is shared to the last."""
    shared = [setting.variable for setting in settings_of(SharedSettings).values()]
    assert [row.name for row in describe(Settings())][: len(shared)] == shared


LIMITS = re.compile(r"_MAX_|_PER_MINUTE$|_BYTES|_MAXLEN$|_WRITE_TIMEOUT_")
"""In the names of settings that limit what somebody gets."""
NO_LIMITS = {"RUNCAST_MAX_STREAM_AGE_SECONDS"}


def test_the_table_of_limits_has_every_setting_that_is_one() -> None:
    """And only settings that there are."""
    named = set(re.findall(r"RUNCAST_\w+", (ROOT / "docs" / "trust" / "limits.md").read_text()))
    settings = {row.name for row in describe(Settings())}
    assert {name for name in settings if LIMITS.search(name)} - NO_LIMITS <= named <= settings


def test_pages_name_settings_that_there_are() -> None:
    """Every `RUNCAST_…` in the docs is a setting, a variable of the command line, or the report of the demo."""
    known = {row.name for row in describe(Settings())} | {"RUNCAST_TOKEN", "RUNCAST_URL", "RUNCAST_REPORT"}
    starts = {name[: len(prefix)] for name in known for prefix in [name.rsplit("_", 1)[0] + "_"]}
    for page in (ROOT / "docs").rglob("*.md"):
        named = set(re.findall(r"RUNCAST_[A-Z_]+[A-Z]", page.read_text()))
        assert {name for name in named - known if name + "_" not in starts} == set(), page


PAGES = [ROOT / name for name in tracked() if name.endswith(".md")]
"""The project's Markdown."""
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
CODE = re.compile(r"^( *)(```|~~~).*?^\1\2", re.MULTILINE | re.DOTALL)


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
        "docs/run/upgrading.md",
        "deploy/decisions/README.md",
    }
    assert wanted <= names
