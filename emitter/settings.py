"""The settings of edges, workers and emitters, and how they are read from `RUNCAST_*` environment variables.

Each field of `SharedSettings` has its default, limits, unit and meaning; `broker.base.settings` adds the settings that
only an edge reads. The field `redis_url` is read from `RUNCAST_REDIS_URL`, and so on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from emitter.errors import InvalidEvent, InvalidSetting
from emitter.redis_url import read_url
from emitter.wire import keys
from emitter.wire.limits import (
    FEED_MAXLEN,
    LOG_FINISHED_TTL_SECONDS,
    LOG_MAX_BYTES,
    LOG_MAXLEN,
    LOG_TTL_SECONDS,
    MAX_CHILD_DEPTH,
    MAX_CHILDREN,
    MAX_CONVERSATION_BYTES,
    MAX_EVENT_BYTES,
    MAX_OPEN_INPUTS,
    MAX_PARAMS_BYTES,
    MAX_QUEUED_PER_USER,
    MAX_WAITING_MESSAGES,
    UNHELD_LEASE_SECONDS,
    WORKER_MAX_WAITING,
)

PREFIX = "RUNCAST_"
# Kubernetes puts the address of every Service of the namespace into every pod: for one called `runcast-worker-admin`
# that is RUNCAST_WORKER_ADMIN_PORT=tcp://…
SERVICE_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://")
WHOLE_NUMBER = re.compile(r"0|-?[1-9][0-9]*")
SHOWN_CHARS = 200
MOST = 10**12


def about(
    meaning: str,
    unit: str = "",
    *,
    allowed: str = "",
    secret: bool = False,
    check: Callable[[str], object] | None = None,
    **limits: Any,
) -> Meta:
    """The annotation of a field. `allowed` replaces the text that is made from type and limits; `check` raises
    `InvalidEvent` for a text that is not allowed, without showing a secret."""
    extra = {"unit": unit, "allowed": allowed, "secret": secret, "check": check}
    return Meta(description=meaning, extra=extra, **limits)


_URL = "a URL starting with redis://, rediss://, unix://, redis[s]+sentinel:// or redis[s]+cluster://"
Port = Annotated[int, Meta(ge=0, le=65_535)]


class SharedSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings that not only edges read. The constructor checks nothing; `read` does.

    `redis_url` is empty if it is not set: an edge requires it, others use `emitter.store.connection.DEFAULT_URL`.
    """

    redis_url: Annotated[
        str,
        about(
            "Redis or Valkey: `redis`, `unix`, `redis+sentinel` and `redis+cluster` URLs; `rediss…` is TLS",
            "URL",
            allowed=_URL,
            secret=True,
            check=read_url,
        ),
    ] = ""
    redis_prefix: Annotated[
        str,
        about(
            "what every key and channel of this deployment begins with; edges, workers and emitters must agree",
            allowed=keys.PREFIX_ALLOWED,
            pattern=f"^{keys.PREFIX_FORM.pattern}",
        ),
    ] = "rc"
    admin_host: Annotated[str, about("address of `/metrics`, `/healthz` and `/readyz`")] = "0.0.0.0"  # noqa: S104
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], about("least important log line that is written")
    ] = "info"
    log_maxlen: Annotated[int, about("events kept per execution, about; 0 is no limit", "events", ge=0, le=MOST)] = (
        LOG_MAXLEN
    )
    log_ttl_seconds: Annotated[
        int, about("a log is kept so long after its last event; 0 is for ever", "seconds", ge=0, le=MOST)
    ] = LOG_TTL_SECONDS
    log_finished_ttl_seconds: Annotated[
        int, about("a log is kept so long after its terminal event", "seconds", ge=1, le=MOST)
    ] = LOG_FINISHED_TTL_SECONDS
    log_max_bytes: Annotated[
        int, about("bytes of events kept per execution; 0 is no limit", "bytes", ge=0, le=MOST)
    ] = LOG_MAX_BYTES
    feed_maxlen: Annotated[int, about("events kept in a user's feed, about", "events", ge=1, le=MOST)] = FEED_MAXLEN
    max_event_bytes: Annotated[
        int, about("size of one event as a stream has it, with its id and type", "bytes", ge=1024, le=16 * 1024 * 1024)
    ] = MAX_EVENT_BYTES
    max_open_inputs: Annotated[
        int,
        about("open inputs of one execution, of 1 MiB in all; 0 is no limit", "inputs", le=1000, ge=0),
    ] = MAX_OPEN_INPUTS
    max_waiting_messages: Annotated[
        int,
        about(
            "messages of people to one execution that its agent has not taken; 0 is no limit", "messages", ge=0, le=1000
        ),
    ] = MAX_WAITING_MESSAGES
    max_queued_per_user: Annotated[
        int, about("executions of one user that wait for a worker; 0 is no limit", "executions", ge=0, le=10**9)
    ] = MAX_QUEUED_PER_USER
    max_params_bytes: Annotated[
        int,
        about(
            "`params` (without `messages`) and `metadata` of an execution; 0 is no limit",
            "bytes",
            ge=0,
            le=16 * 1024 * 1024,
        ),
    ] = MAX_PARAMS_BYTES
    max_conversation_bytes: Annotated[
        int,
        about("`params.messages` of an execution; 0 is no limit", "bytes", ge=0, le=16 * 1024 * 1024),
    ] = MAX_CONVERSATION_BYTES
    unheld_lease_seconds: Annotated[
        int,
        about(
            "an execution that no worker runs is lost after so long without an event or a sign of life; 0 is never",
            "seconds",
            ge=0,
            le=86_400,
        ),
    ] = UNHELD_LEASE_SECONDS
    max_children: Annotated[
        int,
        about(
            "executions below one root: those that it starts, and those that they start; 0 is no limit",
            "executions",
            ge=0,
            le=100_000,
        ),
    ] = MAX_CHILDREN
    max_child_depth: Annotated[
        int, about("how deep executions may start others; 0 is no limit", "levels", ge=0, le=1000)
    ] = MAX_CHILD_DEPTH
    budget_total_tokens: Annotated[
        int,
        about("tokens of models that an execution may use; 0 is no limit", "tokens", ge=0, le=MOST),
    ] = 0
    budget_cost_usd: Annotated[
        float,
        about("what models may cost an execution; 0 is no limit", "US dollars", ge=0, le=MOST),
    ] = 0
    budget_tool_calls: Annotated[
        int, about("calls of tools that an execution may make; 0 is no limit", "calls", ge=0, le=MOST)
    ] = 0
    budget_seconds: Annotated[
        float, about("time that an execution may have under workers; 0 is no limit", "seconds", ge=0, le=MOST)
    ] = 0
    redact_keys: Annotated[
        tuple[Annotated[str, Meta(min_length=1)], ...],
        about("more key names whose values are stored as `[redacted]`", "comma separated"),
    ] = ()
    record_model_contents: Annotated[
        int,
        about(
            "1: `model:call` is stored with what the model was asked and what it answered, redacted; edges, workers and"
            " emitters each have their own say",
            ge=0,
            le=1,
        ),
    ] = 0
    webhook_url: Annotated[
        str,
        about(
            "every execution's ends and questions are posted here; edges, workers and emitters must agree",
            "URL",
            allowed="an https URL (http for hosts in RUNCAST_WEBHOOK_ALLOW_HOSTS)",
            secret=True,
            pattern=r"^https?://[^\s]+$",
        ),
    ] = ""
    hooks: Annotated[
        tuple[Annotated[str, Meta(min_length=1)], ...],
        about("installed hooks that every emitted or published event passes, in this order", "comma separated"),
    ] = ()
    worker_concurrency: Annotated[int, about("executions one worker runs at a time", "executions", ge=1, le=1000)] = 10
    worker_max_waiting: Annotated[
        int,
        about(
            "executions that wait for a person or a child, and so need no slot of their worker; at this number it takes"
            " no new job",
            "executions",
            ge=1,
            le=100_000,
        ),
    ] = WORKER_MAX_WAITING
    worker_admin_port: Annotated[
        Port | None,
        about(
            "port of a worker's `/metrics`, `/healthz` and `/readyz`; unset is none",
            allowed="a whole number from 0 to 65535",
        ),
    ] = None
    lease_seconds: Annotated[
        float,
        about("a worker that renews no lease for so many seconds loses its executions", "seconds", ge=1, le=86_400),
    ] = 15
    loop_blocked_seconds: Annotated[
        float,
        about(
            "if an agent blocks its worker's event loop for longer, the worker loses its executions",
            "seconds",
            ge=1,
            le=86_400,
        ),
    ] = 60
    grace_seconds: Annotated[
        float,
        about("time a stopping worker gives its agents; 0 hands them back at once", "seconds", ge=0, le=86_400),
    ] = 30


