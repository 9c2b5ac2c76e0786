"""`python -m emitter MODULE:AGENTS`: a worker process.

Ends with 0 after a stop, 1 after a defect of the worker, 2 when it cannot start as told.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import logging
import math
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from emitter.agents import Agents
from emitter.connection import DEFAULT_URL, connect
from emitter.errors import InvalidEvent, InvalidSetting
from emitter.forks import leave_signals_to_this_process
from emitter.telemetry import tracer_from
from emitter.tracing import Tracer
from emitter.worker import Worker, WorkerSettings

log = structlog.get_logger("emitter.worker")
LEVELS = ("debug", "info", "warning", "error")
OTHERS = "What agents emit has the limits, redaction and hooks of RUNCAST_* variables; `runcast settings` lists them."


class CannotStart(Exception):
    """One line that says what is wrong with what the worker was told."""


class Setting(NamedTuple):
    """One setting: its environment variable and flag, its default, what is allowed, and a reader that raises
    `ValueError` for anything else."""

    variable: str
    flag: str
    default: str
    allowed: str
    read: Callable[[str], Any]
    meaning: str


def _redis_url(text: str) -> str:
    connect(text)  # raises what is wrong with it, and never shows its password
    return text


def _count(text: str) -> int:
    if not 1 <= (count := int(text)) <= 1000:
        raise ValueError(text)
    return count


def _seconds(least: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        seconds = float(text)
        if not (math.isfinite(seconds) and least <= seconds <= 86_400):
            raise ValueError(text)
        return seconds

    return read


def _port(text: str) -> int | None:
    if not text:
        return None
    if not 0 <= (port := int(text)) <= 65_535:
        raise ValueError(text)
    return port


def _level(text: str) -> str:
    if text.lower() not in LEVELS:
        raise ValueError(text)
    return text.lower()


SETTINGS = {
    "redis_url": Setting(
        "RUNCAST_REDIS_URL", "--redis-url", DEFAULT_URL,
        "an address of Redis", _redis_url, "address of Redis",
    ),
    "concurrency": Setting(
        "RUNCAST_WORKER_CONCURRENCY", "--concurrency", "10",
        "a whole number from 1 to 1000", _count, "executions run at once",
    ),
    "lease_seconds": Setting(
        "RUNCAST_LEASE_SECONDS", "--lease-seconds", "15",
        "a number of seconds from 1 to 86400", _seconds(1), "how long a worker may be silent before it counts as lost",
    ),
    "blocked_seconds": Setting(
        "RUNCAST_LOOP_BLOCKED_SECONDS", "--blocked-seconds", "60",
        "a number of seconds from 1 to 86400", _seconds(1),
        "how long an agent may block the event loop before the worker counts as lost",
    ),
    "grace_seconds": Setting(
        "RUNCAST_GRACE_SECONDS", "--grace-seconds", "30",
        "a number of seconds from 0 to 86400", _seconds(0), "how long running agents may go on after SIGTERM",
    ),
    "admin_host": Setting(
        "RUNCAST_ADMIN_HOST", "--admin-host", "0.0.0.0",  # noqa: S104 - as an edge: probes come from elsewhere
        "an address of this machine", str, "address of /metrics, /healthz and /readyz",
    ),
    "admin_port": Setting(
        "RUNCAST_WORKER_ADMIN_PORT", "--admin-port", "",
        "a port from 0 to 65535, or empty", _port, "port of /metrics, /healthz and /readyz; 0 picks one, empty is none",
    ),
    "log_level": Setting(
        "RUNCAST_LOG_LEVEL", "--log-level", "info",
        "one of " + ", ".join(LEVELS), _level, "least severe log lines to write",
    ),
}  # fmt: skip


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run a worker until SIGTERM or SIGINT; returns the process's exit code."""
    try:
        arguments = vars(_parser().parse_args(argv))
        values = {name: _value(setting, arguments[name], environ) for name, setting in SETTINGS.items()}
        _log_to_stderr(values.pop("log_level"))
        host, port = values.pop("admin_host"), values.pop("admin_port")
        agents, settings = load_agents(arguments["agents"]), WorkerSettings(**values)
        tracer = tracer_from(environ, "runcast-worker")  # after the agents, who may have set tracing up themselves
        if port is None:
            return asyncio.run(_serve(Worker(agents, settings, tracer=tracer), tracer))
        return _serve_with_probes(agents, settings, tracer, host, port)
    except (CannotStart, InvalidSetting) as error:
        sys.stderr.write(f"runcast worker: {error}\n")
        return 2


