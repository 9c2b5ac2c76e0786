"""Credentials that are recognised by their own shape: prefixes of providers, tokens, key files, URLs. Pure.

Every expression is linear in the length of the text: a body is a run of one set of characters, and what is looked
ahead for, or stands between two parts, is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

Span = tuple[int, int]
"""Begin and end of a credential in a text."""

_ALNUM, _WORD, _HEX = "[A-Za-z0-9]", "[A-Za-z0-9_-]", "[0-9a-fA-F]"
# Letters and digits in a row: a name of several words is no key.
_MIXED = f"(?=[A-Za-z]{{0,40}}[0-9])(?=[0-9]{{0,40}}[A-Za-z]){_ALNUM}{{20,}}"

_PREFIXES: tuple[tuple[str, str], ...] = (
    ("sk- sk_ pk- pk_ rk- rk_", _MIXED),  # OpenAI, DeepSeek and others
    ("sk-ant- sk-proj- sk-svcacct- sk-admin- sk-or- sk-lf- pk-lf-", _WORD + "{20,}"),
    ("sk_live_ sk_test_ pk_live_ pk_test_ rk_live_ rk_test_", _WORD + "{16,}"),  # Stripe
    ("ghp_ gho_ ghu_ ghs_ ghr_", _ALNUM + "{30,}"),
    ("github_pat_", "[A-Za-z0-9_]{30,}"),
    ("glpat- glptt- gldt- glrt- glcbt- glsoat- glft- glimt- glagent- gloas-", "[A-Za-z0-9_.-]{20,}"),
    ("AKIA ASIA ABIA ACCA", "[0-9A-Z]{16}"),  # AWS
    ("AIza", _WORD + "{35}"),  # Google, and the four below
    ("GOCSPX-", _WORD + "{20,}"),
    ("ya29.", "[A-Za-z0-9_.-]{20,}"),
    ("1//0", _WORD + "{30,}"),
    ("xoxa- xoxb- xoxc- xoxe- xoxo- xoxp- xoxr- xoxs- xoxe.xoxb- xoxe.xoxp- xapp-", "[0-9A-Za-z-]{10,}"),  # Slack
    ("hf_ api_org_", _ALNUM + "{30,}"),  # Hugging Face
    ("npm_", _ALNUM + "{30,}"),
    ("pypi-Ag", _WORD + "{40,}"),
    ("dckr_pat_ dckr_oat_", _WORD + "{20,}"),
    ("r8_ gsk_ ntn_ jina_ secret_ rubygems_ tfp_ e2b_ fc- tvly- tvly-dev- tvly-prod-", _MIXED),
    ("xai- pplx- nvapi-", _WORD + "{32,}"),
    ("lsv2_pt_ lsv2_sk_", "[0-9a-f_]{24,}"),  # LangSmith
    ("pcsk_", "[A-Za-z0-9_]{30,}"),  # Pinecone
    ("dop_v1_ doo_v1_ dor_v1_", "[0-9a-f]{40,}"),  # DigitalOcean
    ("shpat_ shpca_ shppa_ shpss_", _HEX + "{32}"),  # Shopify
    ("lin_api_ lin_oauth_", _ALNUM + "{30,}"),  # Linear
    ("figd_ figu_", _WORD + "{30,}"),  # Figma
    ("PMAK-", f"{_HEX}{{24}}(?:-{_HEX}{{0,40}})?"),  # Postman
    ("key- sbp_ pul-", _HEX + "{32,}"),  # Mailgun, Supabase, Pulumi
    ("dapi", "[0-9a-f]{32}(?:-[0-9])?"),  # Databricks
    ("hvs. hvb. hvr.", _WORD + "{20,}"),  # Vault
    ("glsa_ glc_", "[A-Za-z0-9_+/=]{30,}"),  # Grafana
    ("ATATT3x ATCTT3x ATBB", "[A-Za-z0-9_=.-]{20,}"),  # Atlassian
    ("SG.", _WORD + r"{16,32}\." + _WORD + "{16,}"),  # SendGrid
    ("whsec_", "[A-Za-z0-9+/=_-]{24,}"),
    ("SK", "[0-9a-f]{32}"),  # Twilio
    ("sntrys_ sntryu_ phx_ bkua_ CCIPAT_ CCIPRJ_ rnd_", "[A-Za-z0-9_+/=-]{24,}"),
    ("re_", f"{_ALNUM}{{6,12}}_{_ALNUM}{{16,}}"),  # Resend
    ("tskey-auth- tskey-api- tskey-client-", "[A-Za-z0-9-]{16,}"),
    ("sq0atp- sq0csp-", _WORD + "{20,}"),  # Square
    ("NRAK- NRII-", _ALNUM + "{20,}"),  # New Relic
    ("dp.pt. dp.st. dp.ct. dp.sa.", "[A-Za-z0-9._-]{30,}"),  # Doppler
    ("AGE-SECRET-KEY-1", "[0-9A-Z]{20,}"),
)


def _by_first_letter() -> str:
    """The shapes, grouped so that the matcher looks at one letter before it tries any."""
    found: dict[str, list[str]] = {}
    for prefixes, body in _PREFIXES:
        for prefix in prefixes.split():
            found.setdefault(prefix[0], []).append(re.escape(prefix[1:]) + body)
    return "|".join(f"{letter}(?:{'|'.join(shapes)})" for letter, shapes in found.items())


_PREFIXED = re.compile(f"(?<![A-Za-z0-9])(?:{_by_first_letter()})")

# In what follows the credential is group 1.
_JWT = re.compile(  # also JWE, of five parts; one whose header is told by its first name may have been cut short
    rf"(?<![A-Za-z0-9_-])(?>{_WORD}*?(?<![A-Za-z0-9])(?=eyJ))"
    rf"({_WORD}{{10,}}+\.{_WORD}*+(?:\.{_WORD}++){{1,3}}"
    rf"|eyJ(?:hbGci|0eXAi|raWQi|lbmMi)Oi{_WORD}{{12,}}+(?:\.{_WORD}++|\.(?=\.{_WORD})){{0,4}})"
)
_HOST = r"(?=@[A-Za-z0-9_\[{$])"
_USERINFO = re.compile(
    rf"""://(?:
    ([^\s/?\#:@"'<>`\\]{{0,128}}:(?![{{\[$%]|//|[0-9]{{1,5}}(?:[/?\#,\s"']|\Z))(?:(?!://)[^\s"'<>`\\]){{1,256}}){_HOST}
    | ((?=[A-Za-z_-]{{0,64}}[0-9])[A-Za-z0-9_-]{{20,}})(?::)?{_HOST}                # a token alone, as in a Sentry DSN
    )""",
    re.VERBOSE,
)
_GO_DSN = re.compile(r"(?<![^\s\"'=])([A-Za-z0-9_.-]{1,64}:[^\s\"'@]{1,128})@(?=(?:tcp|unix)\()")
_HOOKS = re.compile(
    r"""hooks\.slack\.com/(?:services|workflows|triggers)/([A-Za-z0-9/_-]{20,})
    | discord(?:app)?\.com/api/webhooks/(\d{15,22}/[A-Za-z0-9_-]{40,})
    | webhook\.office\.com/webhookb2/([A-Za-z0-9@/_-]{40,})
    | api\.telegram\.org/bot([0-9]{6,12}:[A-Za-z0-9_-]{30,})""",
    re.VERBOSE,
)
_TELEGRAM = re.compile(r"(?<![A-Za-z0-9])([0-9]{8,10}:AA[A-Za-z0-9_-]{32,34})")
_HEAD = r"-----BEGIN[ ][A-Z ]{0,24}PRIVATE[ ]KEY(?:[ ]BLOCK)?-----"
_END = re.compile(r"-----END [A-Z ]{0,24}PRIVATE KEY(?: BLOCK)?-----")
_B64 = r"[A-Za-z0-9+/=]"
_EOL = r"(?:[\r\n]|\\[rn])"  # also as it is written in JSON
_FULL_LINE = rf"""[ \t]{{0,8}}{_B64}++(?=[ \t]{{0,8}}(?:{_EOL}|["'`\\]|-----|\Z))"""
_LINES = rf"(?:[ \t]{{0,8}}{_EOL}{{1,4}}{_FULL_LINE}|[ \t]{{1,8}}{_B64}{{16,}}+)*+"
_PEM = re.compile(
    rf"""({_HEAD}
    (?:[ \t]{{0,8}}{_EOL}{{1,4}}(?:Proc-Type|DEK-Info|Version|Comment|Hash):[ ][^\\\r\n]{{1,200}}){{0,4}}
    (?:[ \t]{{0,8}}{_EOL}{{1,4}}{_FULL_LINE}|(?:[ \t]|{_EOL}){{0,8}}{_B64}{{16,}}+)
    {_LINES}(?:(?:[ \t]|{_EOL}){{0,8}}{_END.pattern.replace(" ", "[ ]")})?)""",
    re.VERBOSE,
)
# The body alone: how the DER of PKCS #8, PKCS #1 and SEC 1 begins in base64, and OpenSSH's own form.
_DER = re.compile(
    rf"""((?:MII[A-Za-z0-9+/]{{3}}IBA(?:DAN|AKC|AKB)|M(?:Hc|HQ|IGk)CAQEE|MI(?:GH|G2|HuA)AgEAM|MC4CAQAwBQYDK2V
       |b3BlbnNzaC1rZXktdjE){_B64}{{16,}}+{_LINES})""",
    re.VERBOSE,
)
_LINES_BACKWARDS = re.compile(rf"(?:[ \t]{{0,8}}(?:[\r\n]|[rn]\\){{1,4}}{_B64}{{1,100}}+)++")
_TAIL_CHARS = 8192


def _separator_hint() -> str:
    """How prefixes stand before their last separator, of which prose has few."""
    ends: dict[str, set[str]] = {}
    for prefixes, _ in _PREFIXES:
        for prefix in prefixes.split():
            at = max(map(prefix.rfind, "-_."))
            if at >= 0:
                ends.setdefault(prefix[at], set()).add(re.escape(prefix[max(0, at - 2) : at + 1]))
    behind = "|".join(f"(?<={'|'.join(sorted(found))})" for found in ends.values())
    return f"(?=[A-Za-z0-9+/=_-]{{8}})(?:{behind})"


_HINT = re.compile(
    rf"""[-_.AIJKB@YQp/](?:(?<=[-_.]){_separator_hint()}
    |(?<=A)(?:(?<=A[KSBC][IC]A)[0-9A-Z]{{8}}|TATT3x|TCTT3x|TBB[A-Za-z0-9]|(?<=:A)A[A-Za-z0-9_-]{{8}})
    |(?<=I)(?:(?<=AI)za|(?<=MI)I[A-Za-z0-9+/]{{3}}IBA|(?<=MI)[GH])|(?<=eyJ)[A-Za-z0-9_-]{{8}}|(?<=SK)[0-9a-f]{{8}}
    |(?<=b3B)lbnNza|(?<=@)(?:tcp|unix)\(|(?<=PRIVATE[ ]KEY)|(?<=CAQ)|(?<=dap)i|(?<=1/)/0)""",
    re.VERBOSE,
)
# It begins with a set of characters that prose has few of, and looks back from there: the matcher skips to them.


def may_be_shaped(text: str) -> bool:
    """False if `shaped` finds nothing in this text, nor in any string of this JSON."""
    if "://" in text and ("@" in text or "hook" in text or "/bot" in text):
        return True
    return _HINT.search(text) is not None


def shaped(text: str) -> Iterator[Span]:
    """The spans of credentials that are recognised by their own shape. Spans may overlap."""
    for wanted, shape in (
        (True, _PREFIXED),
        ("eyJ" in text, _JWT),
        ("://" in text and "@" in text, _USERINFO),
        ("@tcp(" in text or "@unix(" in text, _GO_DSN),
        ("hook" in text or "/bot" in text, _HOOKS),
        (":AA" in text, _TELEGRAM),
        ("-----BEGIN" in text, _PEM),
        (True, _DER),
    ):
        if wanted:
            yield from (match.span(match.lastindex or 0) for match in shape.finditer(text))
    if "-----END" in text:
        yield from _tails(text)


def has_shape(text: str) -> bool:
    """Whether a text contains a credential that is recognised by its own shape."""
    return may_be_shaped(text) and next(iter(shaped(text)), None) is not None


def _tails(text: str) -> Iterator[Span]:
    """The lines of base64 before the end of a PEM, whose head may be elsewhere."""
    after = 0
    for end in _END.finditer(text):
        at = end.start()
        lines = _LINES_BACKWARDS.match(text[max(after, at - _TAIL_CHARS) : at][::-1])
        after = end.end()
        if lines is not None:
            yield at - lines.end(), after
