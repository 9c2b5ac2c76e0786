"""Log lines: one JSON object a line on stderr, the same for our own events and for what libraries log.

A line has `timestamp` (UTC, ISO 8601), `level`, `event` and the event's fields. JSON escapes control characters and
everything that is not ASCII, so no value can start a line of its own; on a terminal nothing can steer that.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, TextIO

import msgspec
import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.typing import Processor

_OF_LINES = ("exception", "stack")


def configure_logs(level: str, *, console: bool = False, stream: TextIO | None = None) -> None:
    """Send all logging of this process to `stream` (stderr), from `level` (debug, info, warning, error) upwards.
    `console` writes for a person at a terminal instead of JSON. May be called again."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(console=console, colours=stream.isatty()))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # A line per request would drown the facts; requests are counted and streams log their own end.
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    logging.captureWarnings(True)
    # Our own lines go straight to the stream: by way of stdlib logging each would cost five times as much, and an edge
    # writes two for every stream it opens.
    structlog.configure(
        processors=[*_shared_processors(), *_renderers(console=console, colours=stream.isatty())],
        logger_factory=structlog.WriteLoggerFactory(stream),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,  # so that a second call takes effect everywhere
    )


def get_logger(**fields: Any) -> structlog.typing.FilteringBoundLogger:
    """A logger that adds `fields` to each of its lines."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(**fields)
    return logger


class Seldom:
    """Log lines about what may happen any number of times: one a second at most, which says how many it stands for."""

    def __init__(self, event: str, *, level: str = "warning") -> None:
        self._event = event
        self._level = level
        self._next_at = 0.0
        self._count = 0

    def say(self, **fields: Any) -> None:
        self._count += 1
        now = time.monotonic()
        if now >= self._next_at:
            getattr(get_logger(), self._level)(self._event, count=self._count, **fields)
            self._next_at = now + 1
            self._count = 0


def _shared_processors() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _renderers(*, console: bool, colours: bool) -> list[Processor]:
    # Tracebacks as plain text: structured ones carry local variables, and those may be secrets.
    if console:
        renderer = structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)
        return [structlog.processors.format_exc_info, _escape, renderer]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_json)]


def _json(line: structlog.typing.EventDict, **options: Any) -> str:
    """msgspec takes a quarter of the time, but leaves what is not ASCII as it is and does not know all types."""
    try:
        text = msgspec.json.encode(line).decode()
    except (TypeError, ValueError, OverflowError):
        text = ""
    return text if text.isascii() and text else json.dumps(line, **options)


def _escape(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Show control characters as JSON would: a page can ask for any path, and none may steer the terminal that shows
    it. A traceback keeps its lines."""
    return {_visible(key): _visible(value, key in _OF_LINES) for key, value in event.items()}


def _visible(value: Any, has_lines: bool = False) -> Any:
    if not isinstance(value, str) or value.isprintable():
        return value
    return "".join(char if char.isprintable() or (has_lines and char in "\n\t") else _code(char) for char in value)


def _code(char: str) -> str:
    return char.encode("unicode_escape").decode()


def _formatter(*, console: bool, colours: bool) -> ProcessorFormatter:
    return ProcessorFormatter(
        foreign_pre_chain=[*_shared_processors(), _add_library],
        processors=[ProcessorFormatter.remove_processors_meta, *_renderers(console=console, colours=colours)],
    )


def _add_library(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Name the library a foreign line came from."""
    record = event.get("_record")
    if record is not None:
        event["logger"] = record.name
    return event
