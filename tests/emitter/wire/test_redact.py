"""What credentials look like, and what does not look like one."""

from __future__ import annotations

import random
import string
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from emitter.errors import InvalidEvent
from emitter.events import (
    ExecutionComplete,
    InputReceived,
    InputRequired,
    MessageDelta,
    Thinking,
    ToolComplete,
    ToolStart,
    Usage,
    UsageTotals,
)
from emitter.wire import ascii_json, envelope
from emitter.wire.redact import REDACTED, Redactor, is_secret_key, keys, shapes
from emitter.wire.redact.texts import spans
from tests.emitter.credentials import LOOKALIKES, Item, corpus, untold

REDACT = Redactor()
WORD = "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8"


def params(value: Any, redact: Redactor = REDACT) -> Any:
    event = ToolStart(call_id="c", tool_name="t", params=value)
    return msgspec.json.decode(redact(event.type, envelope.encode_data(event)))["params"]


SECRET_KEYS = [
    "password", "passwd", "PASSWORD", "dbPassword", "db_password", "dbpassword", "user-password", "passwords", "pwd",
    "passphrase", "secret", "clientSecret", "client_secret", "clientsecret", "token", "accessToken", "access_token",
    "accesstoken", "refreshtoken", "X-Auth-Token", "api_key", "apiKey", "APIKey", "apikey", "x-api-key", "API_KEY",
    "api_keys", "OPENAI_API_KEY", "authorization", "Authorization", "Proxy-Authorization", "cookie", "Set-Cookie",
    "cookies", "private_key", "privateKey", "secretKey", "AWS_SECRET_ACCESS_KEY", "credential", "credentials",
    "sessionid", "JSESSIONID", "signing_key", "ssh_key", "encryption_key", "master_key", "account_key", "token2",
    "connection_string", "dsn", "DATABASE_URL", "session_id", "sessionId", "otp", "jwt", "bearer", "creds", "passcode",
    "pass_word", "passWord", "pAssWord", "passwort", "contraseña", "mot_de_passe", "motDePasse", "senha", "wachtwoord",
    "db_url", "пароль", "p\u0430ssword", "t\u043eken", "密码", "パスワード", "SecretString",
    "\uff30\uff21\uff33\uff33\uff37\uff2f\uff32\uff24",
]  # fmt: skip
PLAIN_KEYS = [
    "inputTokens",
    "outputTokens",
    "totalTokens",
    "tokensUsed",
    "max_tokens",
    "tokenizer",
    "primary_key",
    "foreignKey",
    "key",
    "keys",
    "keyboard",
    "monkey",
    "public_key",
    "author",
    "authored",
    "cook",
    "compass",
    "passenger",
    "secretary",
    "session",
    "keyword",
    "hotkey",
    "tokens",
    "next_token",
    "nextPageToken",
    "page_token",
    "nexttoken",
    "continuation_token",
    "token_type",
    "eos_token",
    "cookie_policy",
    "password_policy",
    "api_key_id",
    "token_count",
    "secretsManagerArn",
    "secretName",
    "AWS_ACCESS_KEY_ID",
    "tokenUsage",
    "access_token_expires_in",
    "cache_key",
    "bypass",
]
WEAK_KEYS = ["pass", "smtp_pass", "auth", "basicAuth", "signature", "sid", "connect.sid"]  # fmt: skip


@pytest.mark.parametrize("key", SECRET_KEYS)
def test_values_under_secret_keys_are_replaced_whole(key: str) -> None:
    """Whatever the value is, however deep the key."""
    assert params({key: "hunter2"}) == {key: REDACTED}
    assert params({"a": [{key: ["x", {"y": 1}]}]}) == {"a": [{key: REDACTED}]}
    assert params({key: {"b": "c"}, "d": 1}) == {key: REDACTED, "d": 1}


@pytest.mark.parametrize("key", PLAIN_KEYS)
def test_values_under_other_keys_stay(key: str) -> None:
    """A key that merely resembles one is none."""
    assert params({key: "hunter2"}) == {key: "hunter2"}
    assert not is_secret_key(key)


def test_counts_of_tokens_stay() -> None:
    """A number under `token` counts something; under `password` it is one. True, false and null tell nothing."""
    value = {"token": 17, "password": 1234, "secret": True, "cookie": None}
    assert params(value) == {"token": 17, "password": REDACTED, "secret": True, "cookie": None}


