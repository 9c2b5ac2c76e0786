"""Media types of a message's parts against those that its agent declares (specification 1.0, section 3.1.1). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from broker.protocols.a2a.errors import CONTENT_TYPE, A2AError
from broker.protocols.a2a.model import Part

PLAIN_TEXT = "text/plain"


def check_modes(parts: Iterable[Part], modes: Sequence[str]) -> None:
    """Raises `A2AError` for a part of a media type that is not among `modes`, or in one of their ranges (`image/*`). A
    part that names no media type is taken: only what the client states can contradict the agent. Any text is plain text
    as well (RFC 2046, section 4.1.4)."""
    for place, part in enumerate(parts):
        type_ = (part.media_type or "").partition(";")[0].strip().lower()
        if type_ and not _is_among(type_, modes):
            detail = f"message.parts[{place}] is {type_[:80]}; the agent takes {', '.join(modes)}"
            raise A2AError(CONTENT_TYPE, detail, mediaType=type_[:80], inputModes=", ".join(modes))


def _is_among(type_: str, modes: Sequence[str]) -> bool:
    kind = type_.partition("/")[0]
    return type_ in modes or f"{kind}/*" in modes or "*/*" in modes or (kind == "text" and PLAIN_TEXT in modes)
