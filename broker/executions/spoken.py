"""What a person's words mean as the answer to a question. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from emitter.events import InputRequired

YES = frozenset({"yes", "y", "true", "ok", "okay", "approve", "approved", "accept"})
NO = frozenset({"no", "n", "false", "deny", "denied", "reject", "rejected", "decline"})


def spoken(question: InputRequired, text: str) -> Any:
    """The value that is meant; the text itself, if it is none that fits."""
    word = text.strip().rstrip(".!").casefold()
    if question.kind == "approval":
        return True if word in YES else False if word in NO else text
    if question.kind == "choice":
        fitting = [option for option in question.options or [] if option.casefold() == word]
        return fitting[0] if len(fitting) == 1 and text not in fitting else text
    if question.kind == "form":
        return _object_in(text)
    return text


def _object_in(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return text
