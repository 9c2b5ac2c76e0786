"""Log lines: one JSON object a line on stderr, the same for our own events and for what libraries log.

A line has `timestamp` (UTC, ISO 8601), `level`, `event` and the event's fields. JSON escapes control characters and
everything that is not ASCII, so no value can start a line of its own.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.typing import Processor


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
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *_shared_processors(),
            ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,  # so that a second call takes effect everywhere
    )


def get_logger(**fields: Any) -> structlog.stdlib.BoundLogger:
    """A logger that adds `fields` to each of its lines."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger("runcast", **fields)
    return logger


def _shared_processors() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _formatter(*, console: bool, colours: bool) -> ProcessorFormatter:
    # Tracebacks as plain text: structured ones carry local variables, and those may be secrets.
    renderers: list[Processor] = (
        [structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    return ProcessorFormatter(
        foreign_pre_chain=[*_shared_processors(), _add_library],
        processors=[ProcessorFormatter.remove_processors_meta, *renderers],
    )


def _add_library(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Name the library a foreign line came from."""
    record = event.get("_record")
    if record is not None:
        event["logger"] = record.name
    return event
