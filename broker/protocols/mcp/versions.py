"""Versions of the protocol, and what a client says about itself with each request or once. Pure."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
from multidict import CIMultiDictProxy

from broker.protocols.mcp.rpc import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    MISSING_CAPABILITY,
    VERSION,
    Json,
    McpError,
    Message,
)

MODERN = "2026-07-28"
LEGACY = ("2025-11-25", "2025-06-18", "2025-03-26")
"""Newest first."""
TASKS = "io.modelcontextprotocol/tasks"
PREFIX = "io.modelcontextprotocol/"
PARAM_HEADER = "Mcp-Param-"
METADATA = "/.well-known/oauth-protected-resource"
VERSION_HEADER, METHOD_HEADER, NAME_HEADER = "MCP-Protocol-Version", "Mcp-Method", "Mcp-Name"
NAMED_BY = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}
"""The parameter that `Mcp-Name` repeats."""
LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
_ENCODED = re.compile(r"=\?base64\?([A-Za-z0-9+/_-]*={0,2})\?=\Z")
_SESSION = re.compile(r"rc\.([a-z]*)\.([0-9a-f]{32})\Z")


class Capabilities(NamedTuple):
    """What a client can do for us."""

    form: bool = False
    url: bool = False
    sampling: bool = False
    roots: bool = False
    tasks: bool = False

    @classmethod
    def of(cls, declared: Json) -> Capabilities:
        asks, extensions = declared.get("elicitation"), declared.get("extensions")
        modes = asks if isinstance(asks, dict) else None
        return cls(
            form=modes is not None and (not modes or "form" in modes),
            url=modes is not None and "url" in modes,
            sampling=isinstance(declared.get("sampling"), dict),
            roots=isinstance(declared.get("roots"), dict),
            tasks=isinstance(extensions, dict) and isinstance(extensions.get(TASKS), dict),
        )

    @property
    def code(self) -> str:
        """As letters, for an id."""
        return "".join(name[0] for name, is_set in self._asdict().items() if is_set)

    @classmethod
    def of_code(cls, code: str) -> Capabilities:
        return cls(*[name[0] in code for name in cls._fields])

    def require(self, wanted: Json) -> None:
        """Raises `McpError` for what of a `ClientCapabilities` object the client has not declared."""
        missing = _missing(self, wanted)
        if missing:
            names = ", ".join(sorted(missing))
            raise McpError(
                MISSING_CAPABILITY,
                f"this needs what the client does not declare: {names}",
                requiredCapabilities=missing,
            )


def _missing(can: Capabilities, wanted: Json) -> Json:
    known = {"elicitation": can.form or can.url, "sampling": can.sampling, "roots": can.roots}
    missing = {name: value for name, value in wanted.items() if name != "extensions" and not known.get(name, False)}
    if TASKS in (wanted.get("extensions") or {}) and not can.tasks:
        missing["extensions"] = {TASKS: {}}
    return missing


class Client(NamedTuple):
    """Who sent a request, as far as it matters for the answer. `log_level`: from which on it wants log messages."""

    version: str
    can: Capabilities
    log_level: int | None = None
    session: str = ""
    """What distinguishes clients of the old era whose request ids are alike; empty if nothing does."""

    @property
    def is_modern(self) -> bool:
        return self.version == MODERN


# --- which era -------------------------------------------------------------------------------------------------------


def is_modern(message: Message, headers: CIMultiDictProxy[str]) -> bool:
    if PREFIX + "protocolVersion" in message.meta:
        return True
    named = headers.get(VERSION_HEADER)
    return message.method != "initialize" and named is not None and named not in LEGACY


def modern_client(message: Message, headers: CIMultiDictProxy[str]) -> Client:
    """Raises `McpError`; what is checked, and in which order, is basic/transports/streamable-http's."""
    version = message.meta.get(PREFIX + "protocolVersion")
    _check_header(headers, VERSION_HEADER, version)
    _check_header(headers, METHOD_HEADER, message.method)
    if (name := NAMED_BY.get(message.method or "")) is not None:
        _check_header(headers, NAME_HEADER, message.params.get(name))
    can = message.meta.get(PREFIX + "clientCapabilities")
    if not isinstance(version, str) or not isinstance(can, dict):
        raise McpError(INVALID_PARAMS, f"params._meta has {PREFIX}protocolVersion and {PREFIX}clientCapabilities")
    if version != MODERN:
        raise McpError(VERSION, f"no version {version[:32]!r}", supported=[MODERN], requested=version)
    level = message.meta.get(PREFIX + "logLevel")
    return Client(version, Capabilities.of(can), LEVELS.index(level) if level in LEVELS else None)


def _check_header(headers: CIMultiDictProxy[str], name: str, value: object) -> None:
    """A header that is doubled is refused: proxies join such, and what they then say is anyone's guess."""
    found: Sequence[str] = headers.getall(name, ())
    if len(found) != 1:
        raise McpError(HEADER_MISMATCH, f"{name} is sent once" if found else f"{name} is missing")
    if isinstance(value, str) and _decoded(found[0].strip()) != value:
        raise McpError(HEADER_MISMATCH, f"{name} is not what the body says")


def check_arguments(headers: CIMultiDictProxy[str], repeated: Mapping[str, object]) -> None:
    """Arguments that a tool's schema wants to have repeated in headers `Mcp-Param-…`, by the names of those. Raises
    `McpError`."""
    for name, value in repeated.items():
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        _check_header(headers, PARAM_HEADER + name, text)


def _decoded(value: str) -> str | None:
    match = _ENCODED.match(value)
    if match is None:
        return value
    try:
        return base64.b64decode(match[1].translate(str.maketrans("-_", "+/")), validate=True).decode()
    except (binascii.Error, ValueError):
        return None


# --- the old era: what `initialize` said -----------------------------------------------------------------------------


def new_session(can: Capabilities) -> str:
    """A session's id, which says what its client can do: any edge can read it."""
    return f"rc.{can.code}.{secrets.token_hex(16)}"


def legacy_client(headers: CIMultiDictProxy[str]) -> Client:
    """A client without a session is asked nothing. Log messages are sent from `info` on."""
    version = headers.get(VERSION_HEADER, LEGACY[-1])
    session = headers.get("Mcp-Session-Id", "")
    match = _SESSION.match(session)
    can = Capabilities() if match is None else Capabilities.of_code(match[1])
    return Client(version, can._replace(tasks=False), LEVELS.index("info"), session)
