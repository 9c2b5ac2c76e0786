"""Which fields of the execution record a script reads, writes and deletes, by its text.

It understands as much of Lua as the scripts use: literals, beginnings of names (`'i:' .. id`, `format('b:%d', n)`), and
variables and tables that hold them. What it does not understand it refuses, so that no field passes by unseen.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

READS = ("HGET", "HMGET", "HEXISTS")
WRITES = ("HSET", "HSETNX")
DELETES = ("HDEL",)
PAIRS = WRITES
"""After the key come fields and values in turn; in all others, fields."""
_CALL = re.compile(r"\bp?call\('(\w+)', (?:record|KEYS\[1\])([,)])")
_RECORD = re.compile(r"^-- KEYS  1 record", re.MULTILINE)


class Uses(NamedTuple):
    """Names of fields, and beginnings of names (`i:`). `given`: arguments that are fields, which the caller names."""

    reads: set[str]
    writes: set[str]
    deletes: set[str]
    given: set[str]


class NotUnderstood(Exception):
    pass


def uses_of(text: str) -> Uses | None:
    """Of a script's text; None if it has nothing to do with a record."""
    return _Script(re.sub(r"--.*", "", text)).uses() if _RECORD.search(text) else None


def scripts(*folders: Path) -> dict[str, str]:
    """Name → text."""
    return {path.name: path.read_text() for folder in folders for path in sorted(folder.rglob("*.lua"))}


class _Script:
    def __init__(self, text: str) -> None:
        self._text = text
        self._lines = [line.strip() for line in text.splitlines()]
        self._given: set[str] = set()

    def uses(self) -> Uses:
        found = Uses(set(), set(), set(), self._given)
        for call in _CALL.finditer(self._text):
            command = call[1]
            if not command.startswith("H"):
                continue
            if command not in READS + WRITES + DELETES:
                raise NotUnderstood(command)
            into = found.reads if command in READS else found.writes if command in WRITES else found.deletes
            arguments = _split(_until_closed(self._text[call.end() :]))
            for argument in arguments[:: 2 if command in PAIRS else 1]:
                into |= self._field(argument, is_pair=command in PAIRS)
        return found

    def _field(self, expression: str, *, is_pair: bool = False) -> set[str]:
        """The fields that an expression in the place of a field stands for."""
        if (fixed := _fixed(expression)) is not None:
            return {fixed}
        if re.fullmatch(r"ARGV\[\d+\]", expression):
            self._given.add(expression)
            return set()
        if table := re.match(r"unpack\((\w+)", expression):
            return self._pairs(table[1]) if is_pair else self._list(table[1])
        if re.fullmatch(r"\w+", expression):
            return self._variable(expression)
        raise NotUnderstood(expression)

    def _variable(self, name: str) -> set[str]:
        values = [value for target, value in self._assigned() if target == name]
        found = {fixed for value in values if (fixed := _fixed(value)) is not None}
        if not found:
            raise NotUnderstood(name)
        return found

    def _list(self, table: str) -> set[str]:
        """What is put into a list of fields, one by one, or by a loop over the keys of another table."""
        found = {field for value in self._appended(table) for field in self._field(value)}
        for keys in re.findall(rf"for (?:\w+) in pairs\((\w+)\) do {table}\[", self._text):
            for key in re.findall(rf"\b{keys}\[([^\[\]]+)\]", self._text):
                found |= self._field(key)
        return found

    def _pairs(self, table: str) -> set[str]:
        """The fields in a list of fields and values: at its beginning, by number, by couples of lines, by loops."""
        found: set[str] = set()
        for target, value in self._assigned():
            number = re.fullmatch(rf"{table}\[(\d+)\]", target)
            if target == table:
                found |= {field for entry in _split(value.strip("{}"))[::2] for field in self._field(entry)}
            elif number and int(number[1]) % 2:
                found |= self._field(value)
        for value in self._appended(table)[::2]:
            found |= {_literal(value)}
        for entries in re.findall(rf"in ipairs\(\{{(.+?)\}}\) do {table}\[", self._text):
            found |= {_literal(entry) for entry in _split(entries)[::2]}
        return found

    def _appended(self, table: str) -> list[str]:
        """Outside of loops, which hold what others named."""
        lead = f"{table}[#{table} + 1] = "
        return [line.removeprefix(lead) for line in self._lines if line.startswith(lead)]

    def _assigned(self) -> list[tuple[str, str]]:
        """Target and value of every assignment that has a line of its own."""
        found = []
        for line in self._lines:
            if match := re.match(r"(?:local )?([\w\[\], :.]+?) = (.+)", line):
                targets, values = _split(match[1]), _split(match[2])
                if len(targets) == len(values):
                    found += list(zip(targets, values, strict=True))
        return found


def _fixed(expression: str) -> str | None:
    """A literal, or what the name begins with."""
    if match := re.fullmatch(r"'([^']+)'(?: \.\. .+)?", expression, re.DOTALL):
        return match[1]
    match = re.fullmatch(r"(?:string\.)?format\('([^'%]+)%d', .+\)", expression)
    return None if match is None else match[1]


def _literal(expression: str) -> str:
    if not re.fullmatch(r"'\w+'", expression):
        raise NotUnderstood(expression)
    return expression[1:-1]


def _until_closed(text: str) -> str:
    depth = 1
    for at, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if depth == 0:
            return text[:at]
    raise NotUnderstood("no closing bracket")


def _split(text: str) -> list[str]:
    """At the commas that stand in no brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]
