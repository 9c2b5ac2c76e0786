"""Which answers an input accepts, at an edge and in `emitter.testing`."""

from __future__ import annotations

from typing import Any

from emitter.errors import PayloadTooLarge
from emitter.events import InputReceived, InputRequired
from emitter.store.append import prepare
from emitter.wire import limits
from emitter.wire.inputs import ANY_JSON
from emitter.wire.prepared import Prepared, Redaction


def misfit(request: InputRequired, value: Any) -> str | None:
    """Which answers are allowed, if this one is not. `emitter.form_check` checks the fields of a form."""
    options = request.options
    wanted = {
        "approval": ("true or false", isinstance(value, bool)),
        "choice": (f"one of {options}", isinstance(value, str) and (options is None or value in options)),
        "text": ("text", isinstance(value, str) or request.schema == ANY_JSON),
        "form": ("an object", isinstance(value, dict)),
    }
    allowed, fits = wanted[request.kind]
    return None if fits else allowed


def prepare_answer(
    event: InputReceived,
    execution_id: str,
    *,
    redact: Redaction,
    request_id: str | None = None,
    max_bytes: int = limits.MAX_EVENT_BYTES,
) -> Prepared:
    """An answer as it is stored. Raises `InvalidEvent`, `PayloadTooLarge`."""
    prepared = prepare(event, execution_id, redact=redact, max_bytes=max_bytes, request_id=request_id)
    # The mark has the original answer, for the agent only; the event may be shorter, because it is redacted.
    size = len(prepared.mark.encode())
    if max_bytes and size > max_bytes:
        raise PayloadTooLarge(size, max_bytes)
    return prepared
