"""Appending plain events, which only the log takes: several batches in one call of a short script."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

from emitter.store.append import LogLimits
from emitter.store.connection import Channels, pack
from emitter.wire.keys import Owner
from emitter.wire.prepared import Batch

_TEXT = Path(__file__).with_name("append_plain.lua").read_text()
BATCHES_MAX = 16
"""Batches of one call: while it runs, Redis does nothing else."""
RENEWALS = 64
"""Expiries are renewed this often within their time, as by `append.lua`."""


class Script(NamedTuple):
    text: str
    sha: str


@cache
def plain_script(limits: LogLimits, channels: Channels) -> Script:
    """The script for logs with these limits. They stand in its text, because an argument costs Redis 0.13 µs."""
    fresh_ms = limits.ttl_seconds * 1000 // RENEWALS or "math.huge"
    part_bytes = -(-limits.log_max_bytes // 16)
    text = (
        f"local maxlen, part_bytes, fresh_ms = {limits.log_maxlen}, {part_bytes}, {fresh_ms}\n"
        f"local publish, suffix = '{channels.publish}', '{channels.suffix}'\n{_TEXT}"
    )
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


class Part(NamedTuple):
    """A batch in a call: its keys and its arguments, packed, and how many events it has."""

    keys: bytes
    arguments: bytes
    events: int


class PlainProducer:
    """A producer of one log. What is the same in each of its batches is packed once. `is_exact`: only while the record
    has exactly this attempt (mode `claimed`), not also while it has an older one."""

    def __init__(self, owner: Owner, execution_id: str, producer: str, attempt: int, *, is_exact: bool) -> None:
        execution = owner.execution(execution_id)
        self.keys = pack([execution.record, execution.log])
        self._lead = pack([attempt if is_exact else -attempt, producer])

    def part(self, batch: Batch) -> Part:
        packed = [
            b"%b$%d\r\n%b\r\n" % (_packed_type(event.type), len(event.json), event.json) for event in batch.events
        ]
        first, count = b"%d" % batch.first_seq, b"%d" % len(packed)
        arguments = b"%b$%d\r\n%b\r\n$%d\r\n%b\r\n%b" % (
            self._lead, len(first), first, len(count), count, packed[0] if len(packed) == 1 else b"".join(packed),
        )  # fmt: skip
        return Part(self.keys, arguments, len(packed))


@lru_cache(maxsize=256)
def _packed_type(type_: str) -> bytes:
    return pack([type_])


def plain_call(script: Script, parts: Sequence[Part]) -> bytes:
    """The packed command that appends these batches."""
    count = len(parts)
    arguments = 3 + 6 * count + 2 * sum([part.events for part in parts])
    return b"".join(
        [
            b"*%d\r\n" % arguments,
            pack(["EVALSHA", script.sha, 2 * count]),
            *[part.keys for part in parts],
            *[part.arguments for part in parts],
        ]
    )
