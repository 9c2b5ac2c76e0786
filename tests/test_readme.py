"""The README says what is so."""

from __future__ import annotations

import re
from pathlib import Path

from broker.settings import settings_table

ROOT = Path(__file__).parents[1]


def test_the_settings_table_is_the_settings() -> None:
    """The README's table is what `settings_table()` makes."""
    readme = (ROOT / "README.md").read_text()
    table = re.search(r"<!-- settings:[^>]*-->\n(.*)<!-- /settings -->", readme, re.DOTALL)
    assert table is not None
    assert table[1].strip() == settings_table().strip()


def test_every_link_of_every_readme_leads_somewhere() -> None:
    """Relative links in the project's Markdown name files that exist."""
    for page in [ROOT / "README.md", *ROOT.glob("*/README.md"), *ROOT.glob("tests/*/README.md")]:
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page}: {link}"
