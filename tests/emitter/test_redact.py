"""What credentials look like, and what does not look like one."""

from __future__ import annotations

import random
import string
import time
from typing import Any

import msgspec
import pytest

from emitter import wire
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
from emitter.redact import REDACTED, Redactor, is_secret_key

REDACT = Redactor()
WORD = "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8"


def params(value: Any, redact: Redactor = REDACT) -> Any:
    event = ToolStart(call_id="c", tool_name="t", params=value)
    return msgspec.json.decode(redact(event.type, wire.encode_data(event)))["params"]


SECRET_KEYS = [
    "password", "passwd", "PASSWORD", "dbPassword", "db_password", "dbpassword", "user-password", "passwords", "pwd",
    "passphrase", "secret", "clientSecret", "client_secret", "clientsecret", "token", "accessToken", "access_token",
    "accesstoken", "refreshtoken", "X-Auth-Token", "api_key", "apiKey", "APIKey", "apikey", "x-api-key", "API_KEY",
    "api_keys", "OPENAI_API_KEY", "authorization", "Authorization", "Proxy-Authorization", "cookie", "Set-Cookie",
    "cookies", "private_key", "privateKey", "secretKey", "AWS_SECRET_ACCESS_KEY", "credential", "credentials",
    "sessionid", "JSESSIONID", "signing_key",
]  # fmt: skip
PLAIN_KEYS = [
    "inputTokens", "outputTokens", "totalTokens", "tokensUsed", "max_tokens", "tokenizer", "primary_key", "foreignKey",
    "key", "keys", "keyboard", "monkey", "public_key", "author", "authored", "cook", "compass", "passenger",
    "secretary", "session", "keyword", "hotkey", "tokens",
]  # fmt: skip


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
        data = msgspec.json.decode(REDACT(event.type, wire.encode_data(event)))
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
    data = msgspec.json.decode(REDACT(event.type, wire.encode_data(event)))
    assert data["schema"] == {"properties": {"password": {"type": "string", "default": REDACTED}}}
    answer = InputReceived(input_id="i", by="alice", value={"password": "hunter2"})
    assert msgspec.json.decode(REDACT(answer.type, wire.encode_data(answer)))["value"] == {"password": REDACTED}


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
        wire.decode_event(event.type, redact(event.type, wire.encode_data(event)))


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
            return {f"k{chance.choice(PLAIN_KEYS)}": value(depth - 1) for _ in range(chance.randrange(4))}
        return [None, True, chance.randrange(-(2**70), 2**70), chance.random(), "".join(chance.choices(letters, k=30))][
            kind
        ]

    for _ in range(500):
        event = ToolComplete(call_id="c", tool_name="t", result=value(4), duration=chance.random())
        data = wire.encode_data(event)
        assert REDACT(event.type, data) is data or REDACT(event.type, data) == data


def test_what_is_replaced_is_still_ascii_on_one_line() -> None:
    """Redaction rewrites the JSON; it stays as the log wants it."""
    out = REDACT("custom:x", wire.ascii_json('{"token":"x","note":"é\u2028\\n"}'.encode()))
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
        REDACT("tool:start", wire.encode_data(ToolStart(call_id="c", tool_name="t", params=value)))


@pytest.mark.parametrize(
    "text",
    ["eyJ-" * 15_000, "sk-" * 20_000, "://" + ":a" * 30_000, "-----BEGIN " * 5_000, "Bearer " * 8_000, "a@" * 30_000],
)
def test_no_text_makes_it_slow(text: str) -> None:
    """64 KiB of almost-credentials take milliseconds."""
    began = time.process_time()
    REDACT.text(text)
    assert time.process_time() - began < 0.5


def test_keys_are_remembered_within_bounds() -> None:
    """An agent that makes up keys without end does not fill memory."""
    redact = Redactor()
    for number in range(10_000):
        redact("custom:x", b'{"k%d":1}' % number)
    assert len(redact._known) <= 4096
