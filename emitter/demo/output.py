"""Where the report may be written, and writing it there and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from emitter.demo.report import MARK


def report_path(root: Path, output: Any) -> Path:
    """Where the report may be written: a Markdown file inside the directory, new or an earlier report."""
    if not isinstance(output, str) or not output.endswith(".md") or "\0" in output:
        raise ValueError(f"output {output!r} is not the name of a .md file")
    path = root / output
    if not path.parent.resolve().is_relative_to(root) or not path.parent.is_dir():
        raise ValueError(f"output {output!r} is not inside {root}")
    path = path.parent.resolve() / path.name
    if path.is_symlink() or (path.exists() and not _is_report(path)):
        raise ValueError(f"output {output!r} exists and is no report of ours; it stays as it is")
    return path


def _is_report(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MARK)) == MARK.encode()


def write_report(path: Path, text: str) -> int:
    """Write the report, looking again at what is there. Returns the bytes written."""
    report_path(path.parent, path.name)
    # No link is followed that appeared while a person thought about the approval.
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
    with open(fd, "wb") as file:  # noqa: PTH123 - a descriptor
        return file.write(text.encode("utf-8", "replace"))