SHAPES = [
    "sk-" + WORD, "sk-ant-api03-" + WORD, "sk-proj-" + WORD, "sk_live_" + WORD, "rk_test_" + WORD, "pk_live_" + WORD,
    "ghp_" + WORD, "gho_" + WORD, "github_pat_" + WORD, "glpat-" + WORD, "AKIAIOSFODNN7EXAMPLE", "ASIAIOSFODNN7EXAMPLE",
    "AIza" + (WORD * 2)[:35], "xoxb-1234567890-abcdef", "xoxp-1234567890", "hf_" + WORD,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlMTIz",
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("frame", ["{}", "use {} now", "k={}", '"{}"', "\n{}\n", "é{}"])
def test_credential_shapes_are_replaced_in_any_text(shape: str, frame: str) -> None:
    """In parameters, results, thoughts, chunks and names of keys alike; what is around them stays."""
    if frame == "é{}":
        frame = "é {}"
    text, clean = frame.format(shape), frame.format(REDACTED)
    assert params({"q": [text]}) == {"q": [clean]}
    assert params({text: 1}) == {clean: 1}
    for event in (Thinking(thought=text), MessageDelta(message_id="m", delta=text)):
        data = msgspec.json.decode(REDACT(event.type, envelope.encode_data(event)))
        assert clean in data.values()


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Authorization: Bearer " + WORD, "Authorization: Bearer " + REDACTED),
        ("curl -H 'authorization: Basic YWxpY2U6aHVudGVyMg=='", f"curl -H 'authorization: Basic {REDACTED}'"),
        ("redis://user:hunter2@host:1/0", f"redis://{REDACTED}@host:1/0"),
        ("redis://:hunter2@host", f"redis://{REDACTED}@host"),
        ("see https://host/a@b and http://host:80/x", "see https://host/a@b and http://host:80/x"),
        ("a\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nb", f"a\n{REDACTED}\nb"),
        ("-----BEGIN PGP PRIVATE KEY BLOCK-----\nabc", REDACTED),
        ("-----BEGIN CERTIFICATE-----\nMIIE", "-----BEGIN CERTIFICATE-----\nMIIE"),
        ("Bearer responsibilities of everybody", "Bearer responsibilities of everybody"),
        ("pk_organization_membership_roles", "pk_organization_membership_roles"),
        ("sk-learn-is-a-very-long-name-indeed", "sk-learn-is-a-very-long-name-indeed"),
        ("task-analysis-of-the-quarter-2026-11", "task-analysis-of-the-quarter-2026-11"),
        ("The secret of the token is a cookie: key", "The secret of the token is a cookie: key"),
    ],
)
def test_texts_with_and_without_credentials(text: str, clean: str) -> None:
    """A credential goes, its surroundings stay, and ordinary words are no credential."""
    assert params(text) == clean
    assert REDACT.text(text) == clean


def test_a_form_may_ask_for_a_password() -> None:
    """The schema's field names are questions; a credential in it goes all the same, and so does one in an answer."""
    schema = {"properties": {"password": {"type": "string", "default": "ghp_" + WORD}}}
    event = InputRequired(input_id="i", prompt="Login", kind="form", schema=schema)
    data = msgspec.json.decode(REDACT(event.type, envelope.encode_data(event)))
    assert data["schema"] == {"properties": {"password": {"type": "string", "default": REDACTED}}}
    answer = InputReceived(input_id="i", by="alice", value={"password": "hunter2"})
    assert msgspec.json.decode(REDACT(answer.type, envelope.encode_data(answer)))["value"] == {"password": REDACTED}


@pytest.mark.parametrize(
    ("extra", "key"),
    [
        ("iban", "IBAN"),
        ("x-acme-pin", "xAcmePin"),
        ("xAcmePin", "X_ACME_PIN"),
        ("пароль", "Пароль"),
        ("geheim-nr", "geheim nr"),
    ],
)
def test_more_keys_can_be_named(extra: str, key: str) -> None:
    """They are compared without case and punctuation, in any script."""
    redact = Redactor([extra, ""])
    assert params({"a": {key: "x"}, "other": "x"}, redact) == {"a": {key: REDACTED}, "other": "x"}


def test_more_keys_cannot_break_the_catalogue() -> None:
    """Field names of the catalogue are not the agent's keys: replacing them would make events invalid."""
    redact = Redactor(["duration", "inputTokens", "thought", "callId"])
    usage = Usage(input_tokens=1, output_tokens=2, total_tokens=3)
    for event in (
        ToolComplete(call_id="c", tool_name="t", result={"thought": "x y", "n": 1}, duration=1.5),
        UsageTotals(input_tokens=1, output_tokens=2, total_tokens=3),
        Thinking(thought="sk-" + WORD),
        ExecutionComplete(result={"usage": msgspec.to_builtins(usage)}, duration=1.0),
    ):
        envelope.decode_event(event.type, redact(event.type, envelope.encode_data(event)))


