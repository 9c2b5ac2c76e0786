"""The settings: one frozen struct, read once from `RUNCAST_*` environment variables.

Each field says its default, limits, unit and meaning here and nowhere else; the README's table and `runcast settings`
are made from it. A field `redis_url` is read from `RUNCAST_REDIS_URL`, and so on.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from emitter import wire

PREFIX = "RUNCAST_"
# Read by other commands and by scripts, not by the edge; nobody should be stopped for having them set.
NOT_OURS = frozenset({"RUNCAST_TOKEN", "RUNCAST_URL", "RUNCAST_TESTS_COMPLETE"})
# Kubernetes puts the address of every Service of the namespace into every pod: for one called `runcast` or
# `runcast-redis` that is RUNCAST_SERVICE_HOST, RUNCAST_PORT=tcp://…, RUNCAST_REDIS_PORT_6379_TCP_ADDR and more.
SERVICE_LINK_NAME = re.compile(r"\w+_(SERVICE_HOST|SERVICE_PORT\w*|PORT_\d+_(TCP|UDP|SCTP)\w*)\Z")
SERVICE_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://")


class BadSetting(Exception):
    """An environment variable cannot be used. `value` never shows a secret."""

    def __init__(self, name: str, value: str, allowed: str) -> None:
        super().__init__(f"{name}: {value!r} is not allowed; allowed: {allowed}")
        self.name = name
        self.value = value
        self.allowed = allowed


class UnknownSetting(BadSetting):
    """A `RUNCAST_*` variable that is no setting. Its value is not kept: under a mistyped name it may be a secret."""

    def __init__(self, name: str, known: list[str]) -> None:
        near = difflib.get_close_matches(name[len(PREFIX) :], [each[len(PREFIX) :] for each in known], n=1)
        hint = f"did you mean {PREFIX}{near[0]}?" if near else "`runcast settings` lists them"
        Exception.__init__(self, f"{name}: there is no such setting; {hint}")
        self.name = name
        self.value = ""
        self.allowed = hint


def _about(meaning: str, unit: str = "", *, allowed: str = "", secret: bool = False, **limits: Any) -> Meta:
    """What a field says about itself. `allowed` replaces the text that is otherwise made from type and limits."""
    extra = {"unit": unit, "allowed": allowed, "secret": secret}
    return Meta(description=meaning, extra=extra, **limits)


Scope = Literal["executions:read", "executions:write", "events:publish", "executions:debug", "ops:read", "admin"]
"""What a token may let do; README, section Tokens."""

_URL = "a URL starting with redis://, rediss://, unix://, redis[s]+sentinel:// or redis[s]+cluster://"
_BASE = "an http or https URL without query, such as https://agents.example.com"
_ORIGINS = "origins like https://app.example.com, comma separated; never *"
_Secret = Annotated[str, Meta(min_length=32)]  # RFC 7518, section 3.2: as long as the hash's output
_HttpUrl = Annotated[str, Meta(pattern=r"^https?://[^\s]+$")]
_BaseUrl = Annotated[str, Meta(pattern=r"^https?://[^\s?#]+$")]
_Port = Annotated[int, Meta(ge=0, le=65_535)]
_Origin = Annotated[str, Meta(pattern=r"^https?://[^/*,\s]+$")]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be set. Building one by hand checks nothing; `load_settings` does.

    `redis_url` is empty when it is not set: whoever starts a server must have one, or fill in an embedded one.
    """

    redis_url: Annotated[
        str,
        _about(
            "Redis or Valkey: `redis`, `unix`, `redis+sentinel` and `redis+cluster` URLs; `rediss…` is TLS",
            "URL",
            allowed=_URL,
            secret=True,
            pattern=r"^(rediss?(\+sentinel|\+cluster)?|unix)://",
        ),
    ] = ""
    redis_prefix: Annotated[
        str,
        _about(
            "what every key and channel of this deployment begins with; edges, workers and emitters must agree",
            allowed=wire.PREFIX_ALLOWED,
            pattern=r"^[A-Za-z0-9_-]{1,32}\Z",
        ),
    ] = "rc"
    host: Annotated[str, _about("address of the public listener")] = "0.0.0.0"  # noqa: S104 - a server in a container
    port: Annotated[int, _about("port of the public listener; 0 picks a free one", ge=0, le=65535)] = 8080
    admin_host: Annotated[str, _about("address of `/metrics`, `/healthz` and `/readyz`")] = "0.0.0.0"  # noqa: S104
    admin_port: Annotated[int, _about("port of the admin listener; 0 picks a free one", ge=0, le=65535)] = 9090

    jwt_secret: Annotated[
        _Secret | None, _about("secret of HS256 tokens", allowed="a secret of at least 32 characters", secret=True)
    ] = None
    jwt_public_key: Annotated[str | None, _about("public key that verifies tokens", "PEM, or a file's path")] = None
    jwks_url: Annotated[
        _HttpUrl | None,
        _about("where the keys that verify tokens are published", "URL", allowed="an http or https URL"),
    ] = None
    jwt_issuer: Annotated[str | None, _about("required `iss` of tokens; unset accepts any")] = None
    jwt_audience: Annotated[str | None, _about("required `aud` of tokens; unset accepts any")] = None
    jwt_scope_claim: Annotated[
        tuple[Annotated[str, Meta(min_length=1)], ...],
        _about("claims to look for scopes in; the first that a token has counts", "comma separated"),
    ] = ("scope", "scp")
    jwt_org_claim: Annotated[str, _about("claim that names the user's organisation")] = "org"
    default_scopes: Annotated[
        tuple[Scope, ...],
        _about(
            "what a token without any claim about scopes may do",
            "comma separated",
            allowed=f"scopes, comma separated: {', '.join(get_args(Scope))}",
        ),
    ] = ("executions:read",)
    cors_origins: Annotated[
        tuple[_Origin, ...],
        _about("browser origins that may call with credentials", "comma separated", allowed=_ORIGINS),
    ] = ()

    public_url: Annotated[
        _BaseUrl | None,
        _about("where clients find the edges, in A2A cards; unset: where the card was asked for", "URL", allowed=_BASE),
    ] = None

    max_connections: Annotated[
        int, _about("open streams of one edge process; 0 is what descriptors allow", "streams", ge=0)
    ] = 10_000
    max_sockets: Annotated[
        int,
        _about(
            "connections of one edge process's public port, streams included; 0 is a tenth more than its streams",
            "connections",
            ge=0,
        ),
    ] = 0
    max_connections_per_user: Annotated[
        int, _about("open streams of one user over all edges; 0 is no limit", "streams", ge=0)
    ] = 100
    executes_per_minute: Annotated[
        int, _about("executions one user may start; 0 is no limit", "per minute", ge=0, le=600_000)
    ] = 60
    connects_per_minute: Annotated[
        int, _about("streams one user may open; 0 is no limit", "per minute", ge=0, le=600_000)
    ] = 600
    publishes_per_minute: Annotated[
        int, _about("publish requests of one user on one edge; 0 is no limit", "per minute", ge=0, le=6_000_000)
    ] = 60_000
    reads_per_minute: Annotated[
        int, _about("other reading requests of one user on one edge; 0 is no limit", "per minute", ge=0, le=6_000_000)
    ] = 6000
    answers_per_minute: Annotated[
        int, _about("answers to questions by one user; 0 is no limit", "per minute", ge=0, le=600_000)
    ] = 600
    cancels_per_minute: Annotated[int, _about("cancels by one user; 0 is no limit", "per minute", ge=0, le=600_000)] = (
        600
    )
    tickets_per_minute: Annotated[
        int, _about("stream tickets of one user; 0 is no limit", "per minute", ge=0, le=600_000)
    ] = 600
    max_requests: Annotated[
        int, _about("requests that one edge answers at once, streams apart; 0 is no limit", "requests", ge=0)
    ] = 1024
    max_requests_per_user: Annotated[
        int, _about("of these, one user's; others of theirs wait for 10 s; 0 is no limit", "requests", ge=0)
    ] = 64
    max_buffered_bytes: Annotated[
        int, _about("bytes of requests and answers that one edge holds, streams apart; 0 is no limit", "bytes", ge=0)
    ] = 134_217_728
    max_buffered_bytes_per_user: Annotated[
        int, _about("of these, one user's; a single one always fits; 0 is no limit", "bytes", ge=0)
    ] = 33_554_432

    heartbeat_seconds: Annotated[
        float, _about("pause between heartbeats of a quiet stream", "seconds", ge=0.1, le=300)
    ] = 15
    max_stream_age_seconds: Annotated[
        float, _about("a stream is closed, to be resumed, after this ± 20 %; 0 is never", "seconds", ge=0, le=86_400)
    ] = 900
    drain_seconds: Annotated[
        float,
        _about(
            "time over which a stopping edge closes its streams; without any it listens for a quarter, 5 s at most",
            "seconds",
            ge=0,
            le=3600,
        ),
    ] = 20
    write_timeout_seconds: Annotated[
        float,
        _about(
            "a viewer, or any answer, of which no byte leaves for so long is cut as `slow`", "seconds", ge=0.1, le=3600
        ),
    ] = 30
    viewer_buffer_bytes: Annotated[
        int,
        _about("unsent bytes above which a viewer is fed from the log instead", "bytes", ge=4096, le=64 * 1024 * 1024),
    ] = 262_144

    log_maxlen: Annotated[int, _about("events kept per execution, about; 0 is no limit", "events", ge=0)] = (
        wire.LOG_MAXLEN
    )
    log_ttl_seconds: Annotated[
        int, _about("a log is kept so long after its last event; 0 is for ever", "seconds", ge=0)
    ] = wire.LOG_TTL_SECONDS
    log_finished_ttl_seconds: Annotated[
        int, _about("a log is kept so long after its terminal event", "seconds", ge=1)
    ] = wire.LOG_FINISHED_TTL_SECONDS
    feed_maxlen: Annotated[int, _about("events kept in a user's feed, about", "events", ge=1)] = wire.FEED_MAXLEN
    max_event_bytes: Annotated[int, _about("size of one encoded event", "bytes", ge=1024, le=16 * 1024 * 1024)] = (
        wire.MAX_EVENT_BYTES
    )
    log_max_bytes: Annotated[int, _about("bytes of events kept per execution; 0 is no limit", "bytes", ge=0)] = (
        wire.LOG_MAX_BYTES
    )
    max_open_inputs: Annotated[
        int,
        _about(
            "questions of one execution that wait for answers, of 1 MiB in all; 0 is no limit", "inputs", le=1000, ge=0
        ),
    ] = wire.MAX_OPEN_INPUTS
    max_queued_per_user: Annotated[
        int, _about("executions of one user that wait for a worker; 0 is no limit", "executions", ge=0, le=10**9)
    ] = wire.MAX_QUEUED_PER_USER
    max_params_bytes: Annotated[
        int,
        _about(
            "`params` (without `messages`) and `metadata` of an execution; 0 is no limit",
            "bytes",
            ge=0,
            le=16 * 1024 * 1024,
        ),
    ] = wire.MAX_PARAMS_BYTES
    max_conversation_bytes: Annotated[
        int,
        _about("`params.messages` of an execution; 0 is no limit", "bytes", ge=0, le=16 * 1024 * 1024),
    ] = wire.MAX_CONVERSATION_BYTES
    unheld_lease_seconds: Annotated[
        int,
        _about(
            "an execution that no worker runs is lost after so long without an event or a sign of life; 0 is never",
            "seconds",
            ge=0,
            le=86_400,
        ),
    ] = wire.UNHELD_LEASE_SECONDS
    redact_keys: Annotated[
        tuple[Annotated[str, Meta(min_length=1)], ...],
        _about("more key names whose values are stored as `[redacted]`", "comma separated"),
    ] = ()
    record_model_contents: Annotated[
        int,
        _about(
            "1: `model:call` is stored with what the model was asked and what it answered, redacted; edges, workers and"
            " emitters each have their own say",
            ge=0,
            le=1,
        ),
    ] = 0
    hooks: Annotated[
        tuple[Annotated[str, Meta(min_length=1)], ...],
        _about("installed hooks that every emitted or published event passes, in this order", "comma separated"),
    ] = ()
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], _about("least important log line that is written")
    ] = "info"

    worker_concurrency: Annotated[
        int, _about("executions one worker runs at a time", "executions", ge=1, le=10_000)
    ] = 10
    worker_admin_port: Annotated[
        _Port | None,
        _about(
            "port of a worker's `/metrics`, `/healthz` and `/readyz`; unset is none",
            allowed="a whole number from 0 to 65535",
        ),
    ] = None
    lease_seconds: Annotated[
        float, _about("a worker silent for so long has lost its executions", "seconds", ge=1, le=3600)
    ] = 15
    loop_blocked_seconds: Annotated[
        float,
        _about(
            "an agent may block its worker's event loop for so long before the worker has lost its executions",
            "seconds",
            ge=1,
            le=86_400,
        ),
    ] = 60
    grace_seconds: Annotated[
        float,
        _about("time a stopping worker gives its agents; 0 hands them back at once", "seconds", ge=0, le=86_400),
    ] = 30


