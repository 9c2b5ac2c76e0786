"""Files that come with a message, in the one shape in which agents have them, whatever protocol they came by. Pure.

A file is a link (`http`, `https`), which nobody fetches on the way; or the file itself as a `data:` URL; or a handle
that a model's provider has issued. A file of the new message that cannot be given to the agent is refused. In earlier
messages such a file is only marked (`omitted`).
"""

from __future__ import annotations

import base64
import binascii
import re
import urllib.parse
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from broker.base.problem import Problem

BINARY = "application/octet-stream"
SETTING = "RUNCAST_MAX_CONVERSATION_BYTES"
MAX_FILES = 64
"""Parts of a message besides its text."""
MAX_LINK_CHARS = 8_192
MAX_HEADER_CHARS = 1_024
"""Of a `data:` URL, before its comma."""
_LINK = re.compile(r"https?://[^\s/?#\x00-\x1f\x7f][^\s\x00-\x1f\x7f]*", re.IGNORECASE)
_HEADER = re.compile(r"data:([^,\s\x00-\x1f\x7f]*),", re.IGNORECASE)
_BLANK = re.compile(r"[\s\x00-\x1f\x7f]")
_MEDIA_TYPE = re.compile(r"[\w.+*-]+/[\w.+*-]+(;[\w.+*-]+=[\w.+*-]+)*", re.ASCII)
_URL_SAFE = str.maketrans("-_", "+/")

P = TypeVar("P")


