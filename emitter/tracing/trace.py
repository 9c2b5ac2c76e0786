"""The trace of an execution (W3C Trace Context), and a tracer that makes no spans.

A trace comes with a request's headers, stays in the execution's record, and goes with the job to the worker and with
every event into the log. It costs nothing without a `traceparent`. `Tracer` only passes the trace on; the one
of `emitter.tracing.otel` makes spans, and `emitter.tracing.setup` decides which one a process has.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import TracebackType
from typing import Literal, NamedTuple

OURS = "is_runcasts"
"""An attribute of our own providers. Such a provider ends with its tracer, so no other tracer may use it."""
MAX_HEADER = 512
MAX_MEMBERS = 32

Fact = str | int | float | bool | None
"""An attribute of a span; None is left out."""
Kind = Literal["server", "consumer"]

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z")
_KEY = r"[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13}"
_VALUE = r"[ -+\--<>-~]{0,255}[!-+\--<>-~]"  # printable, but for comma and equals sign, and no blank at the end
_MEMBER = re.compile(rf"({_KEY})={_VALUE}\Z")


class Trace(NamedTuple):
    """A span in a trace: the parent of what follows. Ids are lower case hex; `state` is a valid `tracestate`, or
    empty."""

    trace_id: str
    span_id: str
    flags: int
    state: str = ""

    @property
    def is_sampled(self) -> bool:
        return bool(self.flags & 1)

    @property
    def parent(self) -> str:
        """The `traceparent`, as version 00 has it."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"


def read_trace(parents: Sequence[str], states: Sequence[str] = ()) -> Trace | None:
    """The trace that all `traceparent` and `tracestate` headers of a request name (W3C Trace Context Level 1, 3.2 and
    3.3). None if there is none or it is not valid: then a new trace may begin."""
    match = _PARENT.match(parents[0]) if len(parents) == 1 and len(parents[0]) <= MAX_HEADER else None
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest) or not (trace_id.strip("0") and span_id.strip("0")):
        return None
    # Of a version that is not known yet only the sampled bit is understood.
    known = int(flags, 16) if version == "00" else int(flags, 16) & 1
    return Trace(trace_id, span_id, known, _read_state(states))


def _read_state(states: Sequence[str]) -> str:
    """One list of all members; empty if any is not valid."""
    members = [member.strip(" \t") for state in states for member in state.split(",")]
    members = [member for member in members if member]
    state = ",".join(members)
    fits = len(members) <= MAX_MEMBERS and len(state) <= MAX_HEADER
    return state if fits and all(_MEMBER.match(member) for member in members) else ""


def log_fields(trace: Trace | None) -> dict[str, str]:
    """The fields of a log line for its trace."""
    return {} if trace is None else {"trace_id": trace.trace_id}


class Allowance:
    """A rate limit for spans: `burst` at once, and `per_second` in the long run."""

    __slots__ = ("_at", "_burst", "_left", "_per_second")

    def __init__(self, burst: float, per_second: float) -> None:
        self._burst = self._left = burst
        self._per_second = per_second
        self._at = 0.0

    def take(self, now: float) -> bool:
        """Whether one more may be shown at `now` (seconds of a clock that never goes back)."""
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Span:
    """A span that is not made. `trace` is for what happens in it: here, the trace that it was given.

    `with span:` makes it the current one of the task, and ends it; an exception that comes out is its failure.
    """

    __slots__ = ("trace",)

    def __init__(self, trace: Trace | None) -> None:
        self.trace = trace

    def __enter__(self) -> Span:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        pass

    def note(self, **facts: Fact) -> None:
        """Add attributes."""

    def refuse(self, reason: str) -> None:
        """The request was refused for a reason of the caller: an exception out of the block is no failure."""

    def fail(self, reason: str) -> None:
        """Mark the span as failed."""


class Tracer:
    """Makes no spans. Methods are quick, never wait and never raise."""

    is_on = False
    """Whether spans are made, so that their attributes are needed."""

    def start(self, name: str, kind: Kind, trace: Trace | None, **facts: Fact) -> Span:  # noqa: ARG002 - it makes none
        """A span that begins now, as a child of `trace` or, without one, the first of a new trace."""
        return Span(trace)

    def record(self, name: str, trace: Trace, seconds: float, **facts: Fact) -> None:
        """Record a span that ends now and lasted `seconds`."""

    async def close(self) -> None:
        """Send what was not sent yet; bounded."""