class SettingRow(NamedTuple):
    """One setting as people read it. Secrets are `set` or `unset` in both `default` and `current`."""

    name: str
    default: str
    unit: str
    meaning: str
    current: str


class _Field(NamedTuple):
    """One field of `Settings`: its annotation without and with what it says about itself."""

    name: str
    variable: str
    default: Any
    type: Any
    annotated: Any
    about: Meta


def _fields() -> list[_Field]:
    hints = get_type_hints(Settings, include_extras=True)
    fields = []
    for field in msgspec.structs.fields(Settings):
        plain, about = get_args(hints[field.name])
        fields.append(_Field(field.name, PREFIX + field.name.upper(), field.default, plain, hints[field.name], about))
    return fields


def load_settings(environ: Mapping[str, str]) -> Settings:
    """The settings in `environ`; a variable that is set to nothing counts as not set. Raises `BadSetting` for a value
    that is not allowed and `UnknownSetting` for a `RUNCAST_*` name that is none."""
    fields = _fields()
    given = {name: text.strip() for name, text in environ.items() if _is_ours(name, text)}
    _refuse_unknown(given, [field.variable for field in fields])
    values = {field.name: _parse(field, given[field.variable]) for field in fields if given.get(field.variable)}
    return Settings(**values)


def _is_ours(name: str, text: str) -> bool:
    if not name.startswith(PREFIX) or name in NOT_OURS:
        return False
    is_link = SERVICE_LINK_NAME.match(name) or (name.endswith("_PORT") and SERVICE_LINK_VALUE.match(text))
    return not is_link