def test_custom_events_are_all_the_agents_own() -> None:
    """Their keys are looked at from the top."""
    assert msgspec.json.decode(REDACT("custom:x", b'{"api_key":"a","b":1}')) == {"api_key": REDACTED, "b": 1}


@pytest.mark.parametrize("key", ['pass"token', "token\\", 'a"password', "s\u00e9-token", "x\ntoken"])
def test_keys_with_escapes_are_looked_at_decoded(key: str) -> None:
    """No way of writing a key in JSON hides it."""
    assert params({key: "hunter2"}) == {key: REDACTED}


def test_other_events_keep_every_byte() -> None:
    """An event without credentials comes back as the same object, whatever text, numbers and keys it holds."""
    chance = random.Random(11)
    letters = string.ascii_letters + string.digits + " .,:;'\"\\/{}[]()<>é\u2028😀\n\t"

    def value(depth: int) -> Any:
        kind = chance.randrange(7 if depth else 5)
        if kind == 5:
            return [value(depth - 1) for _ in range(chance.randrange(4))]
        if kind == 6:
            return {chance.choice(PLAIN_KEYS): value(depth - 1) for _ in range(chance.randrange(4))}
        return [None, True, chance.randrange(-(2**70), 2**70), chance.random(), "".join(chance.choices(letters, k=30))][
            kind
        ]

    for _ in range(500):
        event = ToolComplete(call_id="c", tool_name="t", result=value(4), duration=chance.random())
        data = envelope.encode_data(event)
        assert REDACT(event.type, data) is data or REDACT(event.type, data) == data


def test_what_is_replaced_is_still_ascii_on_one_line() -> None:
    """Redaction rewrites the JSON; it stays as the log wants it."""
    out = REDACT("custom:x", ascii_json.ascii_json('{"token":"x","note":"é\u2028\\n"}'.encode()))
    assert out.isascii()
    assert b"\n" not in out
    assert msgspec.json.decode(out) == {"token": REDACTED, "note": "é\u2028\n"}


def test_numbers_beyond_64_bits_survive_beside_a_secret() -> None:
    """Rewriting an event changes nothing but the secret."""
    assert params({"token": "x", "n": 2**200, "m": -(2**70), "f": 1e300}) == {
        "token": REDACTED,
        "n": 2**200,
        "m": -(2**70),
        "f": 1e300,
    }


def test_nesting_that_cannot_be_looked_through_is_refused() -> None:
    """Too deep is an `InvalidEvent`, never a crash or an unseen secret."""
    value: Any = "ghp_" + WORD
    for _ in range(900):
        value = [value]
    with pytest.raises(InvalidEvent):
        REDACT("tool:start", envelope.encode_data(ToolStart(call_id="c", tool_name="t", params=value)))


@pytest.mark.parametrize("key", WEAK_KEYS)
def test_keys_of_several_meanings_hide_only_what_may_be_a_credential(key: str) -> None:
    """A word that is no common one goes; counts, sentences, signatures of functions and common words stay."""
    assert params({key: "hunter2", "a": [{key: "hunter2"}]}) == {key: REDACTED, "a": [{key: REDACTED}]}
    for value in (3, None, True, "first pass of two", "f(a,b)", "required", "basic", ["x"], {"user": "ada"}, ""):
        assert params({key: value}) == {key: value}


def test_a_working_directory_is_no_password() -> None:
    """`pwd` is either."""
    assert params({"pwd": "/home/ada", "db_pwd": "hunter2"}) == {"pwd": "/home/ada", "db_pwd": REDACTED}


def test_usage_of_tokens_stays() -> None:
    """An object of numbers counts something, whatever it is called."""
    usage = {"token_usage": {"prompt": 3}, "token": {"in": 1, "out": 2}, "nextToken": "eyJhIjoxfQ"}
    assert params(usage) == usage


