"""Texts that arrive in pieces, without the credentials of the whole. Pure.

A piece passes at once, unless the text ends in what may be the beginning of a credential: that waits until it is clear.
The name of a credential (`password: `, `ghp_`) is no secret, so only the text after it waits. If the caller releases
waiting text after a timeout, the rest of a credential that was shown in part is still redacted.
"""

from __future__ import annotations

import re

from emitter.wire.redact.forms import lower, may_open
from emitter.wire.redact.shapes import Span, may_be_shaped
from emitter.wire.redact.texts import REDACTED, spans

CONTEXT = 160
"""Characters before a secret that are looked at: its name, header or prefix."""
HELD_MAX = 256
"""What is longer than this, and may still go on, is a credential."""
RECENT_MAX = 640
STREAMS_MAX = 256
NEAR = 40
"""Characters within which a prefix, or the head of a key file, is complete."""

# What a credential may go on with, if the text has what stands before: figures alone suit every set of characters.
_BODY = "7" * 24 + "a1" * 24
_ENDINGS = (
    ("", _BODY), ("eyJ", f"{_BODY}.{_BODY}.{_BODY}"), ("SG.", f"{_BODY[:16]}.{_BODY}"), ("SG.", f".{_BODY}"),
    ("://", "a1@h"), ("@", "h"),
    ("<", "a1a1</"), ("<", "</"), ("<", "/"), ("\\", f'"{_BODY}'), ("\\", f"n{_BODY}"), (" -", ":a1"), (" -", "a:a1"),
)  # fmt: skip
_BODY_ONLY = re.compile(r"[A-Za-z0-9+/=_-]+")
# Most pieces of prose: they complete nothing that has to be followed by a secret.
_CALM = re.compile(r"[a-z ,]*")
_ACCOUNT = re.compile(r"[A-Za-z0-9_.-]{1,64}:[^@]{1,128}@?(?:t|tc|tcp|u|un|uni|unix)?")
_BOUNDS = " \n\t\"'="


class Stream:
    """One text. `recent` is its end as it was given, of which `shown` characters have been dealt with. It is hot while
    a credential may go on, or begin, with the next piece; when it is not, nothing waits."""

    __slots__ = ("_is_hot", "_is_marked", "_recent", "_shown")

    def __init__(self) -> None:
        self._recent = ""
        self._shown = 0
        self._is_hot = self._is_marked = False

    @property
    def is_waiting(self) -> bool:
        return self._is_hot and self._shown < len(self._recent)

    def feed(self, piece: str) -> str:
        """What may be shown of the text by now, besides what was returned before."""
        text = self._recent + piece
        if self._is_marked and len(self._recent) > HELD_MAX and _BODY_ONLY.fullmatch(piece) and not self.is_waiting:
            self._keep(text, len(text), 0)  # more of a long credential
            return ""
        if not self._is_hot and (_is_calm(self._recent, piece) or not _may_begin(text, len(piece))):
            self._recent = text if len(text) < 2 * CONTEXT else text[-CONTEXT:]
            return piece
        if not self._is_hot:
            self._shown, self._is_marked = len(self._recent), False
        found = spans(text)
        begin = self._open(text, found)
        is_long = len(text) - begin > HELD_MAX
        if is_long and found and found[-1][0] == begin:
            found[-1] = (begin, len(text))  # what ends a line of it is not the end
        return self._show(text, found, len(text) if is_long else max(begin, self._shown), begin)

    def release(self) -> str:
        """What waits, without what is a credential already. The text may go on."""
        if not self.is_waiting:
            return ""
        text = self._recent
        found = spans(text)
        return self._show(text, found, len(text), self._open(text, found))

    def _open(self, text: str, found: list[Span]) -> int:
        """Where the credential begins that the text ends in, or may be in; the text's length if there is none."""
        begin = found[-1][0] if found and found[-1][1] == len(text) else len(text) + 3
        for hint, ending in _ENDINGS:
            if hint in text:
                for first, last in spans(text + ending):
                    if first < begin and (first, last) not in found:
                        begin = first
        if (account := _account(text)) >= 0:
            begin = min(begin, account)
        self._is_hot = begin <= len(text) + 2  # the value may begin after a quotation mark
        return min(begin, len(text))

    def _show(self, text: str, found: list[Span], until: int, begin: int) -> str:
        """The text that was not shown yet, up to `until`. The last credential, or what may be one, is from `begin`."""
        out, at = [], self._shown
        for first, last in found:
            if last <= at or first >= until:
                continue
            out.append(text[at:first])
            if first >= at or not self._is_marked:
                out.append(REDACTED)
            at = min(last, until)
            self._is_marked = at == until
        if at < until:
            self._is_marked = False
        out.append(text[at:until])
        self._keep(text, until, max(0, min(begin, until) - CONTEXT))
        return "".join(out)

    def _keep(self, text: str, shown: int, start: int) -> None:
        recent = text[start:]
        if len(recent) > RECENT_MAX:  # a long credential that goes on: its beginning and its end tell as much
            half = RECENT_MAX // 4
            recent = recent[:half] + recent[-half:]
            start = len(text) - len(recent)
        self._recent, self._shown = recent, shown - start


