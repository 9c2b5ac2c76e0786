"""The code blocks of the pages, and what says how each is tested: a comment in the line before its fence.

| comment | means |
|---|---|
| `<!-- file: PATH -->` | the block is a part of that file of the repository, perhaps indented less |
| `<!-- run -->` | its commands run, in the order of the page, and print what follows them |
| `<!-- run: background -->` | it runs while the rest of the page does |
| `<!-- run by: PATH -->` | that test runs it |
| `<!-- not run: REASON -->` | nothing runs it |

Blocks of data (`json`, `text`, …) need none.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>```+)(?P<language>[\w+-]*)[^\n]*\n(?P<text>.*?)^(?P=indent)(?P=fence) *$",
    re.MULTILINE | re.DOTALL,
)
MARK = re.compile(r"<!-- (file|run by|run|not run)(?:: (.*?))? -->\s*\Z")
PROGRAMS = {"python", "js", "ts", "jsx", "tsx", "html", "go", "rust", "java", "kotlin", "console", "sh", "bash"}


class Block(NamedTuple):
    page: Path
    line: int
    language: str
    text: str
    mark: str
    argument: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """README.md and all of `docs`."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for found in FENCE.finditer(text):
        before = text[: found.start()]
        mark = MARK.search(before)
        indent = len(found["indent"])
        lines = "".join(line[indent:] if line.strip() else "\n" for line in found["text"].splitlines(keepends=True))
        said = (mark[1], mark[2] or "") if mark else ("", "")
        yield Block(page, before.count("\n") + 1, found["language"], lines, *said)


def all_blocks() -> list[Block]:
    return [block for page in pages() for block in blocks(page)]


class Command(NamedTuple):
    """A command of a block, and the lines that it prints; None: they are not said."""

    text: str
    prints: list[str] | None


def commands(block: Block) -> list[Command]:
    """Of a `console` block those after `$ `, with what follows each; of any other the whole block."""
    if block.language != "console":
        return [Command(block.text, None)]
    found: list[Command] = []
    continues = False
    for line in block.text.splitlines():
        if continues or line.startswith("$ "):
            text = line if continues else line[2:]
            found[-1:] = [Command(found[-1].text + "\n" + text, [])] if continues else [*found[-1:], Command(text, [])]
            continues = text.endswith("\\") or found[-1].text.count("'") % 2 == 1
        elif found:
            assert found[-1].prints is not None
            found[-1].prints.append(line)
    return found


def is_printed(expected: list[str], printed: str) -> bool:
    """Whether the output is as the page says: `…` stands for anything in a line, a line of it for any lines."""
    pattern = ""
    for line in expected:
        pattern += r"(?:.*\n)*?" if line.strip() == "…" else ".*".join(map(re.escape, line.split("…"))) + r"\n"
    lines = "".join(line.rstrip() + "\n" for line in printed.splitlines())
    return re.fullmatch(pattern, lines) is not None


def dedented(lines: list[str]) -> list[str]:
    """Lines without the indentation that all share."""
    shared = min((len(line) - len(line.lstrip()) for line in lines), default=0)
    return [line[shared:].rstrip() for line in lines]


def is_part_of(text: str, file: Path) -> bool:
    """Whether these lines follow each other in a file. Indentation there and empty lines may differ."""
    wanted = dedented([line for line in text.splitlines() if line.strip()])
    lines = [line for line in file.read_text().splitlines() if line.strip()]
    return any(dedented(lines[at : at + len(wanted)]) == wanted for at in range(len(lines) - len(wanted) + 1))


def tracked() -> list[str]:
    """Every file of the repository, also new ones."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return listed.stdout.splitlines()
