"""`docs/build` makes a whole site: every page is in it, no link is broken, and nothing comes from another host."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.docs.blocks import DOCS, ROOT

INSTALLED, PINS = ROOT / ".venv-docs" / "installed", DOCS / "site" / "requirements.txt"
LOADED = re.compile(r"""<(?:script|img|iframe|source)[^>]+src=["']?([^"' >]+)|<link[^>]+href=["']?([^"' >]+)""")
SECTIONS = ["start", "agents", "show", "control", "run", "trust", "reference", "compare", "migrate"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not INSTALLED.exists() or not INSTALLED.read_text().endswith(PINS.read_text()):
        pytest.skip("needs `docs/build --install`, which tests/run calls")
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run([DOCS / "build", folder], capture_output=True, text=True, timeout=55)
    assert built.returncode == 0, built.stderr
    return folder


def test_every_page_is_in_it_and_in_the_navigation(site: Path) -> None:
    """Also a page that no README names; sections are in the order of `docs/README.md`."""
    front = (site / "index.html").read_text()
    pages = [page for page in DOCS.rglob("*.md") if page.parent.name in SECTIONS]
    assert len(pages) > 40
    for page in pages:
        name = "index" if page.name == "README.md" else page.stem
        assert (site / page.parent.name / f"{name}.html").is_file(), page
        assert f'href="{page.parent.name}/{name}.html"' in front, page
    tabs = re.findall(r'md-tabs__link">\s*(\w+)', front)
    assert [tab.lower() for tab in tabs if tab != "Home"][: len(SECTIONS)] == SECTIONS


def test_nothing_comes_from_another_host(site: Path) -> None:
    """No font, script, style or picture, neither in pages nor in styles."""
    for page in site.rglob("*.html"):
        for found in LOADED.findall(page.read_text()):
            assert not re.match(r"(https?:)?//", "".join(found)), (page, found)
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", style.read_text()), style


def test_files_of_the_repository_are_pages_and_not_in_the_search(site: Path) -> None:
    """A link to an example leads to its text."""
    assert "supervisor" in (site / "code" / "deploy" / "examples" / "supervisor.py.html").read_text()
    assert "code/deploy" not in (site / "search" / "search_index.json").read_text()
