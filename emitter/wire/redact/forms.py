"""Credentials that are recognised by the text before them: `password=…`, a header, an option. Pure.

The name is found first: `_PAIR` is a word of `keys.STEM`, the rest of the key, and a separator. Then the value is read
as its surroundings write values, and has to be one: no placeholder, no code, no prose.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import re
import string
from collections.abc import Callable, Iterator

from emitter.wire.redact.keys import STEM, Kind, kind_of, may_name, set_of
from emitter.wire.redact.shapes import Span

_QUOTE = r"""\\{0,3}["'`]"""
_PAIR = re.compile(
    rf"(?:{STEM}[a-z0-9_-]{{0,32}}+|(?<=[?&;])sig)((?:{_QUOTE})?\]?)[ \t]{{0,8}}(=>|:=|[:=])(?![:=])[ \t]{{0,8}}"
)
_OPTION = re.compile(rf"(?<![a-z0-9-])--?[a-z0-9-]{{0,32}}?{STEM}[a-z0-9-]{{0,32}}+[ \t]{{1,8}}(?![-=:])")
_NAME_MAX = 96
SHORTEST = 4
"""Characters of a value. So a text grows to twice its length at most, as the emitter's limits assume."""
EXAMINED_MAX = 2000
"""After so many names, which only a hostile text or a list of secrets has, all further values are redacted."""
_KEY_LETTERS = string.ascii_lowercase + string.digits + "_-"

_QUOTED = re.compile(rf"({_QUOTE})(.{{0,2048}}?)(?:\1|\Z)", re.DOTALL)
_BARE = re.compile(r"""((?:[^\s"'`,;<>(){}\[\]&|\\]|&(?![a-z_]\w{0,40}=)){1,1024})""")
_PARAMETER = re.compile(r"""([^\s"'`<>(){}\[\]&\\;]{1,2048})""")
_VARIABLE = re.compile(r"""([^\s"'`<>\\]{1,1024})""")
_ANY_VALUE = re.compile(rf"""(?:{_QUOTE})?([^\s"'`,;&<>\\]{{4,1024}})""")
_COOKIES = re.compile(rf"""(?:{_QUOTE})?([A-Za-z0-9_.$-]{{1,64}}=[^\r\n"'`\\<>{{}}$]{{1,4096}})""")

_SCHEME = re.compile(
    rf"(?:{_QUOTE})?(basic|bearer|token|digest|apikey|key|bot|negotiate|ntlm|oauth|dpop|ssws|geniekey|splunk"
    r"|aws4-hmac-sha256)[ \t]{1,8}",
    re.IGNORECASE,
)
_BEARER = re.compile(r"(?i:bearer)[ \t]{1,8}((?=[A-Za-z._~+/-]{0,64}[0-9])[A-Za-z0-9._~+/-]{16,}+=*)")
_BASIC = re.compile(r"(?i:basic)[ \t]{1,8}([A-Za-z0-9+/]{4,}+={0,2})")
# No word: words have no figures, and capitals only at their beginning.
_BASE64 = re.compile(r"(?![A-Za-z]?[a-z]*\Z)[A-Za-z0-9+/]{4,}={0,2}")
_AUTH_PARAMETERS = re.compile(r"""([A-Za-z]{2,20}=[^\r\n'`\\<>{}$]{4,4096})""")
_LOGIN = re.compile(r"""(?:-u|-U|-a|--user|--proxy-user|--auth)(?:[ \t]{1,4}|=)["']?([^\s:"'/]{1,64}:[^\s"']{1,128})""")
_LOGIN_PROGRAM = re.compile(r"\b(?:curl|wget|https?|xhs?)\b")
_ELEMENT = re.compile(r"<([A-Za-z][\w.:-]{0,40})>([^<\s]{4,256})(?=</)")

_NO_VALUES = set_of(
    "none null nil true false undefined void yes no on off ok empty default required optional todo tbd n/a example"
    " sample dummy placeholder hidden masked redacted removed unset missing invalid valid expired unknown any object"
    " value basic bearer oauth oauth1 oauth2 oidc jwt digest apikey api-key api_key r b f u rb br"
)
_NO_VALUE_PARTS = ("...", "…", "***", "xxxx", "${", "{{", "%(")
_TYPE = re.compile(
    r"""(?:[a-z]+\.)?(?:str|string|text|int|integer|number|bool|boolean|bytes?|char|dict|list|array|float|date|uuid|email)
        \d*\??
    |(?:u?int|utf|base|sha|md|hmac|aes|rsa|ed|es|hs|rs|ps|oauth|http|v|x)[-_]?\d{1,5}|[x.*_-]+
    |your?(?:[-_ ].*)?|my[-_][a-z_-]*|\#[0-9a-f]{3,8}|[~^<>=v]*[0-9]{1,5}(?:\.[0-9x*]{1,6}){1,3}""",
    re.VERBOSE | re.DOTALL,
)
_CLASS = re.compile(r"[A-Z][A-Za-z0-9]{0,40}(?:Key|Token|Secret|Password|Cookie|Type|Types|Error|Class)")
_PATH = re.compile(r"(?:/|\./|\.\./|~/|[A-Za-z]:\\|[a-z+]{2,12}://)")
_CODE = re.compile(
    r"""!?[a-z_$\#][\w$]*(?:\??\.\#?[a-z_$][\w$]*)+|![a-z_]\w*|[a-z]+_\w*|_\w*
    |(?!.*pass)[a-z]*(?:tok|key|cred|cook|auth|secret)[a-z]*[0-9]
    |(?:arg|val|value|var|user|name|item|data|text|line|test|pos|idx|param|field|node|expr|[a-z])[0-9]{1,3}""",
    re.VERBOSE | re.IGNORECASE,
)
_KEY_LIKE = re.compile(r"(?=[A-Za-z]{0,40}[0-9])[A-Za-z0-9]{20,}")
_BLANK = re.compile(r"\s")
_SPECIAL = re.compile(r"[0-9!@$%^*+~]|=[A-Za-z0-9]")
_WORDY = re.compile(r"[A-Za-z]{6,64}")


def may_be_formed(text: str, low: str, *, is_json: bool) -> bool:
    """False if `formed` finds nothing in this text, or in any string of this JSON. `low`: it in lower case."""
    if not (_has_separator(text, is_json=is_json) or "earer" in low or "asic" in low):
        return False
    return may_name(low) or "asic" in low or " -u" in low or "--user" in low or "sig=" in low


def _has_separator(text: str, *, is_json: bool) -> bool:
    """Whether there is something between a name and its value. In JSON as `wire.encode_data` makes it, the colon after
    a key follows a quotation mark that is not escaped."""
    if "=" in text or "--" in text or "</" in text or " -u" in text:
        return True
    return ":" in text.replace('":', "") or '\\":' in text if is_json else ":" in text


_OPENS = re.compile(
    rf"{_PAIR.pattern}|{_OPTION.pattern}|(?:bearer|basic)[ \t]|(?:-u|-a|--user|--proxy-user|--auth)[ \t=]"
    r"|<[a-z][a-z0-9_.:-]{0,40}>"
)


def may_open(low: str, added: int) -> bool:
    """Whether something that names a credential ends within the last `added` characters of this text in lower case."""
    tail, piece = low[-added - _NAME_MAX :], low[-added:]
    has_separator = ":" in piece or "=" in piece or ">" in piece
    if not (has_separator or " -" in tail or "earer" in tail or "asic" in tail):
        return False
    return any(match.end() > len(tail) - added for match in _OPENS.finditer(tail))


def formed(text: str, low: str) -> Iterator[Span]:
    """Where values stand that their names make credentials. `low` is the text with its letters in lower case."""
    yield from _pairs(text, low)
    if "--" in low:
        yield from _options(text, low)
    if "earer" in low:
        yield from (match.span(1) for match in _BEARER.finditer(text))
    if "asic " in low or "asic\t" in low:
        yield from _examined(_BASIC.finditer(text), lambda match: _is_login(match[1]))
    if " -" in low and _LOGIN_PROGRAM.search(low):
        yield from _examined(_LOGIN.finditer(text), lambda match: _is_argument(text, match.start()))
    if "</" in low:
        yield from (m.span(2) for m in _ELEMENT.finditer(text) if kind_of(m[1]) and not is_placeholder(m[2]))


def _pairs(text: str, low: str) -> Iterator[Span]:
    end, pairs = 0, _PAIR.finditer(low)
    for match in itertools.islice(pairs, EXAMINED_MAX):
        for span in _pair(text, low, match) if match.start() >= end else ():
            end = span[1]
            yield span
    for match in pairs:
        if match.start() >= end and (value := _ANY_VALUE.match(text, match.end())):
            end = value.end()
            yield value.span(1)


def _examined(matches: Iterator[re.Match[str]], is_one: Callable[[re.Match[str]], bool]) -> Iterator[Span]:
    return (match.span(1) for number, match in enumerate(matches) if number >= EXAMINED_MAX or is_one(match))


def lower(text: str) -> str:
    """In lower case, letter by letter: of the same length."""
    low = text.lower()
    return low if len(low) == len(text) else text.translate(_ASCII_LOWER)


_ASCII_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def _pair(text: str, low: str, match: re.Match[str]) -> Iterator[Span]:
    before = low[max(0, match.start() - 48) : match.start()]
    start = match.start() - len(before) + len(before.rstrip(_KEY_LETTERS))
    key = text[start : match.start(1)]
    kind: Kind = "weak" if key == "sig" else kind_of(key)
    if not kind:
        return
    name, at = low[start : match.start(1)], match.end()
    if name.endswith(("authorization", "auth", "authheader")) and (scheme := _SCHEME.match(text, at)):
        yield from _after_scheme(text, scheme)
        return
    if name.endswith(("cookie", "cookies")) and (cookies := _COOKIES.match(text, at)):
        yield cookies.span(1)
        return
    quoted = _QUOTED.match(text, at)
    if quoted is not None:
        if _is_quoted_secret(quoted[2], kind, name, is_data=bool(match[1])):
            yield quoted.span(2)
        return
    style = _style(text, start, match, key)
    value = style.match(text, at)
    if value is not None and _is_bare_secret(text, value, kind, name, style):
        yield value.start(1), value.start(1) + len(value[1].rstrip(".,;"))


def _style(text: str, start: int, match: re.Match[str], key: str) -> re.Pattern[str]:
    """How a value without quotes ends here: in a query, in an environment, or elsewhere."""
    is_tight = match[0].endswith("=") and match.end(1) == match.start(2)
    if is_tight and (text[start - 1 : start] in ("?", "&", "#") or key.startswith("-")):
        return _PARAMETER
    return _VARIABLE if is_tight and key.isupper() else _BARE


def _is_quoted_secret(value: str, kind: Kind, name: str, *, is_data: bool) -> bool:
    if len(value) < SHORTEST or not value.isascii() or _BLANK.search(value):
        return False
    if kind == "weak" or not is_data:
        is_word = kind == "secret" and "pass" in name and _WORDY.fullmatch(value) is not None
        return (is_word or _is_strong(value, name)) and not is_placeholder(value)
    is_count = value.isdecimal() and name.endswith("token")
    return not (is_count or is_path(value) or is_placeholder(value)) and any(letter.isalnum() for letter in value)


def _is_bare_secret(text: str, value: re.Match[str], kind: Kind, name: str, style: re.Pattern[str]) -> bool:
    found = value[1].rstrip(".,;")
    follows = text[value.end() : value.end() + 1]
    if len(found) < SHORTEST:
        return False
    if style is _PARAMETER:
        return not is_placeholder(found)
    if follows in ("(", "["):
        return False
    if style is _VARIABLE:
        may_be = "(" not in found and not (found.isdecimal() and "token" in name)
    elif _is_strong(found, name):
        may_be = kind == "secret" or (len(found) >= 6 and "/" not in found)
    else:  # a password of letters ends its line
        is_password = kind == "secret" and "pass" in name and follows in ("", "\n", "\r", "\\")
        may_be = is_password and found.islower() and _WORDY.fullmatch(found) is not None
    return may_be and not (_is_code(found) or is_path(found) or is_placeholder(found))


def is_placeholder(value: str) -> bool:
    """Whether the value is only a placeholder for a secret: `<token>`, `null`, `str`, `my_password`."""
    low = value.lower()
    if low in _NO_VALUES or low.startswith(("<", "{", "$", "%", "[", "(", "*", "@", "?", "&")):
        return True
    if any(part in low for part in _NO_VALUE_PARTS) or _TYPE.fullmatch(low) or _CLASS.fullmatch(value):
        return True
    is_name = value.isascii() and value.replace("_", "").replace("-", "").isalpha()
    return is_name and kind_of(value) != ""


def _is_code(value: str) -> bool:
    if len(value) > 64 or _CODE.fullmatch(value) is None:
        return False
    return not any(_KEY_LIKE.fullmatch(part) and not kind_of(part) for part in value.split("."))


def is_path(value: str) -> bool:
    return _PATH.match(value) is not None


def _is_strong(value: str, name: str) -> bool:
    """Whether this is hardly a word: it has a figure or a sign in it."""
    if len(value) < SHORTEST or _SPECIAL.search(value) is None or is_path(value) or _is_code(value):
        return False
    if value.replace(".", "").replace("-", "").replace(":", "").isdecimal():
        return "pass" in name and value.isdecimal()
    return any(letter.isalnum() for letter in value)


def _after_scheme(text: str, scheme: re.Match[str]) -> Iterator[Span]:
    name = scheme[1].lower()
    value = (_AUTH_PARAMETERS if name in ("digest", "aws4-hmac-sha256", "oauth") else _VARIABLE).match(
        text, scheme.end()
    ) or _VARIABLE.match(text, scheme.end())
    if value is None or is_placeholder(value[1]):
        return
    is_one = (
        bool(_BASE64.fullmatch(value[1])) if name == "basic" else _is_strong(value[1], "pass") or len(value[1]) >= 24
    )
    if is_one:
        yield value.span(1)


def _is_login(value: str) -> bool:
    """Whether this is the base64 of `user:password`."""
    try:
        login = base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
    except (binascii.Error, ValueError):
        return False
    return b":" in login and login.isascii() and login.decode().isprintable()


def _options(text: str, low: str) -> Iterator[Span]:
    for match in _OPTION.finditer(low):
        kind = kind_of(text[match.start() : match.end()].strip(" \t-"))
        value = _QUOTED.match(text, match.end()) or _VARIABLE.match(text, match.end())
        if kind and value is not None:
            found = value[value.lastindex or 1]
            if not is_placeholder(found) and _is_strong(found, "pass"):
                yield value.span(value.lastindex or 1)


def _is_argument(text: str, at: int) -> bool:
    """Whether an option is one of a program that logs in."""
    line = text[max(0, at - 300) : at]
    return _LOGIN_PROGRAM.search(line, max(line.rfind("\n"), line.rfind(";"), line.rfind("|")) + 1) is not None
