from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
import structlog

from broker.base import logging as module
from broker.base.logging import Seldom, configure_logs, get_logger


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    logging.captureWarnings(False)
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line(stream: io.StringIO) -> None:
    """A line is one JSON object with UTC time, level, event and fields."""
    configure_logs("info", stream=stream)
    get_logger(edge="e1").info("stream_closed", reason="slow", events=3)
    (line,) = lines(stream)
    assert datetime.fromisoformat(line.pop("timestamp")).utcoffset() == timedelta(0)
    assert line == {"level": "info", "event": "stream_closed", "edge": "e1", "reason": "slow", "events": 3}


def test_hostile_values(stream: io.StringIO) -> None:
    """No value, key or event can break a line or make logging fail."""
    hostile = "a\r\nb\x00\u2028\x1b[2J\ud800"
    configure_logs("info", stream=stream)
    get_logger().info(hostile, value=hostile, other=object(), **{hostile: 1})
    logging.getLogger("aiohttp.server").warning("bad request: %s", hostile)
    assert [line["event"] for line in lines(stream)] == [hostile, f"bad request: {hostile}"]
    assert stream.getvalue().isascii()
    assert stream.getvalue().count("\n") == 2


def test_nothing_steers_a_terminal(stream: io.StringIO) -> None:
    """What a person reads on a terminal holds no control character from outside, in no value, key, event, library's
    line or error; and every event is one line."""
    hostile = "\x1b]0;owned\x07\x9b2J\r\nb\x00\u2028\u202e\x7f"
    configure_logs("info", console=True, stream=stream)
    log = get_logger()
    log.info(hostile, path=hostile, nested={"a": [hostile]}, **{hostile: hostile})
    logging.getLogger("aiohttp.server").warning("bad request: %s", hostile)
    assert stream.getvalue().count("\n") == 2
    try:
        raise ValueError(hostile)
    except ValueError:
        log.exception("request_failed", path="/ok")
    text = stream.getvalue()
    assert [char for char in text if not char.isprintable() and char != "\n"] == []
    assert "Traceback" in text
    assert "\n    raise ValueError(hostile)\n" in text, "a traceback is still one"
    assert "\\x1b]0;owned\\x07" in text


def test_level(stream: io.StringIO) -> None:
    """Lines below the level are not written; a second call replaces the first."""
    log = get_logger()
    configure_logs("error", stream=stream)
    log.warning("not_written")
    configure_logs("warning", stream=stream)
    log.info("not_written")
    log.warning("written")
    assert [line["event"] for line in lines(stream)] == ["written"]


def test_libraries(stream: io.StringIO) -> None:
    """What libraries log, and warnings, come out in the same form with the library's name."""
    configure_logs("info", stream=stream)
    logging.getLogger("redis").error("connection %s", "lost")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    first, second = lines(stream)
    assert (first["event"], first["level"], first["logger"]) == ("connection lost", "error", "redis")
    assert (second["level"], second["logger"]) == ("warning", "py.warnings")


def test_tracebacks(stream: io.StringIO) -> None:
    """An exception is in its line, without the values of local variables."""
    configure_logs("info", stream=stream)
    password = "hunter2"
    try:
        raise ValueError("boom")
    except ValueError:
        get_logger().exception("stream_failed")
        logging.getLogger("aiohttp.server").exception("failed")
    first, second = lines(stream)
    assert "ValueError: boom" in first["exception"]
    assert "ValueError: boom" in second["exception"]
    assert password not in stream.getvalue()


def test_context(stream: io.StringIO) -> None:
    """Fields bound to the context are in every line of it."""
    configure_logs("info", stream=stream)
    with structlog.contextvars.bound_contextvars(request_id="r1"):
        get_logger().info("execution_accepted")
    get_logger().info("later")
    first, second = lines(stream)
    assert first["request_id"] == "r1"
    assert "request_id" not in second


def test_console(stream: io.StringIO) -> None:
    """For a person the line is text without colours when it is not a terminal."""
    configure_logs("info", console=True, stream=stream)
    get_logger().info("edge_started", port=8080)
    assert "edge_started" in stream.getvalue()
    assert "port=8080" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_what_happens_often_is_a_line_a_second(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is told at once; the next line says how many it stands for."""
    now = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    configure_logs("info", stream=stream)
    seldom = Seldom("refused", level="info")
    for now in (100.0, 100.2, 100.9, 101.1, 101.2):  # noqa: B007 - the clock
        seldom.say(open=5)
    assert [(line["event"], line["count"], line["open"]) for line in lines(stream)] == [
        ("refused", 1, 5),
        ("refused", 3, 5),
    ]
