"""How an emitter's events are encoded: for the agent itself, and for sub-agents with envelope keys of their own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

from emitter.errors import encodable
from emitter.events import Event, ExecutionStarted, ThinkingDelta
from emitter.publishing.async_methods import TEXT_CHUNK
from emitter.publishing.queue import Encode
from emitter.store.append import prepare_shown, prepare_with
from emitter.store.endings import STACK_CHARS
from emitter.tracing.trace import Trace
from emitter.wire import envelope
from emitter.wire.deltas import MERGED_DELTA_BYTES
from emitter.wire.ids import now_ms
from emitter.wire.mending import words
from emitter.wire.prepared import Prepared, Redaction

ESCAPED_MAX = 12
"""Bytes in JSON that a character of text has at most."""
_NO_FIELDS: Mapping[str, str] = {}
SPEAKERS_MAX = 256
"""Sub-agents whose envelope keys are remembered."""


class Speaker(NamedTuple):
    """How the events of one speaker are encoded: mended if allowed, or strictly as they are."""

    encode: Encode
    encode_strictly: Encode


class Speakers:
    """The speakers of one emitter.

    Args:
        max_bytes: the largest size of an event; 0: no limit.
        start_fields: the record's fields that `execution:started` sets.
        strict: whether no event is mended.
        request_id, agent, parent_id, trace: envelope keys of the emitter's own events.
    """

    def __init__(
        self,
        execution_id: str,
        redact: Redaction,
        max_bytes: int,
        start_fields: Mapping[str, str],
        *,
        strict: bool,
        request_id: str | None,
        agent: str | None,
        parent_id: str | None,
        trace: Trace | None,
    ) -> None:
        self._execution_id = execution_id
        self._redact = redact
        self._max_bytes = max_bytes
        self._start_fields = start_fields
        self._strict = strict
        self._request_id, self._agent, self._parent_id = request_id, agent, parent_id
        self._traceparent = None if trace is None else trace.parent
        self._keys = envelope.envelope_keys(request_id, agent, parent_id, self._traceparent)
        self._others: dict[tuple[str | None, str | None], Speaker] = {}
        self.own = Speaker(self.encode, self.encode_strictly)

    def of(self, agent: str | None, parent_id: str | None) -> Speaker:
        """The speaker with these envelope keys; None: that of the emitter."""
        if agent is None and parent_id is None:
            return self.own
        if (known := self._others.get((agent, parent_id))) is not None:
            return known
        keys = envelope.envelope_keys(
            self._request_id, agent or self._agent, parent_id or self._parent_id, self._traceparent
        )
        if len(self._others) >= SPEAKERS_MAX:
            self._others.clear()
        speaker = Speaker(partial(self.encode, keys=keys), partial(self.encode_strictly, keys=keys))
        self._others[agent, parent_id] = speaker
        return speaker

    def text_limits(self) -> tuple[int, int]:
        """Characters of a chunk of text, and bytes to which encoded chunks merge, that always fit an event."""
        max_bytes = self._max_bytes
        if not max_bytes:
            return TEXT_CHUNK, MERGED_DELTA_BYTES
        room = envelope.room(ThinkingDelta.type, self._execution_id, ts=now_ms(), keys=self._keys, max_bytes=max_bytes)
        room -= 100  # the data's own keys and a usual message id
        # Redaction may make a text longer, at most twice as long (`://a:b@`).
        return max(1, min(TEXT_CHUNK, room // ESCAPED_MAX)), min(MERGED_DELTA_BYTES, room // 2)

    def encode(self, event: Event, ts: int, keys: bytes | None = None) -> Prepared:
        """An event of time `ts` (ms) as it is stored; mended if allowed. Raises `InvalidEvent`, `PayloadTooLarge`."""
        prepare = prepare_with if self._strict else prepare_shown
        return prepare(
            event, self._execution_id, self._redact, self._keys if keys is None else keys, ts, self._max_bytes,
            fields=self._start_fields if event.type == ExecutionStarted.type else _NO_FIELDS,
        )  # fmt: skip

    def encode_strictly(self, event: Event, ts: int, keys: bytes | None = None) -> Prepared:
        """The same, never mended."""
        fields = self._start_fields if event.type == ExecutionStarted.type else _NO_FIELDS
        keys = self._keys if keys is None else keys
        return prepare_with(event, self._execution_id, self._redact, keys, ts, self._max_bytes, fields=fields)

    def record_fields(self, fields: Mapping[str, str]) -> dict[str, str]:
        """Texts as the record keeps them: redacted, cut, and valid UTF-8."""
        redact = self._redact.text
        shown = {name: redact(text if isinstance(text, str) else words(text)) for name, text in fields.items()}
        return {name: encodable(text[:STACK_CHARS]) for name, text in shown.items()}
