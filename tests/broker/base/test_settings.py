from __future__ import annotations

import re

import msgspec
import pytest

from broker.base.settings import Settings, UnknownSetting, describe, load_settings, settings_table
from emitter.errors import InvalidSetting
from emitter.settings import with_defaults
from emitter.store.append import LogLimits, limits_from, limits_of
from emitter.wire import limits as wire

CONTRACT = [
    "REDIS_URL",
    "HOST",
    "PORT",
    "ADMIN_HOST",
    "ADMIN_PORT",
    "JWT_SECRET",
    "JWT_PUBLIC_KEY",
    "JWKS_URL",
    "JWT_ISSUER",
    "JWT_AUDIENCE",
    "CORS_ORIGINS",
    "MAX_CONNECTIONS",
    "MAX_CONNECTIONS_PER_USER",
    "EXECUTES_PER_MINUTE",
    "CONNECTS_PER_MINUTE",
    "HEARTBEAT_SECONDS",
    "MAX_STREAM_AGE_SECONDS",
    "DRAIN_SECONDS",
    "WRITE_TIMEOUT_SECONDS",
    "VIEWER_BUFFER_BYTES",
    "LOG_MAXLEN",
    "LOG_TTL_SECONDS",
    "LOG_FINISHED_TTL_SECONDS",
    "FEED_MAXLEN",
    "MAX_EVENT_BYTES",
    "LOG_LEVEL",
    "WORKER_CONCURRENCY",
    "LEASE_SECONDS",
    "GRACE_SECONDS",
]


def test_nothing_set() -> None:
    """An empty environment gives the defaults."""
    assert load_settings({}) == Settings()


def test_defaults_are_allowed_values() -> None:
    """Every default but the empty Redis address can be set as text and is then the same settings."""
    environ = {row.name: row.current for row in describe(Settings()) if row.current != "unset"}
    assert load_settings(environ) == Settings()
    assert len(environ) > 20


def test_names_of_the_contract() -> None:
    """Every name of the contract is a setting."""
    assert {"RUNCAST_" + name for name in CONTRACT} <= {row.name for row in describe(Settings())}


def test_limits_have_one_source() -> None:
    """What emitter and edge both need defaults to the emitter's own figures."""
    settings = Settings()
    assert settings.max_event_bytes == wire.MAX_EVENT_BYTES
    assert (settings.log_maxlen, settings.feed_maxlen) == (wire.LOG_MAXLEN, wire.FEED_MAXLEN)
    assert limits_of(settings) == LogLimits()
    chosen = {"LOG_MAX_BYTES": 1, "MAX_OPEN_INPUTS": 2, "MAX_PARAMS_BYTES": 3, "MAX_CONVERSATION_BYTES": 4}
    chosen["MAX_QUEUED_PER_USER"] = 5
    environ = {"RUNCAST_" + name: str(value) for name, value in chosen.items()}
    limits = LogLimits(log_max_bytes=1, max_open_inputs=2, max_params_bytes=3, max_conversation_bytes=4)
    limits = msgspec.structs.replace(limits, max_queued_per_user=5)
    assert limits_of(load_settings(environ)) == limits_from(environ)[0] == limits


def test_values_are_typed() -> None:
    """Numbers, lists and texts are read as what their fields are."""
    settings = load_settings(
        {
            "RUNCAST_REDIS_URL": "redis+sentinel://a:1,b:2/main",
            "RUNCAST_PORT": " 81 ",
            "RUNCAST_WORKER_ADMIN_PORT": "9091",
            "RUNCAST_HEARTBEAT_SECONDS": "0.5",
            "RUNCAST_CORS_ORIGINS": "https://a.example, http://localhost:3000",
            "RUNCAST_JWT_SECRET": "0" * 32,
            "RUNCAST_JWT_ISSUER": "null",
            "RUNCAST_JWT_SCOPE_CLAIM": "https://runcast.example/scopes, permissions",
            "RUNCAST_JWT_ORG_CLAIM": "tid",
            "RUNCAST_DEFAULT_SCOPES": "executions:read, events:publish",
            "RUNCAST_LOG_LEVEL": "debug",
            "RUNCAST_HOOKS": "b, a",
            "RUNCAST_MAX_CONNECTIONS": "0",
        }
    )
    assert settings == Settings(
        redis_url="redis+sentinel://a:1,b:2/main",
        port=81,
        worker_admin_port=9091,
        heartbeat_seconds=0.5,
        cors_origins=("https://a.example", "http://localhost:3000"),
        jwt_secret="0" * 32,
        jwt_issuer="null",
        jwt_scope_claim=("https://runcast.example/scopes", "permissions"),
        jwt_org_claim="tid",
        default_scopes=("executions:read", "events:publish"),
        log_level="debug",
        hooks=("b", "a"),
        max_connections=0,
    )


def test_set_to_nothing() -> None:
    """A variable set to nothing is as if it were not set."""
    assert load_settings({"RUNCAST_PORT": "", "RUNCAST_JWT_SECRET": " ", "RUNCAST_CORS_ORIGINS": ""}) == Settings()


