"""The settings of an edge: one frozen struct, read once from `RUNCAST_*` environment variables.

Those that workers and emitters read as well stand in `emitter.settings`. The table of `docs/reference/settings.md`
and `runcast settings` are made from both.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, NamedTuple, get_args

from msgspec import Meta

from broker.base.targets import HOST_FORM, check_secrets
from emitter.errors import InvalidSetting
from emitter.settings import PREFIX, SharedSettings, about, is_service_link, read, settings_of

# Read by other commands and by scripts, not by the edge; nobody should be stopped for having them set.
NOT_OURS = frozenset({"RUNCAST_TOKEN", "RUNCAST_URL", "RUNCAST_TESTS_COMPLETE"})
# For a Kubernetes Service called `runcast` or `runcast-redis` there is RUNCAST_SERVICE_HOST, RUNCAST_PORT=tcp://…,
# RUNCAST_REDIS_PORT_6379_TCP_ADDR and more in every pod.
SERVICE_LINK_NAME = re.compile(r"\w+_(SERVICE_HOST|SERVICE_PORT\w*|PORT_\d+_(TCP|UDP|SCTP)\w*)\Z")


class UnknownSetting(InvalidSetting):
    """A `RUNCAST_*` variable that is no setting. Its value is not kept: under a mistyped name it may be a secret."""

    def __init__(self, name: str, known: list[str]) -> None:
        near = difflib.get_close_matches(name[len(PREFIX) :], [each[len(PREFIX) :] for each in known], n=1)
        hint = f"did you mean {PREFIX}{near[0]}?" if near else "`runcast settings` lists them"
        Exception.__init__(self, f"{name}: there is no such setting; {hint}")
        self.name = name
        self.value = ""
        self.allowed = hint


Scope = Literal[
    "executions:read",
    "executions:write",
    "events:publish",
    "jobs:run",
    "executions:debug",
    "org:read",
    "ops:read",
    "admin",
]
"""What a token may let do; `docs/run/tokens.md`."""

_BASE = "an http or https URL without query, such as https://agents.example.com"
_ORIGINS = "origins like https://app.example.com, comma separated; never *"
_Secret = Annotated[str, Meta(min_length=32)]  # RFC 7518, section 3.2: as long as the hash's output
_WebhookSecret = Annotated[str, Meta(min_length=1)]
_HttpUrl = Annotated[str, Meta(pattern=r"^https?://[^\s]+$")]
_BaseUrl = Annotated[str, Meta(pattern=r"^https?://[^\s?#]+$")]
_Origin = Annotated[str, Meta(pattern=r"^https?://[^/*,\s]+$")]


class Settings(SharedSettings, frozen=True, kw_only=True):
    """Everything that can be set. Building one by hand checks nothing; `load_settings` does."""

    host: Annotated[str, about("address of the public listener")] = "0.0.0.0"  # noqa: S104 - a server in a container
    port: Annotated[int, about("port of the public listener; 0 picks a free one", ge=0, le=65535)] = 8080
    admin_port: Annotated[int, about("port of the admin listener; 0 picks a free one", ge=0, le=65535)] = 9090

    jwt_secret: Annotated[
        _Secret | None, about("secret of HS256 tokens", allowed="a secret of at least 32 characters", secret=True)
    ] = None
    jwt_public_key: Annotated[str | None, about("public key that verifies tokens", "PEM, or a file's path")] = None
    jwks_url: Annotated[
        _HttpUrl | None,
        about("where the keys that verify tokens are published", "URL", allowed="an http or https URL"),
    ] = None
    jwt_issuer: Annotated[str | None, about("required `iss` of tokens; unset accepts any")] = None
    jwt_audience: Annotated[str | None, about("required `aud` of tokens; unset accepts any")] = None
    jwt_scope_claim: Annotated[
        tuple[Annotated[str, Meta(min_length=1)], ...],
        about("claims to look for scopes in; the first that a token has counts", "comma separated"),
    ] = ("scope", "scp")
    jwt_org_claim: Annotated[str, about("claim that names the user's organisation")] = "org"
    default_scopes: Annotated[
        tuple[Scope, ...],
        about(
            "what a token without any claim about scopes may do",
            "comma separated",
            allowed=f"scopes, comma separated: {', '.join(get_args(Scope))}",
        ),
    ] = ("executions:read",)
    cors_origins: Annotated[
        tuple[_Origin, ...],
        about("browser origins that may call with credentials", "comma separated", allowed=_ORIGINS),
    ] = ()

    oidc_issuer: Annotated[
        _HttpUrl | None,
        about("OpenID provider at which people sign in to the console; unset: they paste a token", "URL"),
    ] = None
    oidc_client_id: Annotated[str, about("the console's client id at that provider, a public client")] = "runcast"
    oidc_scope: Annotated[str, about("scopes that the console asks for", "blank separated")] = "openid profile"
    oidc_audience: Annotated[
        str | None, about("`audience` of the request, where the provider needs one for an access token that is a JWT")
    ] = None
    oidc_origins: Annotated[
        tuple[_Origin, ...],
        about(
            "further origins of that provider which the console may call, such as the one of its token endpoint",
            "comma separated",
            allowed=_ORIGINS,
        ),
    ] = ()

    public_url: Annotated[
        _BaseUrl | None,
        about(
            "where clients find the edges, in A2A cards, MCP and share links; unset: where the request was sent",
            "URL",
            allowed=_BASE,
        ),
    ] = None
    share_max_seconds: Annotated[
        int,
        about(
            "the longest life of a link that shares an execution; 0 lets nobody make one",
            "seconds",
            ge=0,
            le=31_536_000,
        ),
    ] = 7 * 86_400
    mcp_hold_seconds: Annotated[
        float,
        about(
            "how long a call of an MCP tool is held before its client is told to wait again; 0 is as long as it takes",
            "seconds",
            ge=0,
            le=86_400,
        ),
    ] = 45

    max_connections: Annotated[
        int, about("open streams of one edge process; 0 is what descriptors allow", "streams", ge=0)
    ] = 10_000
    max_sockets: Annotated[
        int,
        about(
            "connections of one edge process's public port, streams included; 0 is a tenth more than its streams",
            "connections",
            ge=0,
        ),
    ] = 0
    max_connections_per_user: Annotated[
        int, about("open streams of one user over all edges; 0 is no limit", "streams", ge=0)
    ] = 100
    executes_per_minute: Annotated[
        int, about("executions one user may start; 0 is no limit", "per minute", ge=0, le=600_000)
    ] = 60
    connects_per_minute: Annotated[
        int, about("streams one user may open; 0 is no limit", "per minute", ge=0, le=600_000)
    ] = 600
    publishes_per_minute: Annotated[
        int, about("publish requests of one user on one edge; 0 is no limit", "per minute", ge=0, le=6_000_000)
    ] = 60_000
    reads_per_minute: Annotated[
        int, about("other reading requests of one user on one edge; 0 is no limit", "per minute", ge=0, le=6_000_000)
    ] = 6000
    answers_per_minute: Annotated[
        int, about("answers and messages to agents by one user; 0 is no limit", "per minute", ge=0, le=600_000)
    ] = 600
    cancels_per_minute: Annotated[int, about("cancels by one user; 0 is no limit", "per minute", ge=0, le=600_000)] = (
        600
    )
    tickets_per_minute: Annotated[
        int, about("stream tickets of one user, and share links; 0 is no limit", "per minute", ge=0, le=600_000)
    ] = 600
    max_requests: Annotated[
        int, about("requests that one edge answers at once, streams apart; 0 is no limit", "requests", ge=0)
    ] = 1024
    max_requests_per_user: Annotated[
        int, about("of these, one user's; others of theirs wait for 10 s; 0 is no limit", "requests", ge=0)
    ] = 64
    max_buffered_bytes: Annotated[
        int, about("bytes of requests and answers that one edge holds, streams apart; 0 is no limit", "bytes", ge=0)
    ] = 134_217_728
    max_buffered_bytes_per_user: Annotated[
        int, about("of these, one user's; a single one always fits; 0 is no limit", "bytes", ge=0)
    ] = 33_554_432

    webhook_secret: Annotated[
        _WebhookSecret | None,
        about(
            "signs webhooks (Standard Webhooks); after a blank, the one before it, while receivers change",
            "base 64, with or without `whsec_`",
            allowed="24 to 64 bytes in base 64, with or without whsec_ before it; after a blank, the one before",
            secret=True,
            check=check_secrets,
        ),
    ] = None
    webhook_allow_hosts: Annotated[
        tuple[Annotated[str, Meta(pattern=HOST_FORM)], ...],
        about(
            "hosts, or `host:port`, that webhooks may go to whatever their addresses are, also by http",
            "comma separated",
            allowed="names or addresses of hosts, each with a port or without, comma separated",
        ),
    ] = ()
    webhook_retry_hours: Annotated[
        float, about("a webhook whose receiver takes nothing for so long is given up", "hours", ge=0.001, le=168)
    ] = 24

    heartbeat_seconds: Annotated[
        float, about("pause between heartbeats of a quiet stream", "seconds", ge=0.1, le=300)
    ] = 15
    max_stream_age_seconds: Annotated[
        float, about("a stream is closed, to be resumed, after this ± 20 %; 0 is never", "seconds", ge=0, le=86_400)
    ] = 900
    drain_seconds: Annotated[
        float,
        about(
            "time over which a stopping edge closes its streams; without any it listens for a quarter, 5 s at most",
            "seconds",
            ge=0,
            le=3600,
        ),
    ] = 20
    write_timeout_seconds: Annotated[
        float,
        about(
            "a viewer or response is cut as `slow` if no byte of it leaves for this time", "seconds", ge=0.1, le=3600
        ),
    ] = 30
    compress_streams: Annotated[
        Literal["auto", "off"],
        about("whether streams are sent in gzip to clients that take it: once for all viewers of a log"),
    ] = "auto"
    viewer_buffer_bytes: Annotated[
        int,
        about("unsent bytes above which a viewer is fed from the log instead", "bytes", ge=4096, le=64 * 1024 * 1024),
    ] = 262_144


class SettingRow(NamedTuple):
    """One setting as people read it. Secrets are `set` or `unset` in both `default` and `current`."""

    name: str
    default: str
    unit: str
    meaning: str
    current: str


def load_settings(environ: Mapping[str, str]) -> Settings:
    """The settings in `environ`; a variable that is set to nothing counts as not set. Raises `InvalidSetting` for a
    value that is not allowed and `UnknownSetting` for an unknown name `RUNCAST_*`."""
    known = [setting.variable for setting in settings_of(Settings).values()]
    _refuse_unknown((name for name, text in environ.items() if _is_ours(name, text.strip())), known)
    return read(Settings, environ)


def _is_ours(name: str, text: str) -> bool:
    if not name.startswith(PREFIX) or name in NOT_OURS:
        return False
    return not (SERVICE_LINK_NAME.match(name) or is_service_link(name, text))


def _refuse_unknown(names: Iterable[str], known: list[str]) -> None:
    for name in names:
        if name not in known:
            raise UnknownSetting(name, known)


def describe(settings: Settings) -> list[SettingRow]:
    """Every setting with its default and what it is now."""
    return [
        SettingRow(
            setting.variable,
            setting.shown(setting.default),
            setting.unit,
            setting.meaning,
            setting.shown(getattr(settings, setting.name)),
        )
        for setting in settings_of(Settings).values()
    ]


def settings_table() -> str:
    """The settings as a Markdown table."""
    rows = ["| variable | default | unit | meaning |", "|---|---|---|---|"]
    for row in describe(Settings()):
        default = "" if row.default == "unset" else f"`{row.default}`"
        rows.append(f"| `{row.name}` | {default} | {row.unit} | {row.meaning} |")
    return "\n".join(rows) + "\n"


def with_redis(settings: Settings) -> Settings:
    """Settings with the address of a Redis. Raises `InvalidSetting` without one."""
    if settings.redis_url:
        return settings
    allowed = "the address of a Redis or Valkey (`runcast dev` and `runcast demo` bring their own)"
    raise InvalidSetting("RUNCAST_REDIS_URL", "", allowed)
