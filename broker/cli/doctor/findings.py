"""The doctor's findings. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

Level = Literal["ok", "note", "warning", "problem"]
MARKS: dict[Level, str] = {"ok": "✓", "note": "·", "warning": "!", "problem": "✗"}


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at. `problem` breaks a promise of Runcast, `warning` will one day; both say what to
    `change`. A `note` could not be looked at, or is worth knowing."""

    level: Level
    what: str
    seen: str
    change: str = ""


def ok(what: str, seen: str) -> Finding:
    return Finding("ok", what, seen)


def note(what: str, seen: str, change: str = "") -> Finding:
    return Finding("note", what, seen, change)


def warning(what: str, seen: str, change: str) -> Finding:
    return Finding("warning", what, seen, change)


def problem(what: str, seen: str, change: str) -> Finding:
    return Finding("problem", what, seen, change)


def is_well(findings: Iterable[Finding]) -> bool:
    """Whether there is no problem."""
    return not any(finding.level == "problem" for finding in findings)


def as_text(findings: Iterable[Finding]) -> str:
    """A line for each finding, and an indented one for what to change."""
    lines = []
    for finding in findings:
        lines.append(f"{MARKS[finding.level]} {finding.what}: {finding.seen}")
        if finding.change:
            lines.append(f"    → {finding.change}")
    return "\n".join(lines)
