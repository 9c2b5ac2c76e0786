"""Takes credentials out of events before anything is stored. Pure.

Two rules: a value under a key that looks secret is replaced whole; inside any string, what has the shape of a known
credential is replaced. Most events hold neither, so a scan for telltale pieces decides cheaply whether to look closer.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from typing import Any

import msgspec

REDACTED = "[redacted]"

_SECRET_WORDS = frozenset(
    ["password", "passwd", "passphrase", "pwd", "secret", "secrets", "token", "cookie", "cookies", "authorization", "credential", "credentials", "apikey", "privatekey", "accesskey", "secretkey", "signingkey", "sessionid"]
)
_COUNTABLE = frozenset({"token"})  # `token: 17` counts something; `token: "17ab"` is one
_PAIRS = frozenset({("api", "key"), ("private", "key"), ("access", "key"), ("secret", "key"), ("signing", "key")})
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")

_SHAPES = re.compile(
    r"""
    -----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY-----.*?(?:-----END[ ][A-Z ]*PRIVATE[ ]KEY-----|\Z)
    | \b(?:sk|pk|rk)[-_](?:ant-|live_|test_|proj-)?[A-Za-z0-9_-]{20,}      # OpenAI, Anthropic, Stripe
    | \b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,})        # GitHub
    | \bglpat-[A-Za-z0-9_-]{20,}                                           # GitLab
    | \b(?:AKIA|ASIA)[0-9A-Z]{16}\b                                        # AWS
    | \bAIza[0-9A-Za-z_-]{35}                                              # Google
    | \bxox[abeoprs]-[0-9A-Za-z-]{10,}                                     # Slack
    | \bhf_[A-Za-z0-9]{30,}                                                # Hugging Face
    | \beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}      # JWT
    | (?<=[Bb]earer[ ])[A-Za-z0-9._~+/-]{16,}=*                            # RFC 6750
    | (?<=://)[^\s/:@"']{1,128}:[^\s/@"']{1,256}(?=@)                      # user:password in a URL
    """,
    re.VERBOSE | re.DOTALL,
)
# One of these, in lower case, is in every event that either rule could touch.
_TELLTALES = (
    b"passw", b"passphrase", b"pwd", b"secret", b"token", b"cookie", b"authoriz", b"credential", b"key", b"sessionid",
    b"session", b"sk-", b"sk_", b"pk-", b"pk_", b"rk-", b"rk_", b"_pat_", b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_",
    b"glpat-", b"akia", b"asia", b"aiza", b"xox", b"hf_", b"eyj", b"bearer", b"://",
)  # fmt: skip


def is_secret_key(key: str, extra: frozenset[str] = frozenset()) -> bool:
    """Whether a key names a secret: one of its words does (`dbPassword`, `api_key`, `X-Auth-Token`), or `extra` has it."""
    words = [word.lower() for word in _WORDS.findall(key)]
    if "".join(words) in extra:
        return True
    return any(word in _SECRET_WORDS for word in words) or any(pair in _PAIRS for pair in itertools.pairwise(words))


class Redactor:
    """Redacts the JSON of an event's data. `extra_keys` are more key names, compared without case and punctuation."""

    def __init__(self, extra_keys: Iterable[str] = ()) -> None:
        self._extra = frozenset(re.sub(r"[^a-z0-9]", "", key.lower()) for key in extra_keys)
        self._telltales = (*_TELLTALES, *(key[:3].encode() for key in self._extra if key))

    def __call__(self, type_: str, data: bytes) -> bytes:
        lowered = data.lower()
        for telltale in self._telltales:
            if telltale in lowered:
                return self._rewrite(type_, data)
        return data

    def text(self, text: str) -> str:
        """A string without credential shapes."""
        return _SHAPES.sub(REDACTED, text)

    def _rewrite(self, type_: str, data: bytes) -> bytes:
        value = msgspec.json.decode(data)
        clean = {
            # A form's schema names its fields; a field called "password" is a question, not a secret.
            key: item if (type_, key) == ("input:required", "schema") else self._member(key, item)
            for key, item in value.items()
        }
        return data if clean == value else msgspec.json.encode(clean)

    def _member(self, key: str, value: Any) -> Any:
        if value is None or isinstance(value, bool) or not is_secret_key(key, self._extra):
            return self._value(value)
        if isinstance(value, (int, float)) and any(word in key.lower() for word in _COUNTABLE):
            return value
        return REDACTED

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {key: self._member(key, item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._value(item) for item in value]
        return value
