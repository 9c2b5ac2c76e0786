"""From a user's name at an identity provider to the name in Redis keys.

Most names fit a key and stay as they are. Any other (`system:serviceaccount:ns:name`, `spiffe://…`, `Jane Doe`) becomes
`~` and the SHA-256 of its UTF-8 bytes in base64url without padding, 44 characters that do fit. Organisations likewise.
"""

from __future__ import annotations

import base64
import hashlib
import re

from emitter.errors import InvalidEvent
from emitter.wire.keys import OWNER_ID, Owner

MAX_SUBJECT = 2048  # characters; the longest form in use, a SPIFFE id, has as many bytes at most

_DIGEST = re.compile(r"~[A-Za-z0-9_-]{43}\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def owner_named(user: str, org: str = "default") -> Owner:
    """The owner for a name from a person or a program: the subject of the tokens, or the name in keys, such as the
    `user_id` of an agent's context. `InvalidEvent` for any other text, and for surrounding blanks, which are a
    mistake."""
    for name, value in (("user", user), ("org", org)):
        if isinstance(value, str) and value != value.strip():
            raise InvalidEvent(f"{name}: {ascii(value)[:64]} begins or ends with a blank")
    return Owner(_key("user", user), _key("org", org))


def owner_of_token(subject: str, org: str = "default") -> Owner:
    """The owner for the subject of a token. A subject that looks like a digest is hashed as well, so that nobody can
    take the digest of another user. `InvalidEvent` for a subject that is not valid."""
    return Owner(_digest_again(_key("sub", subject), subject), _digest_again(_key("org", org), org))


def _key(name: str, value: str) -> str:
    if isinstance(value, str) and OWNER_ID.match(value):
        return value
    if not isinstance(value, str) or not 0 < len(value) <= MAX_SUBJECT or _CONTROL.search(value):
        shown = ascii(value)[:64]
        raise InvalidEvent(f"{name}: {shown} is not 1 to {MAX_SUBJECT} characters without control characters")
    return _digest(value)


def _digest_again(key: str, value: str) -> str:
    return _digest(value) if key == value and _DIGEST.match(value) else key


def _digest(value: str) -> str:
    digest = hashlib.sha256(value.encode()).digest()
    return "~" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
