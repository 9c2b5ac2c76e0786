"""The messages of a page (`UIMessage`, `ai` 5 to 7), as an edge gives them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class UiMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """A `UIMessage` of the SDK."""

    id: str
    role: Literal["user", "assistant"]
    parts: list[dict[str, Any]]
    metadata: dict[str, Any] | None = None


class Conversation(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was said in a chat, oldest first. `omitted`: of so many questions and answers at least, the oldest ones,
    nothing is here."""

    id: str
    messages: list[UiMessage]
    omitted: int = 0
