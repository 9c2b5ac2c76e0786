"""`python -m emitter MODULE:AGENTS`: a worker process.

Exits with 0 after a stop, 1 after a defect of the worker, 2 if it cannot start.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import structlog

from emitter.errors import InvalidSetting
from emitter.forks import leave_signals_to_this_process
from emitter.settings import SharedSettings, read, settings_of
from emitter.store.connection import DEFAULT_URL
from emitter.tracing.setup import tracer_from
from emitter.tracing.trace import Tracer
from emitter.worker.agents import Agents
from emitter.worker.worker import Worker, WorkerSettings

log = structlog.get_logger("emitter.worker")
OTHERS = "What agents emit has the limits, redaction and hooks of RUNCAST_* variables; `runcast settings` lists them."


class CannotStart(Exception):
    """The worker cannot start; the message is one line for the user."""


FLAGS = {
    "redis_url": "--redis-url",
    "worker_concurrency": "--concurrency",
    "worker_max_waiting": "--max-waiting",
    "lease_seconds": "--lease-seconds",
    "loop_blocked_seconds": "--blocked-seconds",
    "grace_seconds": "--grace-seconds",
    "admin_host": "--admin-host",
    "worker_admin_port": "--admin-port",
    "log_level": "--log-level",
}
"""Setting → flag, which takes precedence over the variable."""


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run a worker until SIGTERM or SIGINT; returns the process's exit code."""
    try:
        arguments = vars(_parser().parse_args(argv))
        given = read_settings(arguments, environ)
        _log_to_stderr(given.log_level)
        agents, settings = load_agents(arguments["agents"]), worker_settings(given)
        tracer = tracer_from(environ, "runcast-worker")  # after the agents' module, which may set up tracing itself
        if given.worker_admin_port is None:
            return asyncio.run(_serve(Worker(agents, settings, tracer=tracer), tracer))
        return _serve_with_probes(agents, settings, tracer, given.admin_host, given.worker_admin_port)
    except (CannotStart, InvalidSetting) as error:
        sys.stderr.write(f"runcast worker: {error}\n")
        return 2


def _serve_with_probes(agents: Agents, settings: WorkerSettings, tracer: Tracer, host: str, port: int) -> int:
    try:
        from emitter.worker.metrics import STALLED_SECONDS, Metrics
        from emitter.worker.probes import Probes
    except ImportError as error:
        raise CannotStart(f"RUNCAST_WORKER_ADMIN_PORT needs pip install 'runcast[metrics]': {error}") from error
    stalled_seconds = max(STALLED_SECONDS, settings.blocked_seconds)
    metrics = Metrics(agents.names, _version(), stalled_seconds=stalled_seconds)
    worker = Worker(agents, settings, metrics, tracer)
    metrics.watch(lambda: worker.running, lambda: worker.waiting, settings.concurrency)
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
    for name, flag in FLAGS.items():
        setting = settings_of(SharedSettings)[name]
        default = DEFAULT_URL if name == "redis_url" else setting.shown(setting.default)
        text = f"{setting.meaning} ({setting.variable}; default {default})".replace("%", "%%")
        parser.add_argument(flag, dest=name, metavar="VALUE", help=text)
    return parser


def read_settings(arguments: Mapping[str, str | None], environ: Mapping[str, str]) -> SharedSettings:
    """Settings from flags (`arguments`, by setting), otherwise from variables. Raises `InvalidSetting`."""
    flags = {name: (flag, text) for name, flag in FLAGS.items() if (text := arguments.get(name)) is not None}
    return read(SharedSettings, environ, flags=flags)


def worker_settings(given: SharedSettings) -> WorkerSettings:
    return WorkerSettings(
        redis_url=given.redis_url or DEFAULT_URL,
        concurrency=given.worker_concurrency,
        max_waiting=given.worker_max_waiting,
        lease_seconds=given.lease_seconds,
        blocked_seconds=given.loop_blocked_seconds,
        grace_seconds=given.grace_seconds,
    )


def load_agents(where: str) -> Agents:
    """The `Agents` object at `module:attribute`; the working directory is searched too. Raises `CannotStart`."""
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
    if not len(found) and not found.schedules:
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
        with contextlib.suppress(NotImplementedError):  # not on Windows, where Ctrl-C ends the process at once
            loop.add_signal_handler(number, _on_signal, worker)
    code = 0
    try:
        await worker.run()
    except Exception:
        log.exception("worker_crashed")
        code = 1
    await tracer.close()
    if worker.leftovers:
        # asyncio would wait for ever for agents that ignore their cancellation. Everything else is closed.
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
