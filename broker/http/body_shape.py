"""What is too complex to be decoded. Pure."""

from __future__ import annotations

from broker.base.problem import Problem

# What msgspec decodes in about a tenth of a second, and nothing can interrupt: text costs almost nothing, so that these
# bind only what is made of little else than braces.
MAX_CONTAINERS = 50_000
MAX_STRINGS = 250_000
MAX_ITEMS = 400_000
UNCHECKED_BYTES = 256 * 1024


def check_shape(body: bytes) -> None:
    """Refuse JSON that would take long to decode; `Problem` 413. Counting takes a hundredth of the time of decoding."""
    if len(body) <= UNCHECKED_BYTES or _is_simple(body):
        return
    unescaped = body.replace(rb"\\", b"").replace(rb"\"", b"")
    if unescaped.count(b'"') <= 2 * MAX_STRINGS and _is_simple(b"".join(unescaped.split(b'"')[::2])):
        return  # the structure was inside texts
    raise Problem(413, "payload-too-complex", "the body has too many values to be read", limit=MAX_ITEMS)


def _is_simple(json: bytes) -> bool:
    containers = json.count(b"{") + json.count(b"[")
    return json.count(b'"') <= 2 * MAX_STRINGS and containers <= MAX_CONTAINERS and json.count(b",") <= MAX_ITEMS
