"""What is written down about the code: lost links, missing papers, functions that explain nothing.

Pure, but for looking which files exist.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

from emitter.demo.python_code import Function, Module, Spot
from emitter.demo.survey import SourceFile

LOST_LINKS = "link that leads nowhere"
MAX_LINKS = 2_000
EXPLAIN_LINES = 10
"""A public function of so many lines is not explained by its name alone."""
_LINK = re.compile(
    r"\[[^\]\n]{0,200}\]\([ ]*<?([^)\s<>#]{1,400})(?:#[^)\s]{0,200})?>?(?:[ ]+\"[^\"\n]{0,200}\")?[ ]*\)"
)
_ELSEWHERE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|/|.*[{}$*]")
"""Addresses, paths from the root of some site, and templates."""
_LICENCE = re.compile(r"(un)?licen[cs]e|copying", re.IGNORECASE)


def lost_links(root: Path, files: Sequence[SourceFile]) -> list[Spot]:
    """Links in Markdown to files inside the directory that are not there. At most `MAX_LINKS` are followed."""
    links = (link for source in files if source.language == "Markdown" for link in _links(source))
    lost = []
    for (path, line, target), _ in zip(links, range(MAX_LINKS), strict=False):
        inside = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        if not inside.startswith("..") and not _exists(root / inside):
            lost.append(Spot(LOST_LINKS, path, line))
    return lost


def _links(source: SourceFile) -> Iterator[tuple[str, int, str]]:
    fenced = False
    for number, line in enumerate(source.text.split("\n"), 1):
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        elif not fenced:
            for match in _LINK.finditer(line[:4000]):
                if not _ELSEWHERE.match(match[1]):
                    yield source.path, number, unquote(match[1])


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long
        return False


def readme(files: Sequence[SourceFile]) -> SourceFile | None:
    """The one at the top."""
    return next((file for file in files if "/" not in file.path and file.name.lower().startswith("readme")), None)


def has_licence(root: Path) -> bool:
    return any(_LICENCE.match(path.name) for path in root.iterdir())


def shows_an_example(source: SourceFile) -> bool:
    """Whether something can be copied from it: a fenced or an indented block."""
    return re.search(r"^(```|~~~|    \S)", source.text, re.MULTILINE) is not None


def unexplained(modules: Sequence[Module]) -> list[tuple[Module, Function]]:
    """Public functions of some length without a docstring, the longest first."""
    found = [
        (module, function)
        for module in modules
        if not module.is_test
        for function in module.functions
        if not function.documented and function.length >= EXPLAIN_LINES and _is_public(function)
    ]
    return sorted(found, key=lambda item: -item[1].length)


def _is_public(function: Function) -> bool:
    return not any(part.startswith("_") for part in function.name.split("."))
