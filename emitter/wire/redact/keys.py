"""Which keys name a secret. Pure.

A key is split into words (`dbPassword`, `X-Auth-Token`). It names a secret if one of them does, unless the last word
says that the value only describes one (`token_type`, `password_policy`, `api_key_id`).
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from functools import lru_cache
from typing import Literal

KEYS_REMEMBERED = 4096
MAX_KEY = 64
"""Of a longer key only the end is looked at."""

Kind = Literal["secret", "weak", ""]


def set_of(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Also as the end of a word: `dbpassword`, `accesstoken`, `jsessionid`. Without accents.
_SECRET_ENDS = (
    "password", "passwords", "passwd", "passphrase", "passcode", "pwd", "secret", "secrets", "token", "cookie",
    "cookies", "authorization", "credential", "credentials", "creds", "apikey", "apikeys", "privatekey", "accesskey",
    "secretkey", "signingkey", "sshkey", "masterkey", "encryptionkey", "accountkey", "sharedkey", "sessid",
    "passwort", "kennwort", "contrasena", "senha", "wachtwoord",
)  # fmt: skip
_SECRET_WORDS = frozenset({"jwt", "bearer", "otp", "totp", "dsn", "parola"})
_SECRET_PHRASES = (
    "password", "passphrase", "motdepasse", "sessionid", "connectionstring", "connstring", "databaseurl",
    "databaseuri", "authheader",
)  # fmt: skip
_SECRET_ELSEWHERE = re.compile(
    "пароль|секрет|密码|密碼|口令|パスワード|暗証番号|비밀번호|كلمة المرور|סיסמה|รหัสผ่าน|κωδικός"
)
# Whose key it is decides: `api_key` and `sshKey` are secrets; `primary_key`, `public_key` and `cache_key` are not.
_KEY_OWNERS = set_of(
    "api private access secret signing signature ssh encryption decryption master account shared storage"
    " service consumer session auth crypto cipher aes hmac rsa pgp gpg wireguard jwt root webhook subscription"
    " deploy"
)
# A token of these kinds is a place in a list, a piece of text, or a number of such pieces.
_PLAIN_TOKENS = set_of(
    "next page nextpage continuation continue pagination sync resume prev previous eos bos pad unk cls sep"
    " mask stop start end first last special max min per num input output total prompt completion cached"
    " reasoning"
)
_DESCRIPTIONS = set_of(
    "type types policy policies id ids arn count counts counter usage name names url uri endpoint file"
    " filename path dir length len limit limits max min size expiry expires expiration exp ttl at in age"
    " status state version enabled required valid field fields label format index idx position offset provider"
    " manager strength hint rotation reset prompt budget budgets rate cost costs price details detail domain"
    " scope scopes algorithm alg form input kind mode class error errors message msg description help title"
    " placeholder env var ref reference store vault window mask str consent banner preferences created updated"
    " modified used"
)
# These have another meaning as well, so only a value that may be a credential goes.
_WEAK_WORDS = frozenset({"pass", "auth", "signature"})
_WEAK_KEYS = frozenset({"sid", "connectsid"})

# A key of ASCII letters alone that names a secret has one of these in it, in lower case. Each begins with a letter, so
# that the matcher can skip to it.
STEM = (
    "(?:pass(?!ag|ed|en|es|i)|pwd|secret(?!ar)|session[_-]?id|sessid|signature|senha|s(?<![a-z]s)id(?![a-z])"
    "|token(?!iz|s)|cookie|cred|conn(?:ection)?[_-]?str|contrasena|auth(?!or(?!i[sz]ation))|k(?<=[a-z_ -]k)ey|kennwort"
    "|otp(?<![a-su-z]otp)(?<![a-z]totp)|jwt|bearer|dsn|database[_-]?ur|db[_-]?ur|wachtwoord|parola)"
)
_STEM = re.compile(STEM)
# The rarer part of most of them: told in half of the time, and most texts have none.
_STEM_HINT = re.compile(
    "k(?:e[ny]|ie)|pass|pwd|cre[dt]|con(?:n|tras)|parola|otp|jwt|bearer|b(?:ase)?[_-]?ur|chtw|uth|gnature"
)
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_PUNCTUATION = re.compile(r"[\W_]+")
# Letters of other scripts that look like Latin ones.
_LOOKALIKES = str.maketrans("аеорсухіѕјһԁѵкмтвнαορυν", "aeopcyxisjhdvkmtbhaopuv") | str.maketrans("łøđı", "lodi")


def is_secret_key(key: str, extra: frozenset[str] = frozenset()) -> bool:
    """Whether a key names a secret: a word of it does (`dbPassword`, `api_key`, `X-Auth-Token`), or `extra` has it."""
    return kind_of(key, extra) == "secret"


def kind_of(key: str, extra: frozenset[str] = frozenset()) -> Kind:
    """`secret`; `weak`, where the value must look like one too; or nothing."""
    if extra and bare(key) in extra:
        return "secret"
    return _kind(key[-MAX_KEY:])


def bare(key: str) -> str:
    """Without case and punctuation."""
    return _PUNCTUATION.sub("", key).lower()


def may_name(low: str) -> bool:
    """False if nothing in this text, in lower case, has a stem."""
    if _STEM_HINT.search(low) is None and not ("sess" in low or "sid" in low or "dsn" in low or "senha" in low):
        return False
    return _STEM.search(low) is not None


@lru_cache(KEYS_REMEMBERED)
def _kind(key: str) -> Kind:
    if not key.isascii():
        if _SECRET_ELSEWHERE.search(unicodedata.normalize("NFKC", key).lower()):
            return "secret"
        letters = unicodedata.normalize("NFKD", key).translate(_LOOKALIKES)
        key = "".join(letter for letter in letters if not unicodedata.combining(letter))
    if not may_name(key.lower()):
        return ""
    words = [word.lower() for word in _WORDS.findall(key)]
    return _kind_of_words(words) if words else ""


def _kind_of_words(words: list[str]) -> Kind:
    joined = "".join(words)
    if joined.endswith(_SECRET_PHRASES) or words[-2:] in (["db", "url"], ["db", "uri"]):
        return "secret"
    if words[-1] in _DESCRIPTIONS:
        return ""
    if any(_is_secret(word, before) for before, word in itertools.pairwise(["", *words])):
        return "secret"
    return "weak" if words[-1] in _WEAK_WORDS or joined in _WEAK_KEYS else ""


def _is_secret(word: str, before: str) -> bool:
    if word.endswith("token"):
        return (word[:-5] or before) not in _PLAIN_TOKENS
    if word in ("key", "keys"):
        return before in _KEY_OWNERS
    return word in _SECRET_WORDS or word.endswith(_SECRET_ENDS)
