"""Takes credentials out of events before anything is stored. Pure.

Two rules: a value under a key that looks secret is replaced whole; inside any string, what has the shape of a known
credential is replaced. The first holds where agents choose the keys (parameters, results, data of their own), the
second everywhere. Most events hold neither, so a cheap scan decides whether to look closer.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from emitter.errors import InvalidEvent
from emitter.wire import ascii_json

REDACTED = "[redacted]"

# Also as the end of a word: `dbpassword`, `accesstoken`, `jsessionid`.
_SECRET_WORDS = (
    "password", "passwords", "passwd", "passphrase", "pwd", "secret", "secrets", "token", "cookie", "cookies",
    "authorization", "credential", "credentials", "apikey", "apikeys", "privatekey", "accesskey", "secretkey",
    "signingkey", "sessionid",
)  # fmt: skip
_PAIRS = frozenset(itertools.product(("api", "private", "access", "secret", "signing"), ("key", "keys")))
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_PUNCTUATION = re.compile(r"[\W_]+")

_SHAPES = re.compile(
    r"""
    -----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY(?:[ ]BLOCK)?-----.*?(?:-----END[ ][A-Z ]*PRIVATE[ ]KEY(?:[ ]BLOCK)?-----|\Z)
    | \b[spr]k[-_](?:ant-|live_|test_|proj-)[A-Za-z0-9_-]{20,}             # Anthropic, Stripe, OpenAI
    | \b[spr]k[-_](?=[A-Za-z_-]{0,64}\d)[A-Za-z0-9_-]{20,}                 # and others; words alone are no key
    | \b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,})        # GitHub
    | \bglpat-[A-Za-z0-9_-]{20,}                                           # GitLab
    | \b(?:AKIA|ASIA)[0-9A-Z]{16}\b                                        # AWS
    | \bAIza[0-9A-Za-z_-]{35}                                              # Google
    | \bxox[abeoprs]-[0-9A-Za-z-]{10,}                                     # Slack
    | \bhf_[A-Za-z0-9]{30,}                                                # Hugging Face
    | (?<![\w-])eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}     # JWT; tried once per run of letters
    | (?<=[Bb]earer[ ])(?=[A-Za-z._~+/-]{0,64}\d)[A-Za-z0-9._~+/-]{16,}=*  # RFC 6750
    | (?<=[Aa]uthorization:[ ]Basic[ ])[A-Za-z0-9+/]{4,}=*                 # RFC 7617
    | (?<=://)[^\s/:@"']{0,128}:[^\s/@"']{1,256}(?=@)                      # user:password in a URL
    """,
    re.VERBOSE | re.DOTALL,
)
# Whatever `_SHAPES` could match has one of these in its JSON. The expression begins with a set of characters that prose
# has few of, and looks back from there: the engine skips to them at once. Together 1 to 3 µs for 100 to 400 bytes; as
# an alternation of words or a loop of `in` it is two to four times as much.
_SHAPE_HINTS = (b"://", b"earer ", b"Basic ")
_SHAPE_HINT = re.compile(
    rb"[-_JKSI](?:(?<=[spr]k[-_])|(?<=gh[pousr]_)|(?<=pat[-_])|(?<=hf_)|(?<=xox.-)|(?<=eyJ)|(?<=A[KS])IA|(?<=AI)za"
    rb"|(?<=-)----BEGIN)"
)

_FREE_FIELDS = {
    "tool:start": "params",
    "tool:complete": "result",
    "partial:result": "result",
    "artifact": "data",
    "input:received": "value",
    "execution:complete": "result",
}
"""Event type → the field whose keys are the agent's own. All of a custom event's are."""

KEYS_REMEMBERED = 4096


def is_secret_key(key: str, extra: frozenset[str] = frozenset()) -> bool:
    """Whether a key names a secret: a word of it does (`dbPassword`, `api_key`, `X-Auth-Token`), or `extra` has it."""
    if extra and _bare(key) in extra:
        return True
    words = [word.lower() for word in _WORDS.findall(key)]
    return any(word.endswith(_SECRET_WORDS) for word in words) or any(
        pair in _PAIRS for pair in itertools.pairwise(words)
    )


def _bare(key: str) -> str:
    return _PUNCTUATION.sub("", key).lower()


class Redactor:
    """Redacts the JSON of an event's data. `extra_keys` are more key names, compared without case and punctuation."""

    def __init__(self, extra_keys: Iterable[str] = ()) -> None:
        self._extra = frozenset(filter(None, map(_bare, extra_keys)))
        self._known: dict[bytes, bool] = {}

    def __call__(self, type_: str, data: bytes) -> bytes:
        """The data (JSON as `wire.encode_data` makes it) without credentials; the same bytes if it holds none.

        Raises `InvalidEvent` for data nested too deeply to look through.
        """
        if not self._may_hold_secrets(type_, data):
            return data
        try:
            return self._rewrite(type_, data)
        except (RecursionError, OverflowError, msgspec.MsgspecError) as error:
            raise InvalidEvent(f"{type_}: {error}") from error

    def text(self, text: str) -> str:
        """A string without credential shapes."""
        return _SHAPES.sub(REDACTED, text)

    def _may_hold_secrets(self, type_: str, data: bytes) -> bool:
        scheme, bearer, basic = _SHAPE_HINTS
        if scheme in data or bearer in data or basic in data or _SHAPE_HINT.search(data) is not None:
            return True
        return (type_ in _FREE_FIELDS or type_.startswith("custom:")) and self._has_secret_key(data)

    def _has_secret_key(self, data: bytes) -> bool:
        for piece in data.split(b'":'):
            start = piece.rfind(b'"')
            if start > 0 and piece[start - 1] == 0x5C:  # a quote within a key, or a string that holds JSON
                return True
            key = piece[start + 1 :]
            secret = self._known.get(key)
            if self._is_secret(key) if secret is None else secret:
                return True
        return False

    def _is_secret(self, key: bytes) -> bool:
        if len(self._known) >= KEYS_REMEMBERED:
            self._known.clear()
        secret = b"\\" in key or is_secret_key(key.decode(), self._extra)  # escapes: decode it to know
        if len(key) <= 64:
            self._known[key] = secret
        return secret

    def _rewrite(self, type_: str, data: bytes) -> bytes:
        value = msgspec.json.decode(data)
        if type_.startswith("custom:"):
            clean = self._clean(value)
        else:
            # Other keys are the catalogue's: to replace a number by a text there would make the event invalid. A
            # form's schema names its fields; a field called "password" is a question, not a secret.
            free = _FREE_FIELDS.get(type_)
            clean = {key: self._clean(item, keys=key == free) for key, item in value.items()}
        return data if clean == value else ascii_json(msgspec.json.encode(clean))

    def _clean(self, value: Any, *, keys: bool = True) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {
                self.text(key): REDACTED if keys and self._hides(key, item) else self._clean(item, keys=keys)
                for key, item in value.items()
            }
        if isinstance(value, list):
            return [self._clean(item, keys=keys) for item in value]
        return value

    def _hides(self, key: str, value: Any) -> bool:
        if value is None or isinstance(value, bool) or not is_secret_key(key, self._extra):
            return False
        # `token: 17` counts something; `token: "17ab"` is one.
        return not (isinstance(value, int | float) and "token" in key.lower())
