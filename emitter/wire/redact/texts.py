"""The spans of credentials in a text. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from emitter.wire.redact.forms import formed, lower, may_be_formed
from emitter.wire.redact.shapes import Span, may_be_shaped, shaped

REDACTED = "[redacted]"
SHORTEST = 8
"""A shorter text cannot contain a credential and the text by which it is recognised."""

WINDOW_CHARS = 32 * 1024
AROUND_CHARS = 8 * 1024


class Window(NamedTuple):
    """What was found up to `end` in a text. A span may reach beyond, and then goes on in the next window's first."""

    end: int
    found: list[Span]


def may_hold(json: str, low: str) -> bool:
    """False if there is no credential in any text of this JSON. `low`: it in lower case."""
    return may_be_shaped(json) or may_be_formed(json, low, is_json=True)


def spans(text: str) -> list[Span]:
    """The spans of credentials in a text, in order and without overlaps."""
    if len(text) < SHORTEST:
        return []
    low = lower(text)
    found: list[Span] = []
    if may_be_shaped(text):
        found += shaped(text)
    if may_be_formed(text, low, is_json=False):
        found += formed(text, low)
    found.sort()
    return found if len(found) < 2 else list(_joined(found))


def windows(text: str) -> Iterator[Window]:
    """`spans` of a text of any length, looked at in parts. Each part is seen with what stands around it, so that only a
    credential longer than that may be cut."""
    done = 0
    for begin in range(0, len(text), WINDOW_CHARS):
        start, end = max(0, begin - AROUND_CHARS), begin + WINDOW_CHARS
        found: list[Span] = []
        done = max(done, begin)
        for first, last in spans(text[start : end + AROUND_CHARS]):
            # What begins with the view may be the rest of a word, and what begins behind the part is the next one's.
            if (first > 0 or start == 0) and first + start < end and last + start > done:
                found.append((max(first + start, done), last + start))
                done = last + start
        yield Window(end, found)


def _joined(found: list[Span]) -> Iterator[Span]:
    begin, end = found[0]
    for first, last in found[1:]:
        if first > end:
            yield begin, end
            begin, end = first, last
        else:
            end = max(end, last)
    yield begin, end


def replace(text: str, found: list[Span]) -> str:
    """The text with a mark in the place of each span."""
    if not found:
        return text
    out: list[str] = []
    at = 0
    for begin, end in found:
        out += (text[at:begin], REDACTED)
        at = end
    return "".join([*out, text[at:]])
