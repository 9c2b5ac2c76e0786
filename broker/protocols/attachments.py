"""Files that come with a message, in the one shape in which agents have them, whatever protocol they came by. Pure.

A file is a link (`http`, `https`), which nobody fetches on the way; or the file itself as a `data:` URL; or a handle
that a model's provider has issued. Of what is asked now, a file that cannot be given is refused. What was said before
was refused then, or is not the caller's to mend: there it is marked in its place (`omitted`).
"""

from __future__ import annotations

import base64
import binascii
import re
import urllib.parse
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from broker.problems import Problem

BINARY = "application/octet-stream"
SETTING = "RUNCAST_MAX_CONVERSATION_BYTES"
_LINK = re.compile(r"https?://[^\s/?#\x00-\x1f\x7f][^\s\x00-\x1f\x7f]*", re.IGNORECASE)
_DATA = re.compile(r"data:([^,\s\x00-\x1f\x7f]*),[^\s\x00-\x1f\x7f]*", re.IGNORECASE)
_MEDIA_TYPE = re.compile(r"[\w.+*-]+/[\w.+*-]+(;[\w.+*-]+=[\w.+*-]+)*", re.ASCII)
_URL_SAFE = str.maketrans("-_", "+/")

P = TypeVar("P")


class Attachment(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A file of a message. `media_type` and `name` are the client's words. `references`: handles of the file by the
    provider that has it, under an empty name where the client does not say whose. `omitted`: why the file is not here.
    """

    url: str | None = None
    media_type: str | None = None
    name: str | None = None
    references: dict[str, str] | None = None
    omitted: str | None = None

    @property
    def label(self) -> str:
        """What to call it where there is no other text."""
        return self.name or self.media_type or "attachment"

    def stub(self, why: str) -> Attachment:
        """What is left of it where there is no room for the file."""
        return Attachment(media_type=self.media_type, name=self.name, omitted=why)


class Found(NamedTuple):
    """A file, and where in the request it stands."""

    path: str
    attachment: Attachment


class Unfit(Exception):
    """A part that is no file that could be given. `field`: what of the part, as its path goes on."""

    def __init__(self, why: str, field: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.field = field


def collect(parts: Iterable[tuple[str, P]], take: Callable[[P], Attachment], *, is_asked: bool) -> list[Found]:
    """The files among `parts`, each given with its path. Raises `Problem` 422 for one of what is asked now that does
    not fit; any other is marked."""
    found = []
    for path, part in parts:
        try:
            found.append(Found(path, take(part)))
        except Unfit as error:
            if is_asked:
                raise Problem(422, "invalid", error.why, path=path + error.field) from error
            found.append(Found(path, Attachment(omitted=error.why)))
    return found


def linked(url: Any, media_type: Any = None, name: Any = None, *, field: str = ".url") -> Attachment:
    """A file by its URL. Raises `Unfit`."""
    if not isinstance(url, str) or not url:
        raise Unfit("a file has a URL", field)
    if url[:5].lower() == "data:":
        return _held(url, _text(media_type), _text(name), field)
    if not _LINK.fullmatch(url):
        raise Unfit("a file's URL is of http, https or data", field)
    return Attachment(url=url, media_type=_text(media_type), name=_text(name))


def _held(url: str, media_type: str | None, name: str | None, field: str) -> Attachment:
    match = _DATA.fullmatch(url)
    if match is None:
        raise Unfit("a data: URL has a comma before its data, and no spaces", field)
    kind, _, coding = match[1].rpartition(";") if ";" in match[1] else (match[1], "", "")
    is_coded = coding.lower() == "base64"
    if is_coded:
        _decoded(urllib.parse.unquote(url[match.end(1) + 1 :]), field)
    named = (kind if is_coded else match[1]) or None
    return Attachment(url=url, media_type=media_type or named, name=name)


def held(coded: Any, media_type: Any = None, name: Any = None, *, field: str = "") -> Attachment:
    """A file by its bytes in base 64, also the alphabet for URLs and without padding. Raises `Unfit`."""
    if not isinstance(coded, str):
        raise Unfit("a file's bytes are text in base 64", field)
    type_, plain = _text(media_type) or BINARY, padded(coded)
    _decoded(plain, field)
    header = type_ if _MEDIA_TYPE.fullmatch(type_) else BINARY
    return Attachment(url=f"data:{header};base64,{plain}", media_type=type_, name=_text(name))


def padded(coded: str) -> str:
    """Base 64 in its own alphabet and with padding, whichever way it came."""
    plain = coded.translate(_URL_SAFE).rstrip("=")
    return plain + "=" * (-len(plain) % 4)


def bytes_of(attachment: Attachment) -> str | None:
    """A file's bytes in base 64, if it came with them in that coding."""
    header, _, coded = (attachment.url or "").partition(",")
    is_held = header[:5].lower() == "data:" and header[-7:].lower() == ";base64"
    return urllib.parse.unquote(coded) if is_held else None


def as_file(text: str, media_type: str | None, name: str | None) -> Attachment:
    """A text that has a file's name, as a file."""
    return held(base64.b64encode(text.encode()).decode(), media_type or "text/plain", name)


def _decoded(coded: str, field: str) -> bytes:
    try:
        return base64.b64decode(coded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Unfit(f"a file's bytes are not base 64: {error}", field) from error


def referred(references: Any, media_type: Any = None, name: Any = None, *, field: str = "") -> Attachment:
    """A file by its handles at providers. Raises `Unfit`."""
    is_map = isinstance(references, dict) and bool(references)
    if not is_map or not all(isinstance(each, str) and each for each in references.values()):
        raise Unfit("a file's references are texts by the name of their provider", field)
    return Attachment(references=dict(references), media_type=_text(media_type), name=_text(name))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


# --- how much --------------------------------------------------------------------------------------------------------


def check_room(found: Sequence[Found], room: int) -> None:
    """Raises `Problem` 413 for the file with which what is asked holds more than `room` bytes."""
    held_bytes = 0
    for path, attachment in found:
        held_bytes += size(attachment)
        if held_bytes > room:
            raise Problem(
                413,
                "payload-too-large",
                f"the files of a message hold {held_bytes} bytes up to this one, as JSON; at most {room} fit beside "
                f"its text ({SETTING}): send a link",
                path=path,
                size=held_bytes,
                limit=room,
            )


def fitting(attachments: Sequence[Attachment], room: int) -> tuple[list[Attachment], int]:
    """Files of an earlier message for which there is room, the others marked; and how much room is left."""
    kept: list[Attachment] = []
    unnamed = 0
    for attachment in attachments:
        stub = attachment.stub(attachment.omitted or "there is no room for it")
        fit = next((each for each in (attachment, stub) if size(each) <= room), None)
        if fit is None:
            unnamed += 1
        else:
            kept.append(fit)
            room -= size(fit)
    if unnamed:
        kept.append(Attachment(omitted=f"{unnamed} files: there is no room for them"))
    return kept, room


def size(value: Any) -> int:
    """Bytes as JSON, with the comma after it."""
    return len(msgspec.json.encode(value)) + 1


def label_of(found: Sequence[Found]) -> str:
    """The task of a message that has files and no words."""
    return ", ".join(each.attachment.label for each in found)[:1024]