def _is_calm(before: str, piece: str) -> bool:
    """Whether a piece is of small letters and blanks, and no option or scheme that a secret follows ends with it."""
    if _CALM.fullmatch(piece) is None or " -" in before:
        return False
    near = before[-6:] + piece
    return "earer" not in near and "asic" not in near


def _may_begin(text: str, added: int) -> bool:
    """False if no credential can begin in what was `added` to this text, however it goes on."""
    if may_be_shaped(text[-NEAR - added :] + _BODY[-16:]) or _is_address(text):
        return True
    return may_open(lower(text), added) or _account(text) >= 0


def _is_address(text: str) -> bool:
    """Whether the last word of a text begins as a URL."""
    at = text.rfind("://")
    return at >= 0 and at > max(text.rfind(" "), text.rfind("\n"))


def _account(text: str) -> int:
    """Where the account of a DSN as Go writes it (`ada:hunter2@tcp(db)/x`) may begin; -1 if the text ends otherwise."""
    begin = max(map(text.rfind, _BOUNDS)) + 1
    return begin if ":" in text[begin:] and _ACCOUNT.fullmatch(text, begin) else -1


class Streams:
    """The texts of one emitter, by type of event and message."""

    def __init__(self) -> None:
        self._streams: dict[tuple[str, str], Stream] = {}

    def is_waiting(self, name: tuple[str, str]) -> bool:
        stream = self._streams.get(name)
        return stream is not None and stream.is_waiting

    def feed(self, name: tuple[str, str], piece: str) -> str:
        stream = self._streams.get(name)
        if stream is None:
            if len(self._streams) >= STREAMS_MAX and not self._forget_one():
                return piece
            stream = self._streams[name] = Stream()
        return stream.feed(piece)

    def knows(self, name: tuple[str, str]) -> bool:
        return name in self._streams

    def follow(self, name: tuple[str, str], piece: str) -> str:
        """All that may be shown of a piece, where nothing can wait: the rest of a credential that is cut goes."""
        shown = self.feed(name, piece)
        stream = self._streams.get(name)
        return shown if stream is None else shown + stream.release()

    def _forget_one(self) -> bool:
        name = next((name for name, stream in self._streams.items() if not stream.is_waiting), None)
        return name is not None and self._streams.pop(name) is not None

    def release(self) -> list[tuple[tuple[str, str], str]]:
        """What waits of each text."""
        return [(name, stream.release()) for name, stream in self._streams.items() if stream.is_waiting]

    def forget(self, name: tuple[str, str]) -> None:
        """What is complete."""
        self._streams.pop(name, None)