class Setting(NamedTuple):
    """One field of the settings: its type, with and without its annotation."""

    name: str
    variable: str
    default: Any
    type: Any
    annotated: Any
    about: Meta

    @property
    def meaning(self) -> str:
        return str(self.about.description)

    @property
    def unit(self) -> str:
        return str(self._extra["unit"])

    @property
    def is_secret(self) -> bool:
        return bool(self._extra["secret"])

    @property
    def allowed(self) -> str:
        """The allowed values, in words."""
        if text := self._extra["allowed"]:
            return str(text)
        if get_origin(self.type) is Literal:
            return "one of " + ", ".join(get_args(self.type))
        if self.type in (int, float):
            kind = "a whole number" if self.type is int else "a number"
            low, high = self.about.ge, self.about.le
            return f"{kind} from {low} to {high}" if high is not None else f"{kind}, {low} or more"
        return "names, comma separated" if isinstance(self.default, tuple) else "text"

    @property
    def _extra(self) -> dict[str, Any]:
        return self.about.extra or {}

    def parse(self, text: str, source: str = "") -> Any:
        """The value of a text. `source` is the flag that gave the text, if it was not the variable. Raises
        `InvalidSetting`."""
        try:
            value = msgspec.convert(self._plain(text), self.annotated, strict=not _is(self.type, int, float))
            if check := self._extra["check"]:
                check(text)
        except InvalidEvent as error:
            raise self._refusal(text, source, f"{self.allowed} ({error})") from None
        except (msgspec.ValidationError, ValueError, OverflowError):
            raise self._refusal(text, source, self.allowed) from None
        return value

    def _plain(self, text: str) -> Any:
        if isinstance(self.default, tuple):
            return tuple(part.strip() for part in text.split(","))
        if get_origin(self.type) is Literal:
            return text.lower()
        if _is(self.type, int) and not WHOLE_NUMBER.fullmatch(text):  # msgspec also accepts 1e3 and 5.0
            raise ValueError(text)
        return text

    def _refusal(self, text: str, source: str, allowed: str) -> InvalidSetting:
        shown = f"({len(text)} characters)" if self.is_secret else text[:SHOWN_CHARS]
        return InvalidSetting(source or self.variable, shown, allowed)

    def shown(self, value: Any) -> str:
        """A value as text; of a secret only whether it is set."""
        if self.is_secret:
            return "set" if value else "unset"
        if isinstance(value, tuple):
            value = ",".join(value)
        return "unset" if value in (None, "") else str(value)