def test_defaults_of_a_command() -> None:
    """They count where nothing is set, or nothing but blanks."""
    environ = {"RUNCAST_DRAIN_SECONDS": " ", "RUNCAST_GRACE_SECONDS": "7", "PATH": "/bin"}
    given = with_defaults(environ, drain_seconds="0.5", grace_seconds="3", port="81")
    expected = {"RUNCAST_DRAIN_SECONDS": "0.5", "RUNCAST_GRACE_SECONDS": "7", "RUNCAST_PORT": "81", "PATH": "/bin"}
    assert given == expected


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("PORT", "99999", "a whole number from 0 to 65535"),
        ("PORT", "http", "a whole number from 0 to 65535"),
        ("WORKER_ADMIN_PORT", "99999", "a whole number from 0 to 65535"),
        ("WORKER_ADMIN_PORT", "metrics", "a whole number from 0 to 65535"),
        ("MAX_CONNECTIONS", "-1", "a whole number, 0 or more"),
        ("MAX_CONNECTIONS", "9" * 5000, "a whole number, 0 or more"),
        ("HEARTBEAT_SECONDS", "0", "a number from 0.1 to 300"),
        ("HEARTBEAT_SECONDS", "nan", "a number from 0.1 to 300"),
        ("DRAIN_SECONDS", "inf", "a number from 0 to 3600"),
        ("DRAIN_SECONDS", "null", "a number from 0 to 3600"),
        ("LOG_LEVEL", "loud", "one of debug, info, warning, error"),
        ("CORS_ORIGINS", "*", "never *"),
        ("CORS_ORIGINS", "https://a.example/path", "origins like"),
        ("CORS_ORIGINS", "https://a.example,,", "origins like"),
        ("DEFAULT_SCOPES", "everything", "scopes, comma separated: executions:read"),
        ("JWT_SCOPE_CLAIM", "scope,,scp", "names, comma separated"),
        ("HOOKS", "a,,b", "names, comma separated"),
        ("JWKS_URL", "file:///etc/passwd", "an http or https URL"),
        ("PUBLIC_URL", "agents.example.com", "an http or https URL"),
        ("PUBLIC_URL", "https://agents.example.com/?a=b", "an http or https URL"),
    ],
)
def test_bad_values(name: str, value: str, allowed: str) -> None:
    """A bad value is refused with the variable's name, the value and what is allowed."""
    with pytest.raises(InvalidSetting) as caught:
        load_settings({"RUNCAST_" + name: value})
    assert all(part in str(caught.value) for part in ("RUNCAST_" + name, value[:200], allowed))


@pytest.mark.parametrize(
    ("name", "value"), [("JWT_SECRET", "short-secret-value"), ("REDIS_URL", "http://user:password@cache")]
)
def test_bad_secrets_are_not_shown(name: str, value: str) -> None:
    """The error for a bad secret says how long it is, not what it is."""
    with pytest.raises(InvalidSetting) as caught:
        load_settings({"RUNCAST_" + name: value})
    assert value not in str(caught.value)
    assert f"({len(value)} characters)" in str(caught.value)


def test_unknown_names() -> None:
    """A name that is no setting is refused, with the nearest one that is, and without its value."""
    with pytest.raises(UnknownSetting, match=r"RUNCAST_REDIS_ULR.*did you mean RUNCAST_REDIS_URL") as caught:
        load_settings({"RUNCAST_REDIS_ULR": "redis://:hunter2@cache"})
    assert "hunter2" not in str(caught.value)
    with pytest.raises(UnknownSetting, match="runcast settings"):
        load_settings({"RUNCAST_ZZZ": "1"})


def test_names_of_others() -> None:
    """Variables of other commands, other programs and Kubernetes service links stop nothing."""
    environ = {
        "RUNCAST_TOKEN": "x",
        "RUNCAST_URL": "http://edge",
        "RUNCAST_TESTS_COMPLETE": "1",
        "PATH": "/bin",
        "RUNCAST_SERVICE_HOST": "10.0.0.1",
        "RUNCAST_SERVICE_PORT_HTTP": "80",
        "RUNCAST_PORT": "tcp://10.0.0.1:80",
        "RUNCAST_PORT_80_TCP_ADDR": "10.0.0.1",
        "RUNCAST_REDIS_PORT": "tcp://10.0.0.2:6379",
    }
    assert load_settings(environ) == Settings()


def test_description() -> None:
    """Every setting is described with a meaning; secrets appear as set or unset only."""
    rows = {row.name: row for row in describe(Settings(jwt_secret="s" * 40, cors_origins=("https://a", "https://b")))}
    assert len(rows) == len(msgspec.structs.fields(Settings))
    assert all(row.meaning for row in rows.values())
    assert rows["RUNCAST_JWT_SECRET"][1:] == ("unset", "", "secret of HS256 tokens", "set")
    assert rows["RUNCAST_CORS_ORIGINS"].current == "https://a,https://b"
    assert rows["RUNCAST_HEARTBEAT_SECONDS"][1:3] == ("15", "seconds")
    assert "s" * 40 not in repr(rows)


def test_table() -> None:
    """The table has a row of four cells for every setting, and none is broken by a pipe in its text."""
    lines = settings_table().splitlines()
    assert "| `RUNCAST_PORT` | `8080` |  | port of the public listener; 0 picks a free one |" in lines
    assert len(lines) == 2 + len(msgspec.structs.fields(Settings))
    assert all(len(re.findall(r"\|", line)) == 5 for line in lines)
