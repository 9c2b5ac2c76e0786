"""Removes credentials from events before anything is stored. Pure.

A value under a key that names a secret is replaced whole (`keys`, `values`): where agents choose the keys, that is in
parameters, results and data of their own. In any text, values with the shape of a credential are removed (`shapes`),
and values that the text names as one (`forms`). Most events have none, so a cheap scan decides whether a full search is
needed. `stream` does the same for a text that arrives in pieces. The time of every expression is linear in its text.
May import: leaves and `wire`.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from emitter.errors import InvalidEvent
from emitter.wire.ascii_json import ascii_json
from emitter.wire.redact.keys import STEM, bare, is_secret_key, may_name
from emitter.wire.redact.shapes import Span
from emitter.wire.redact.texts import REDACTED, Window, may_hold, replace, spans, windows
from emitter.wire.redact.values import clean, clean_schema

__all__ = ["REDACTED", "Redactor", "is_secret_key"]

_FREE_FIELDS = {
    "tool:start": ("params",),
    "tool:complete": ("result",),
    "partial:result": ("result",),
    "artifact": ("data",),
    "input:received": ("value",),
    "user:message": ("data",),
    "execution:complete": ("result",),
    "model:call": ("prompt", "answer"),
}
"""Event type → the fields whose keys the agent chooses; in a custom event all of them."""
_FREE_TYPES = frozenset(_FREE_FIELDS) | {"input:required"}

# A name that stands at the end of a JSON string, as keys do. Keys in other scripts are escaped.
_NAMED = re.compile(STEM + r'[^"]{0,40}"')
_ESCAPES = re.compile(r"\\[nrtbf]")


class Redactor:
    """Redacts the JSON of an event's data. `extra_keys` are more key names, compared without case and punctuation."""

    def __init__(self, extra_keys: Iterable[str] = ()) -> None:
        self._extra = frozenset(filter(None, map(bare, extra_keys)))
        ascii_keys = sorted(key for key in self._extra if key.isascii())
        spelled = "|".join(r"[\W_]*".join(key) for key in ascii_keys)
        self._extra_hint = re.compile(spelled) if ascii_keys else None

    def __call__(self, type_: str, data: bytes) -> bytes:
        """The data (JSON as `wire.encode_data` makes it) without credentials; the same bytes if it holds none.

        Raises `InvalidEvent` for data nested too deeply to look through.
        """
        json = data.decode()
        low = json.lower()
        if "\\" in low:  # the letter of an escape is none of the word after it
            low = _ESCAPES.sub("  ", low)
        if not (may_hold(json, low) or ((type_ in _FREE_TYPES or type_[:7] == "custom:") and self._may_be_named(low))):
            return data
        try:
            return self._rewrite(type_, data)
        except (RecursionError, OverflowError, msgspec.MsgspecError) as error:
            raise InvalidEvent(f"{type_}: {error}") from error

    def text(self, text: str) -> str:
        """A text without credentials."""
        return replace(text, spans(text))

    def pieces(self, pieces: Sequence[str]) -> Iterator[str]:
        """The pieces of one text without the credentials of the whole, as many as there were. Each comes after a
        bounded amount of work, however long the text is."""
        return _cut(pieces, windows("".join(pieces)))

    def values(self, values: dict[str, Any]) -> dict[str, Any]:
        """An object with keys of the agent's or client's choice, without credentials. Raises `InvalidEvent`."""
        try:
            cleaned: dict[str, Any] = clean(values, self._extra)
        except RecursionError as error:
            raise InvalidEvent(str(error)) from error
        return cleaned

    def _may_be_named(self, low: str) -> bool:
        if "\\u" in low or '"-u"' in low or '-user"' in low or (may_name(low) and _NAMED.search(low) is not None):
            return True
        return self._extra_hint is not None and self._extra_hint.search(low) is not None

    def _rewrite(self, type_: str, data: bytes) -> bytes:
        value = msgspec.json.decode(data)
        if type_.startswith("custom:"):
            cleaned = clean(value, self._extra)
        else:
            # Other keys are the catalogue's: to replace a number by a text there would make the event invalid. A
            # form's schema names its fields; a field called "password" is no secret itself.
            cleaned = {key: self._field(type_, key, item) for key, item in value.items()}
        return data if cleaned == value else ascii_json(msgspec.json.encode(cleaned))

    def _field(self, type_: str, key: str, item: Any) -> Any:
        if type_ == "input:required" and key == "schema":
            return clean_schema(item, self._extra)
        return clean(item, self._extra, keys=key in _FREE_FIELDS.get(type_, ()))


def _cut(pieces: Sequence[str], found: Iterator[Window]) -> Iterator[str]:
    """Each piece with what of it is outside of the spans found, which are marked where they begin."""
    known, begin, last_end = 0, 0, -1
    spans_left: deque[Span] = deque()
    for piece in pieces:
        end = begin + len(piece)
        while known < end:
            known, more = next(found)
            spans_left += more
        out, at = [], begin
        while spans_left and spans_left[0][0] < end:
            first, last = spans_left[0]
            out.append(piece[at - begin : max(first, at) - begin])
            if first >= begin and first != last_end:  # or it goes on with one that ended with a window
                out.append(REDACTED)
            at = min(last, end)
            if last > end:
                break
            last_end = last
            spans_left.popleft()
        out.append(piece[at - begin :])
        yield "".join(out)
        begin = end