def _serve_with_probes(agents: Agents, settings: WorkerSettings, tracer: Tracer, host: str, port: int) -> int:
    try:
        from emitter.metrics import STALLED_SECONDS, Metrics
        from emitter.probes import Probes
    except ImportError as error:
        raise CannotStart(f"RUNCAST_WORKER_ADMIN_PORT needs pip install 'runcast[metrics]': {error}") from error
    stalled_seconds = max(STALLED_SECONDS, settings.blocked_seconds)
    metrics = Metrics(agents.names, _version(), stalled_seconds=stalled_seconds)
    worker = Worker(agents, settings, metrics, tracer)
    metrics.watch(lambda: worker.running, settings.concurrency)
    with Probes(host, port, metrics) as probes:
        log.info("probes_started", port=probes.port)
        return asyncio.run(_serve(worker, tracer))


def _version() -> str:
    try:
        return version("runcast")
    except PackageNotFoundError:
        return "0"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m emitter", description="Run a worker for registered agents.", epilog=OTHERS
    )
    parser.add_argument("agents", metavar="MODULE:AGENTS", help="where the Agents object is, e.g. my_package:agents")
    for name, setting in SETTINGS.items():
        text = f"{setting.meaning} ({setting.variable}; default {setting.default})"
        parser.add_argument(setting.flag, dest=name, metavar="VALUE", help=text)
    return parser


def _value(setting: Setting, flag: str | None, environ: Mapping[str, str]) -> Any:
    """A setting's value from its flag, else its variable, else its default."""
    name, text = (setting.flag, flag) if flag is not None else (setting.variable, environ.get(setting.variable))
    try:
        return setting.read(text if text is not None else setting.default)
    except InvalidEvent as error:
        raise CannotStart(f"{name}: {error}") from None
    except ValueError:
        raise CannotStart(f"{name}={text!r} is not allowed: it must be {setting.allowed}") from None


def load_agents(where: str) -> Agents:
    """The `Agents` object at `module:attribute`, found from the working directory too. Raises `CannotStart`."""
    module_name, _, attribute = where.partition(":")
    if not module_name or not attribute:
        raise CannotStart(f"{where!r} is not of the form MODULE:AGENTS")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise CannotStart(f"cannot import {module_name!r}: {text}") from error
    found = getattr(module, attribute, None)
    if not isinstance(found, Agents):
        what = f"has no {attribute!r}" if found is None else f"{attribute!r} in it is a {type(found).__name__}"
        raise CannotStart(f"{where!r} is not an Agents object: module {module_name!r} {what}")
    if not len(found):
        raise CannotStart(f"{where!r} has no agents registered")
    return found


_FOR_PEOPLE = (
    structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
    structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
)
_FOR_MACHINES = (
    structlog.processors.TimeStamper(fmt="iso"),
    structlog.processors.format_exc_info,
    structlog.processors.JSONRenderer(),
)


def _log_to_stderr(level: str) -> None:
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            *(_FOR_PEOPLE if sys.stderr.isatty() else _FOR_MACHINES),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


async def _serve(worker: Worker, tracer: Tracer) -> int:
    loop = asyncio.get_running_loop()
    leave_signals_to_this_process()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):  # Windows has no such handlers: there Ctrl-C ends it at once
            loop.add_signal_handler(number, _on_signal, worker)
    code = 0
    try:
        await worker.run()
    except Exception:
        log.exception("worker_crashed")
        code = 1
    await tracer.close()
    if worker.leftovers:
        # asyncio would wait for ever for agents that swallow their cancellation. Everything of ours is closed.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _on_signal(worker: Worker) -> None:
    """The first signal stops the worker in order, the second at once."""
    if worker.stopping:
        worker.stop_now()
    worker.stop()


if __name__ == "__main__":
    sys.exit(main())
