"""Inputs that agents request from people, and the ids by which a retry finds their answers. Pure."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from emitter.errors import InvalidEvent
from emitter.events import InputRequired
from emitter.wire.envelope import encode_value
from emitter.wire.ids import now_ms

InputKind = Literal["approval", "choice", "text", "form"]

ANY_JSON: dict[str, Any] = {}
"""The schema of an input of kind `text` that accepts any JSON."""
OPTIONS_MAX = 100
EXPIRES_SECONDS_MAX = 3650 * 86_400.0
DIGEST_CHARS = 10


class Inputs:
    """Makes the inputs of one attempt.

    The default id is derived from the request and from how often this attempt has made it: a retried agent that makes
    the same request finds the answer to it, and never that to another input.
    """

    def __init__(self) -> None:
        self._asked: Counter[str] = Counter()

    def make(
        self,
        prompt: str,
        kind: InputKind,
        *,
        options: Sequence[str] | None = None,
        schema: dict[str, Any] | None = None,
        expires_in: float | None = None,
        input_id: str | None = None,
    ) -> InputRequired:
        """Raises `InvalidEvent` for an input that cannot be answered."""
        listed = _options(kind, options)
        if not (schema is None or isinstance(schema, dict)):
            raise InvalidEvent(f"schema: a JSON Schema is an object here, not {type(schema).__name__}")
        expires_at = _expires_at(expires_in)
        return InputRequired(
            input_id=self._next_id(_digest(prompt, kind, listed, schema)) if input_id is None else input_id,
            prompt=prompt,
            kind=kind,
            options=listed,
            schema=schema,
            expires_at=expires_at,
        )

    def _next_id(self, digest: str) -> str:
        self._asked[digest] += 1
        return f"in_{digest}_{self._asked[digest]}"


def _digest(*asked: Any) -> str:
    """The same for the same request, in any order of the schema's keys."""
    try:
        canonical = encode_value(asked, is_sorted=True)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise InvalidEvent(f"input:required: {error}") from error
    return hashlib.sha256(canonical).hexdigest()[:DIGEST_CHARS]


def _options(kind: InputKind, options: Sequence[str] | None) -> list[str] | None:
    if not (options is None or isinstance(options, Sequence)) or isinstance(options, str | bytes):
        raise InvalidEvent(f"options: a list of texts, not {type(options).__name__}")
    listed = None if options is None else list(options)
    if kind == "choice":
        usable = {option for option in listed or () if isinstance(option, str) and option.strip()}
        if not listed or len(usable) < len(listed) or len(listed) > OPTIONS_MAX:
            raise InvalidEvent(f"options: a choice has 1 to {OPTIONS_MAX} different texts that are not blank")
    return listed


def _expires_at(seconds: float | None) -> int | None:
    if seconds is None:
        return None
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not number or not 0 < seconds <= EXPIRES_SECONDS_MAX:
        raise InvalidEvent(f"expires_in: {str(seconds)[:40]} is not above 0 s and at most {EXPIRES_SECONDS_MAX:g} s")
    return now_ms() + int(seconds * 1000)