def _refuse_unknown(given: Mapping[str, str], known: list[str]) -> None:
    for name in given:
        if name not in known:
            raise UnknownSetting(name, known)


def _parse(field: _Field, text: str) -> Any:
    value = tuple(part.strip() for part in text.split(",")) if isinstance(field.default, tuple) else text
    try:
        return msgspec.convert(value, field.annotated, strict=not _is_number(field.type))
    except (msgspec.ValidationError, ValueError, OverflowError):
        shown = f"({len(text)} characters)" if _is_secret(field) else text
        raise BadSetting(field.variable, shown, _allowed(field)) from None


def _is_number(kind: Any) -> bool:
    return kind in (int, float) or any(_is_number(part) for part in get_args(kind))


def _is_secret(field: _Field) -> bool:
    return bool((field.about.extra or {}).get("secret"))


def _allowed(field: _Field) -> str:
    """What a value may be, in words."""
    if text := (field.about.extra or {}).get("allowed"):
        return str(text)
    if get_origin(field.type) is Literal:
        return "one of " + ", ".join(get_args(field.type))
    if field.type in (int, float):
        kind = "a whole number" if field.type is int else "a number"
        low, high = field.about.ge, field.about.le
        return f"{kind} from {low} to {high}" if high is not None else f"{kind}, {low} or more"
    return "names, comma separated" if isinstance(field.default, tuple) else "text"


def describe(settings: Settings) -> list[SettingRow]:
    """Every setting with its default and what it is now."""
    return [
        SettingRow(
            field.variable,
            _shown(field, field.default),
            str((field.about.extra or {}).get("unit", "")),
            str(field.about.description),
            _shown(field, getattr(settings, field.name)),
        )
        for field in _fields()
    ]


def _shown(field: _Field, value: Any) -> str:
    if _is_secret(field):
        return "set" if value else "unset"
    if isinstance(value, tuple):
        value = ",".join(value)
    return "unset" if value in (None, "") else str(value)


def settings_table() -> str:
    """The settings as a Markdown table."""
    rows = ["| variable | default | unit | meaning |", "|---|---|---|---|"]
    for row in describe(Settings()):
        default = "" if row.default == "unset" else f"`{row.default}`"
        rows.append(f"| `{row.name}` | {default} | {row.unit} | {row.meaning} |")
    return "\n".join(rows) + "\n"
