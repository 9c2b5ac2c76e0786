"""JSON without non-ASCII characters."""

from __future__ import annotations

import re
from json.encoder import encode_basestring_ascii

_NON_ASCII = re.compile(r"[^\x00-\x7f]+")


def ascii_json(encoded: bytes) -> bytes:
    """The same JSON with every non-ASCII character escaped: no client's line splitter ever meets U+2028 and its kin."""
    if encoded.isascii():
        return encoded
    return _NON_ASCII.sub(lambda m: encode_basestring_ascii(m[0])[1:-1], encoded.decode()).encode("ascii")