class Attachment(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A file of a message. `media_type` and `name` are the client's words. `references`: handles of the file by the
    provider that has it, under an empty name if the client does not name it. `omitted`: why the file is not here.
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


class Taken(NamedTuple):
    """A file that a part is. `field`: where in the part it is, as the part's path goes on."""

    attachment: Attachment
    field: str = ""


class Unfit(Exception):
    """A part that is no file that could be given. `field`: what of the part, as its path goes on."""

    def __init__(self, why: str, field: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.field = field


def collect(parts: Sequence[tuple[int, P]], take: Callable[[P], Taken], path: str, most: int | None) -> list[Found]:
    """The files among `parts`, each with its place in the list of this path. Of what is asked now they hold `most`
    bytes: raises `Problem` 422 for a part that does not fit or is one too many, 413 for the file with which there are
    more bytes. Of what was said before (None) such a part is marked."""
    if most is not None and len(parts) > MAX_FILES:
        raise too_many(f"{path}[{parts[MAX_FILES][0]}]", "parts besides its text")
    found, held_bytes = [], 0
    for place, part in parts[:MAX_FILES]:
        at = f"{path}[{place}]"
        try:
            attachment, field = take(part)
            if most is not None:
                held_bytes += size(attachment)
                _check_room(at + field, held_bytes, most)
                _check(attachment, field)
        except Unfit as error:
            if most is not None:
                raise Problem(422, "invalid", error.why, path=at + error.field) from error
            attachment = Attachment(omitted=error.why)
        found.append(Found(at, attachment))
    if more := len(parts) - len(found):
        found.append(Found(path, Attachment(omitted=f"{more} files: a message has at most {MAX_FILES}")))
    return found


def too_many(path: str, what: str) -> Problem:
    return Problem(422, "invalid", f"a message has at most {MAX_FILES} {what}", path=path, limit=MAX_FILES)


def _check_room(path: str, held_bytes: int, most: int) -> None:
    if held_bytes > most:
        raise Problem(
            413,
            "payload-too-large",
            f"the files of a message hold {held_bytes} bytes up to this one, as JSON; at most {most} fit beside its "
            f"text ({SETTING}): send a link",
            path=path,
            size=held_bytes,
            limit=most,
        )


def linked(url: Any, media_type: Any = None, name: Any = None, *, field: str = ".url") -> Taken:
    """A file by its URL. Raises `Unfit`."""
    if not isinstance(url, str) or not url:
        raise Unfit("a file has a URL", field)
    if url[:5].lower() == "data:":
        return _held(url, _text(media_type), _text(name), field)
    if len(url) > MAX_LINK_CHARS:
        raise Unfit(f"a link has at most {MAX_LINK_CHARS} characters", field)
    if not _LINK.fullmatch(url):
        raise Unfit("a file's URL is of http, https or data", field)
    return Taken(Attachment(url=url, media_type=_text(media_type), name=_text(name)), field)


def _held(url: str, media_type: str | None, name: str | None, field: str) -> Taken:
    match = _HEADER.match(url, 0, MAX_HEADER_CHARS)
    if match is None:
        raise Unfit("a data: URL has a comma before its data", field)
    named = match[1][:-7] if match[1][-7:].lower() == ";base64" else match[1]
    return Taken(Attachment(url=url, media_type=media_type or named or None, name=name), field)


def held(coded: Any, media_type: Any = None, name: Any = None, *, field: str = "") -> Taken:
    """A file by its bytes in base 64, also the alphabet for URLs and without padding. Raises `Unfit`."""
    if not isinstance(coded, str):
        raise Unfit("a file's bytes are text in base 64", field)
    type_ = _text(media_type) or BINARY
    header = type_ if len(type_) < MAX_HEADER_CHARS // 2 and _MEDIA_TYPE.fullmatch(type_) else BINARY
    url = f"data:{header};base64,{padded(coded)}"
    return Taken(Attachment(url=url, media_type=type_, name=_text(name)), field)


def _check(attachment: Attachment, field: str) -> None:
    """Raises `Unfit` for text that is no base 64."""
    coded = bytes_of(attachment)
    if coded is None:
        if attachment.url is not None and _BLANK.search(attachment.url):
            raise Unfit("a data: URL has no spaces", field)
        return
    try:
        base64.b64decode(coded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Unfit(f"a file's bytes are not base 64: {error}", field) from error


def padded(coded: str) -> str:
    """Base 64 in its own alphabet and with padding, whichever way it came."""
    plain = coded.translate(_URL_SAFE).rstrip("=")
    return plain + "=" * (-len(plain) % 4)


def bytes_of(attachment: Attachment) -> str | None:
    """A file's bytes in base 64, if it came with them in that coding."""
    header, _, coded = (attachment.url or "").partition(",")
    is_held = header[:5].lower() == "data:" and header[-7:].lower() == ";base64"
    return urllib.parse.unquote(coded) if is_held else None


def as_file(text: str, media_type: str | None, name: str | None) -> Taken:
    """A text that has a file's name, as a file."""
    return held(base64.b64encode(text.encode()).decode(), media_type or "text/plain", name)


def referred(references: Any, media_type: Any = None, name: Any = None, *, field: str = "") -> Taken:
    """A file by its handles at providers. Raises `Unfit`."""
    is_map = isinstance(references, dict) and bool(references)
    if not is_map or not all(isinstance(each, str) and each for each in references.values()):
        raise Unfit("a file's references are texts by the name of their provider", field)
    about: dict[str, Any] = {"media_type": _text(media_type), "name": _text(name)}
    return Taken(Attachment(references=dict(references), **about), field)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


# --- how much --------------------------------------------------------------------------------------------------------


def fitting(attachments: Sequence[Attachment], room: int) -> tuple[list[Attachment], int]:
    """Files of an earlier message for which there is room, the others marked; and how much room is left."""
    kept: list[Attachment] = []
    unnamed = 0
    for attachment in attachments:
        fit, bytes_ = attachment, size(attachment)
        if bytes_ > room:
            fit = attachment.stub(attachment.omitted or "there is no room for it")
            bytes_ = size(fit)
        if bytes_ > room:
            unnamed += 1
        else:
            kept.append(fit)
            room -= bytes_
    if unnamed:
        kept.append(Attachment(omitted=f"{unnamed} files: there is no room for them"))
    return kept, room


def size(value: Any) -> int:
    """Bytes as JSON, with the comma after it."""
    return len(msgspec.json.encode(value)) + 1


def label_of(found: Sequence[Found]) -> str:
    """The task of a message that has files and no words."""
    return ", ".join(each.attachment.label for each in found)[:1024]