def _is(kind: Any, *kinds: Any) -> bool:
    """Whether an annotation is one of these types, or has one as a part."""
    return kind in kinds or any(_is(part, *kinds) for part in get_args(kind))


@cache
def settings_of(cls: type[SharedSettings]) -> Mapping[str, Setting]:
    """The settings of a struct, by the names of its fields."""
    hints = get_type_hints(cls, include_extras=True)
    found = {}
    for field in msgspec.structs.fields(cls):
        plain, says = get_args(hints[field.name])
        variable = PREFIX + field.name.upper()
        found[field.name] = Setting(field.name, variable, field.default, plain, hints[field.name], says)
    return found


S = TypeVar("S", bound=SharedSettings)


def read(
    cls: type[S],
    environ: Mapping[str, str],
    *,
    only: Collection[str] | None = None,
    flags: Mapping[str, tuple[str, str]] = {},
) -> S:
    """The settings in `environ`, or `only` some of them. `flags` are those of the command line: field → (flag, text).
    An empty text counts as not set. Raises `InvalidSetting`."""
    values = {}
    for name, setting in settings_of(cls).items():
        source, text = flags.get(name) or ("", environ.get(setting.variable, ""))
        if (only is None or name in only) and (text := text.strip()) and not is_service_link(setting.variable, text):
            values[name] = setting.parse(text, source)
    return cls(**values)


def with_defaults(environ: Mapping[str, str], **texts: str) -> dict[str, str]:
    """The variables, with these texts (field=text) for settings that are not set."""
    variables = {PREFIX + name.upper(): text for name, text in texts.items()}
    return {**environ, **{name: text for name, text in variables.items() if not environ.get(name, "").strip()}}


def is_service_link(variable: str, text: str) -> bool:
    """Whether Kubernetes has set a variable that would otherwise be a port."""
    return variable.endswith("_PORT") and SERVICE_LINK_VALUE.match(text) is not None
