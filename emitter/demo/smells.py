"""Searches over the text of files of any language: notes left behind, risky calls, what looks like a credential. Pure.

A finding names the rule, the file and the line, never the line's text: a credential must not travel in an event.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec

from emitter.demo.python_code import Spot
from emitter.demo.survey import SourceFile
from emitter.redact import Redactor

MAX_SPOTS = 500


class Rule(msgspec.Struct, frozen=True):
    """A pattern to search for, line by line. `languages` empty: all code."""

    name: str
    pattern: str
    languages: frozenset[str] = frozenset()


_SCRIPT = frozenset(["JavaScript", "TypeScript", "Vue", "Svelte"])
NOTES = Rule("note left behind", r"\b(TODO|FIXME|HACK|XXX)\b")
RULES = (
    NOTES,
    Rule("eval or exec", r"(?<![\w.])(eval|new Function)\s*\(", _SCRIPT | {"PHP", "Ruby"}),
    Rule("raw HTML from values", r"dangerouslySetInnerHTML|\.innerHTML\s*=|v-html=", _SCRIPT),
    Rule("debug output left behind", r"\bconsole\.(log|debug)\(|\bdebugger;|\bbreakpoint\(\)|\bpdb\.set_trace\("),
    Rule("type check switched off", r"@ts-ignore|@ts-nocheck|#\s*type:\s*ignore|\bas any\b|//\s*nolint"),
    Rule("TLS check switched off", r"verify\s*=\s*False|rejectUnauthorized:\s*false|InsecureSkipVerify:\s*true"),
    Rule("panics on error", r"\.unwrap\(\)|\.expect\(\"|\bpanic!?\(", frozenset(["Rust", "Go"])),
    Rule("empty catch", r"catch\s*(\([^)]*\))?\s*\{\s*\}", _SCRIPT | {"Java", "C#", "Kotlin", "PHP"}),
)
CREDENTIALS = "credential in the code"
_ASSIGNED = re.compile(
    r"""\b\w*(password|passwd|secret|api_?key|access_?token|private_?key)\w*["']?\s*[:=]\s*["']([^"'\s]{8,})["']""",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(
    r"example|changeme|change.me|placeholder|your|dummy|test|fake|sample|redacted|xxx|\*\*\*|<|\$\{|\{\{|%\(|\.\.\.|_",
    re.IGNORECASE,
)


def grep(files: Sequence[SourceFile], rule: Rule) -> list[Spot]:
    """Where the rule's pattern is found, at most `MAX_SPOTS` places."""
    pattern = re.compile(rule.pattern)
    spots: list[Spot] = []
    for source in files:
        if source.is_code and (not rule.languages or source.language in rule.languages):
            spots.extend(Spot(rule.name, source.path, line) for line in _lines(source.text, pattern))
        if len(spots) >= MAX_SPOTS:
            return spots[:MAX_SPOTS]
    return spots


def applies(rule: Rule, files: Sequence[SourceFile]) -> int:
    """How many files the rule is searched in."""
    return sum(1 for file in files if file.is_code and (not rule.languages or file.language in rule.languages))


def _lines(text: str, pattern: re.Pattern[str]) -> Iterator[int]:
    line, position, last = 1, 0, 0
    for match in pattern.finditer(text):
        line += text.count("\n", position, match.start())
        position = match.start()
        if line != last:
            yield line
            last = line


def credentials(files: Sequence[SourceFile]) -> list[Spot]:
    """Strings in the shape of known credentials, and literals assigned to names that say they are secret. Tests and
    placeholders do not count."""
    redactor = Redactor()
    spots: list[Spot] = []
    for source in files:
        if source.is_test or source.language in ("Markdown", "reStructuredText"):
            continue
        shaped = redactor.text(source.text) != source.text
        if shaped or _ASSIGNED.search(source.text):
            spots.extend(_credential_lines(source, redactor))
    return spots[:MAX_SPOTS]


def _credential_lines(source: SourceFile, redactor: Redactor) -> Iterator[Spot]:
    for number, line in enumerate(source.text.split("\n"), 1):
        line = line[:2000]
        assigned = _ASSIGNED.search(line)
        literal = assigned is not None and not _PLACEHOLDER.search(assigned[2])
        if literal or (redactor.text(line) != line and not _PLACEHOLDER.search(line)):
            yield Spot(CREDENTIALS, source.path, number)
