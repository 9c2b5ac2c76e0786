"""Searches in the text of files of any language: notes, risky calls, what looks like a credential. Pure.

A finding names the rule, the file and the line, never the line's text: a credential must not travel in an event.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from emitter.demo.survey import SourceFile
from emitter.wire.redact import is_secret_key
from emitter.wire.redact.shapes import has_shape

MAX_SPOTS = 500


class Spot(NamedTuple):
    """A place worth a look: which rule, and where."""

    rule: str
    path: str
    line: int


class Rule(msgspec.Struct, frozen=True):
    """A pattern to search for, line by line. `languages` empty: all code."""

    name: str
    pattern: str
    languages: frozenset[str] = frozenset()

    def applies_to(self, source: SourceFile) -> bool:
        return source.is_code and (not self.languages or source.language in self.languages)


_SCRIPT = frozenset(["JavaScript", "TypeScript"])
NOTES = Rule("note left behind", r"\b(TODO|FIXME|HACK|XXX)\b")
RISKS = (
    Rule("eval or exec", r"(?<![\w.])(eval|exec|new Function)\s*\(", _SCRIPT | {"Python", "PHP", "Ruby"}),
    Rule("unsafe deserialisation", r"\b(pickle|marshal)\.loads?\(", frozenset(["Python"])),
    Rule("shell commands", r"\bshell\s*=\s*True\b|\bos\.(system|popen)\("),
    Rule("TLS check switched off", r"verify\s*=\s*False|rejectUnauthorized:\s*false|InsecureSkipVerify:\s*true"),
)
"""What could be turned against the users of the code."""
RULES = (
    NOTES,
    *RISKS,
    Rule("mutable default argument", r"\bdef \w+\([^)\n]{0,200}=\s*(\[\]|\{\})", frozenset(["Python"])),
    Rule("empty catch", r"catch\s*(\([^)]*\))?\s*\{\s*\}", _SCRIPT | {"Java", "C#", "Kotlin", "PHP"}),
    Rule("broad except that hides the error", r"except( Exception)?:\n\s+pass\b", frozenset(["Python"])),
)
CREDENTIALS = "credential in the code"
PRIVATE_KEYS = "private key in a file"
SECRETS = "credential in a file"
_ASSIGNED = re.compile(
    r"""\b\w*(password|passwd|secret|api_?key|access_?token|private_?key)\w*["']?\s*[:=]\s*["']([^"'\s]{8,})["']""",
    re.IGNORECASE,
)
_SPECIMEN = re.compile(
    r"://\w?:\w@|:password@|example|change.?me|placeholder|your|dummy|test|fake|sample|redacted|xxx|\*\*\*|<|\$\{|\{\{|%\(|\.\.\.",
    re.IGNORECASE,
)


def grep(files: Sequence[SourceFile], rule: Rule) -> list[Spot]:
    """Where the rule's pattern is found, at most `MAX_SPOTS` places."""
    pattern = re.compile(rule.pattern)
    spots: list[Spot] = []
    for source in files:
        if rule.applies_to(source):
            spots += [Spot(rule.name, source.path, line) for line in _lines(source.text, pattern)]
        if len(spots) >= MAX_SPOTS:
            break
    return spots[:MAX_SPOTS]


def _lines(text: str, pattern: re.Pattern[str]) -> Iterator[int]:
    line, position, last = 1, 0, 0
    for match in pattern.finditer(text):
        line += text.count("\n", position, match.start())
        position = match.start()
        if line != last:
            yield line
            last = line


def is_searched(source: SourceFile) -> bool:
    """Whether a file is searched for credentials. Tests and documents hold specimens."""
    return not source.is_test and source.language not in ("Markdown", "reStructuredText")


def credentials(files: Sequence[SourceFile], *, everywhere: bool = False) -> list[Spot]:
    """Strings in the shape of known credentials, and literals assigned to names that say they are secret. Placeholders
    do not count, and unless it is to look `everywhere`, neither do tests and documents."""
    spots: list[Spot] = []
    for source in files:
        if (everywhere or is_searched(source)) and (has_shape(source.text) or _ASSIGNED.search(source.text)):
            spots.extend(_credential_lines(source))
    return spots[:MAX_SPOTS]


def _credential_lines(source: SourceFile) -> Iterator[Spot]:
    for number, line in enumerate(source.text.split("\n"), 1):
        line = line[:2000]
        assigned = _ASSIGNED.search(line)
        # With an underscore it is more likely a name than a credential.
        is_literal = assigned is not None and not _SPECIMEN.search(assigned[2]) and "_" not in assigned[2]
        if is_literal or (has_shape(line) and not _SPECIMEN.search(line)):
            yield Spot(CREDENTIALS, source.path, number)


# --- files that hold secrets by their names ---

_SETTING = re.compile(r"""^\s*(?:export\s+)?["']?([\w.-]{1,100})["']?\s*[:=]\s*["']?([^"'\s,]{8,})""")


def secrets(files: Sequence[SourceFile]) -> list[Spot]:
    """Private keys, and settings that are credentials and no placeholders."""
    return [spot for source in files for spot in _secret_lines(source)][:MAX_SPOTS]


def _secret_lines(source: SourceFile) -> Iterator[Spot]:
    for number, line in enumerate(source.text.split("\n"), 1):
        line = line[:2000]
        setting = _SETTING.match(line)
        if line.startswith("-----BEGIN ") and "PRIVATE KEY" in line:
            yield Spot(PRIVATE_KEYS, source.path, number)
        elif _SPECIMEN.search(setting[2] if setting else line):
            continue
        elif (setting and is_secret_key(setting[1])) or has_shape(line):
            yield Spot(SECRETS, source.path, number)