@pytest.mark.parametrize(
    ("value", "clean"),
    [
        ([["Authorization", "x y"], ["Accept", "z"]], [["Authorization", REDACTED], ["Accept", "z"]]),
        ([["password", "text"], ["email", "text"]], [["password", "text"], ["email", "text"]]),
        ({"name": "password", "value": "hunter2"}, {"name": "password", "value": REDACTED}),
        ([{"name": "DB_PASSWORD", "value": "x"}, {"name": "PORT", "value": "1"}],
         [{"name": "DB_PASSWORD", "value": REDACTED}, {"name": "PORT", "value": "1"}]),
        ({"name": "next_token", "value": "abc"}, {"name": "next_token", "value": "abc"}),
        (["login", "--password", "hunter2", "-v"], ["login", "--password", REDACTED, "-v"]),
        (["x", "--token=swordfish"], ["x", "--token=" + REDACTED]),
        (["curl", "-u", "ada:hunter2", "x"], ["curl", "-u", REDACTED, "x"]),
        (["docker", "run", "-u", "ada:staff"], ["docker", "run", "-u", "ada:staff"]),
        (["API_KEY=swordfish", "PATH=/bin"], ["API_KEY=" + REDACTED, "PATH=/bin"]),
        ({"required": ["password", "email"]}, {"required": ["password", "email"]}),
        ({"password": ""}, {"password": ""}),
    ],
)  # fmt: skip
def test_names_and_values_that_stand_side_by_side(value: Any, clean: Any) -> None:
    """Pairs, named values, command lines and environments name their secrets too."""
    assert params({"a": value}) == {"a": clean}


# --- the corpus ------------------------------------------------------------------------------------------------------

CORPUS = corpus()
UNTOLD = untold()
TEXT_FIELDS: list[tuple[str, dict[str, Any], str]] = [
    ("status", {"status": "x"}, "message"),
    ("status", {"message": "x"}, "status"),
    ("tool:progress", {"callId": "c"}, "message"),
    ("tool:error", {"callId": "c", "toolName": "t", "duration": 1.0}, "error"),
    ("execution:error", {}, "error"),
    ("execution:queued", {"agent": "a"}, "task"),
    ("sandbox:violation", {"rule": "r"}, "detail"),
    ("artifact", {"artifactId": "a", "mediaType": "text/plain"}, "text"),
    ("artifact", {"artifactId": "a", "mediaType": "text/plain"}, "url"),
    ("progress", {"progress": 1.0}, "currentAction"),
    ("synthesis", {"specialistsComplete": [], "specialistsPending": []}, "message"),
    ("input:required", {"inputId": "i", "kind": "text"}, "prompt"),
    ("message:complete", {"messageId": "m"}, "text"),
    ("thinking", {}, "thought"),
    ("custom:x", {}, "note"),
]


def test_the_corpus_is_caught() -> None:
    """All but what nobody can tell by its shape; and each in every place where agents say something."""
    assert len(CORPUS) >= 167
    passed = [item for item in CORPUS if item.secret in REDACT.text(item.text)]
    assert [item.text for item in passed] == [item.text for item in untold_of(CORPUS)]
    assert len(CORPUS) - len(passed) >= 160


def untold_of(items: list[Item]) -> list[Item]:
    return items[-len(UNTOLD) :]


@pytest.mark.parametrize("key", [key for key in SECRET_KEYS + WEAK_KEYS if key.isascii()])
def test_no_key_escapes_the_scan(key: str) -> None:
    """Nor do keys: in JSON of whatever type, as a key of its own or within a text."""
    assert keys.may_name(key.lower())
    assert params({"a": f'{{"{key}": "hunter2x7"}}'}) == {"a": f'{{"{key}": "{REDACTED}"}}'}
    for before in ("", "\n", "\t", "a\r\n", "\\\n", "\u00e9 "):
        text, clean = f"{before}?{key}=hunter2x7", f"{before}?{key}={REDACTED}"
        assert params(text) == REDACT.text(text)
        assert key.count(".") or params(text) == clean
        text = f"{before}{key}: hunter2x7"
        data = envelope.encode_data(Thinking(thought=text))
        assert msgspec.json.decode(REDACT("thinking", data)) == {"thought": REDACT.text(text)}


@pytest.mark.parametrize("prefix", [prefix for prefixes, _ in shapes._PREFIXES for prefix in prefixes.split()])
def test_no_prefix_escapes_the_scan(prefix: str) -> None:
    """The scan that decides whether to look closer knows them all."""
    bodies = ["7a" * 60, "7A" * 60, "7" * 40, "a7" * 12 + "." + "a7" * 30, "a7a7a7a7_" + "a7" * 20]
    found = [prefix + body for body in bodies if shapes._PREFIXED.match(prefix + body)]
    assert found
    assert all(REDACT.text(f"({text})").startswith(f"({REDACTED}") for text in found)


