"""Which codings of a body a client takes."""

from __future__ import annotations


def accepts_gzip(header: str) -> bool:
    """Whether a client says that it unpacks gzip (RFC 9110, section 12.5.3); what it says of `*` counts for nothing."""
    for part in header.split(","):
        coding, _, weight = part.partition(";")
        if coding.strip().lower() == "gzip":
            return weight.replace(" ", "").lower() not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