@pytest.mark.parametrize(("type_", "about", "field"), TEXT_FIELDS)
def test_every_field_of_text_is_looked_at(type_: str, about: dict[str, Any], field: str) -> None:
    """Whatever the type of the event: the scan of its JSON sees what the scan of its text sees."""
    for item in CORPUS[: -len(UNTOLD)]:
        data = ascii_json.ascii_json(msgspec.json.encode(about | {field: item.text}))
        assert msgspec.json.decode(REDACT(type_, data))[field] == REDACT.text(item.text)


def test_nothing_else_is_taken() -> None:
    """Names, ids, hashes, code, prose and placeholders stay, in any field."""
    for text in LOOKALIKES:
        assert REDACT.text(text) == text
        assert params({"q": [text], "k": text}) == {"q": [text], "k": text}
        data = envelope.encode_data(Thinking(thought=text))
        assert REDACT("thinking", data) is data or REDACT("thinking", data) == data


def test_the_projects_own_text_is_left_alone() -> None:
    """All of its code and pages but for specimens of addresses with a password."""
    root = Path(__file__).parents[3]
    pages = [*root.glob("*.md"), *root.glob("emitter/**/*.py"), *root.glob("broker/**/*.py"), *root.glob("broker/*.md")]
    taken = [text[begin:end] for page in pages for text in [page.read_text()] for begin, end in spans(text)]
    assert len(pages) > 100
    assert [text for text in taken if ":" not in text] == []


# --- cost ------------------------------------------------------------------------------------------------------------

PIECES = [
    " -u a:b", "--a-", "keykey", "token=keykeykey", "<token>a</", "eyJa.", "a.", "xoxb-", "M", "MII",
    "eyJ", "eyJhbGciOi", "eyJhbGciOi.", "sk-", "sk-a1", "ghp_a", "AKIA", "://", "://a:", "://a:b@", "a@", "@tcp(",
    "a:b@tcp(", "-----BEGIN PRIVATE KEY-----\n", "-----END PRIVATE KEY-----\n", "AAAA\n-----END PRIVATE KEY-----",
    "MIIEpAIBAAKC", "AAAAAAAAAAAAAAAAAAAA\n", "Bearer ", "bearer a1", "Basic ", "Basic aaaa ", "Authorization: ",
    "Authorization: Basic ", "Cookie: ", "Cookie: a=b;", "password", "password: ", "password=a1 ", "token=x1&",
    "?token=", "token='", 'token="', '"token":"', "--token ", "--token a1 ", "curl -u ", "curl -u a:b ", "<token>",
    "<token>a", "key", "_key", "api_key ", "a-", "a=", "a.", "=", ":", "\\", '\\"', "pass", "auth", "s", " ", "7",
    "a1",
]  # fmt: skip


@pytest.mark.parametrize("piece", PIECES)
def test_the_cost_is_in_proportion_to_the_length(piece: str) -> None:
    """Whatever is repeated: four times the text takes about four times as long, and 64 KiB some milliseconds."""

    def seconds(size: int) -> float:
        text = (piece * size)[:size]
        return min(timed(lambda: REDACT.text(text)) for _ in range(3))

    assert seconds(65536) < 0.5
    assert seconds(131072) / max(seconds(32768), 0.001) < 12


@pytest.mark.parametrize("piece", [*PIECES, "&sig=abcd", "<otp>abcd</", "{'sid': 'abcd'}", "://a:b@c "])
def test_a_text_grows_to_twice_its_length_at_most(piece: str) -> None:
    """The emitter's limits count on it."""
    assert len(REDACT.text(piece * 500)) <= 2 * len(piece * 500) + len(REDACTED)


def timed(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def test_new_keys_are_cheap() -> None:
    """A request of a thousand events with five hundred keys each, none seen before."""
    redact = Redactor()
    events = [
        b'{"k%d":1' % number + b"".join(b',"k%d_%d":1' % (number, at) for at in range(500)) + b"}"
        for number in range(100)
    ]
    assert timed(lambda: [redact("custom:x", data) for data in events]) < 0.5


def test_keys_are_remembered_within_bounds() -> None:
    """An agent that makes up keys without end does not fill memory."""
    for number in range(10_000):
        REDACT("custom:x", b'{"token%d":1}' % number)
    remembered = keys._kind.cache_info()
    assert remembered.currsize <= remembered.maxsize == keys.KEYS_REMEMBERED
