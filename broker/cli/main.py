"""The `runcast` command. Arguments in, exit status out; what happens is elsewhere."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import secrets
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
from redis.exceptions import RedisClusterException, RedisError
from rich.console import Console

from broker.auth.claims import SCOPES
from broker.auth.tokens import DEFAULT_SCOPES
from broker.base.logging import configure_logs
from broker.base.settings import describe, load_settings, with_redis
from broker.base.version import version
from broker.cli.client import ApiError, EdgeClient, EdgeUnreachable
from broker.cli.control import answered, cancelled, listed, retried, sent, shared
from broker.cli.embedded import MissingLibrary, NoServer
from broker.cli.eventsource import NotAStream
from broker.cli.terminal import Feed, watch
from broker.edge.signing import minted, static_key
from emitter.errors import InvalidEvent, InvalidSetting
from emitter.settings import with_defaults
from emitter.store.connection import one_line
from emitter.wire.ids import parse_event_id

DEFAULT_EDGE = "http://127.0.0.1:8080"
WORKERS_MAX = 128
DEV_SCOPES = SCOPES - {"admin"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. 0 is success, 1 that something failed, 2 that the command or a setting was wrong."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a mark the terminal cannot show must not end the command
    parsed = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = parsed.command
    try:
        return command(parsed)
    except (InvalidSetting, InvalidEvent, ValueError) as error:
        print(f"runcast: {error}", file=sys.stderr)
        return 2
    except (RedisError, RedisClusterException) as error:
        print(f"runcast: Redis: {one_line(error)}", file=sys.stderr)
        return 1
    except (ApiError, EdgeUnreachable, MissingLibrary, NoServer, NotAStream, OSError) as error:
        print(f"runcast: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="runcast", description="Stream what agents are doing to who waits for them.")
    parser.add_argument("--version", action="version", version=version())
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    each = commands.add_parser("demo", help="run Redis, an edge and a worker with demo agents on this machine")
    each.add_argument("--script", metavar="EVENTS.jsonl", help="play a recorded execution instead of running a worker")
    each.add_argument("--speed", type=float, default=1.0, help="how many times faster to play it (default 1)")
    each.set_defaults(command=_demo)

    each = commands.add_parser("dev", help="run your agents with all they need on this machine; reload their code")
    each.add_argument("agents", metavar="MODULE:AGENTS", help="where the Agents object is, e.g. my_package:agents")
    each.set_defaults(command=_dev)

    each = commands.add_parser("serve", help="run an edge")
    each.add_argument("--workers", type=_workers, metavar="N", help="N supervised processes on one port")
    each.add_argument("--dev", action="store_true", help="loopback only, with a generated secret")
    each.set_defaults(command=_serve)

    # `broker.__main__` has run `runcast worker`; it stands here to be listed.
    commands.add_parser("worker", help="run agents: runcast worker MODULE:AGENTS", add_help=False)

    each = commands.add_parser("run", help="start an execution, and watch it")
    each.add_argument("agent", help="its name; `GET /api/agent/agents` lists them")
    each.add_argument("task", help="what it is asked to do")
    each.add_argument("--params", type=json.loads, metavar="JSON", help="the agent's parameters, a JSON object")
    limits = "what it may spend: totalTokens, costUsd, toolCalls, seconds"
    each.add_argument("--budget", type=_budget, metavar="LIMIT=NUMBER,…", help=limits)
    each.add_argument("--follow", action="store_true", help="watch it to its end, and talk to it; exit with its status")
    _edge_arguments(each)
    each.set_defaults(command=_run)

    each = commands.add_parser("tail", help="follow an execution, or all executions of a user")
    each.add_argument("execution", nargs="?", help="its id")
    each.add_argument("--user", help="all executions of this user (yourself; another with scope admin or org:read)")
    each.add_argument("--after", metavar="ID", help="begin after this event id")
    _edge_arguments(each)
    each.set_defaults(command=_tail)

    each = commands.add_parser("ls", help="list your newest executions, or search in them")
    each.add_argument("words", nargs="*", help="only those with these words in their task, result, error or id")
    each.add_argument("--agent", help="only those of this agent")
    each.add_argument("--state", help="only these: queued, running, waiting_input, completed, failed or cancelled")
    each.add_argument("--limit", type=int, default=20, metavar="N", help="at most so many (default 20)")
    _edge_arguments(each)
    each.set_defaults(command=_list)

    each = commands.add_parser("share", help="make a link that shows an execution to whoever has it")
    each.add_argument("execution", help="its id")
    each.add_argument("--hours", type=float, help="how long it works (default 24)")
    _edge_arguments(each)
    each.set_defaults(command=_share)

    each = commands.add_parser("cancel", help="cancel an execution")
    each.add_argument("execution", help="its id")
    each.add_argument("--reason", help="shown to its viewers")
    _edge_arguments(each)
    each.set_defaults(command=_cancel)

    each = commands.add_parser("retry", help="start an execution again, as a new one: its agent, task and parameters")
    each.add_argument("execution", help="its id")
    each.add_argument("--task", help="another task")
    each.add_argument("--params", type=json.loads, metavar="JSON", help="parameters to add or replace, a JSON object")
    each.add_argument("--follow", action="store_true", help="watch it to its end, and talk to it; exit with its status")
    _edge_arguments(each)
    each.set_defaults(command=_retry)

    each = commands.add_parser("answer", help="answer an execution's question; without a value, list its questions")
    each.add_argument("execution", help="its id")
    each.add_argument("value", nargs="?", help="y or n; an option or its number; a text; or a JSON object for a form")
    each.add_argument("--input", metavar="ID", help="which question, if there are several")
    each.add_argument("--decline", action="store_true", help="say that you will not answer; an approval is refused")
    _edge_arguments(each)
    each.set_defaults(command=_answer)

    each = commands.add_parser("message", help="say something to a running agent")
    each.add_argument("execution", help="its id")
    each.add_argument("text", help="what is said")
    each.add_argument("--interrupt", action="store_true", help="at once, if the agent may be interrupted")
    _edge_arguments(each)
    each.set_defaults(command=_message)

    each = commands.add_parser("token", help="print a token minted with RUNCAST_JWT_SECRET")
    each.add_argument("--user", required=True, help="whose token it is")
    each.add_argument("--org", default="default", help="the user's organisation (default: default)")
    scopes = " ".join(sorted(DEFAULT_SCOPES))
    known = f"what it may do, space separated: {', '.join(sorted(SCOPES))} (default {scopes})"
    each.add_argument("--scope", default=scopes, help=known)
    each.add_argument("--ttl", type=float, default=3600, help="seconds (default 3600)")
    workers = "of a worker over HTTP (scope jobs:run): only jobs of these; may be given several times"
    each.add_argument("--agent", action="append", metavar="NAME", help=workers)
    each.set_defaults(command=_token)

    each = commands.add_parser("doctor", help="check Redis, and the network path from an edge to its viewers")
    each.add_argument("url", nargs="?", help="public address of the edges")
    each.add_argument(
        "--token", default=os.environ.get("RUNCAST_TOKEN"), help="token for the streams that it opens (RUNCAST_TOKEN)"
    )
    each.add_argument("--idle", type=float, default=40.0, help="seconds to watch a quiet stream (default 40)")
    each.set_defaults(command=_doctor)

    each = commands.add_parser("openapi", help="print the API description")
    each.add_argument("--typescript", action="store_true", help="its types of events, states and requests")
    each.set_defaults(command=_openapi)
    commands.add_parser("settings", help="print every setting").set_defaults(command=_settings)

    each = commands.add_parser("edge")  # what the supervisor starts; not for people
    each.add_argument("numbers", type=int, nargs=5)
    each.set_defaults(command=_edge)
    return parser


def _workers(text: str) -> int:
    if text.isdecimal() and 1 <= int(text) <= WORKERS_MAX:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes, 1 to {WORKERS_MAX}")


def _edge_arguments(parser: argparse.ArgumentParser) -> None:
    url = os.environ.get("RUNCAST_URL", DEFAULT_EDGE)
    parser.add_argument("--url", default=url, help=f"address of an edge (RUNCAST_URL; default {DEFAULT_EDGE})")
    parser.add_argument("--token", default=os.environ.get("RUNCAST_TOKEN"), help="your token (RUNCAST_TOKEN)")


# --- commands whose modules take a second to import ------------------------------------------------------------------


def _demo(arguments: argparse.Namespace) -> int:
    from broker.cli import demo

    return asyncio.run(demo.run(load_settings(os.environ), script=arguments.script, speed=arguments.speed))


def _dev(arguments: argparse.Namespace) -> int:
    from broker.cli import dev

    return asyncio.run(dev.run(load_settings(os.environ), arguments.agents))


def _serve(arguments: argparse.Namespace) -> int:
    from broker.edge.edge import serve
    from broker.edge.supervisor import Supervisor
    from broker.executions.publish import edge_hooks

    environ = dict(os.environ)
    if arguments.dev:
        environ |= {"RUNCAST_HOST": "127.0.0.1", "RUNCAST_ADMIN_HOST": "127.0.0.1"}
        quick = "0.5"  # at Ctrl-C
        environ = with_defaults(environ, jwt_secret=secrets.token_urlsafe(32), drain_seconds=quick)
    settings = load_settings(environ)
    configure_logs(settings.log_level)
    settings = with_redis(settings)
    edge_hooks(settings)  # refuse to start before anything is bound
    if not settings.jwks_url:
        static_key(settings)
    if arguments.dev:
        token = minted(settings, "dev", scopes=DEV_SCOPES, ttl=86_400)
        console = f"http://127.0.0.1:{settings.port}/#token={token}"
        print(f"DEVELOPMENT MODE: loopback only. The console of user dev, signed in:\n{console}", file=sys.stderr)
    if arguments.workers:
        asyncio.run(Supervisor(settings, arguments.workers, environ).run())
    else:
        with contextlib.suppress(asyncio.CancelledError):  # a second signal: the drain was cut short, as asked
            asyncio.run(serve(settings))
    return 0


def _edge(arguments: argparse.Namespace) -> int:
    from broker.edge.child import run_child

    # Ctrl-C goes to the supervisor, which stops its children in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = load_settings(os.environ)
    configure_logs(settings.log_level)
    try:
        asyncio.run(run_child(settings, *arguments.numbers))
    except asyncio.CancelledError:
        return 1
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from broker.cli.doctor import command

    return command.look(arguments)


def _openapi(parsed: argparse.Namespace) -> int:
    from broker.edge.openapi import build_openapi
    from broker.edge.typescript import build_typescript

    if parsed.typescript:
        print(build_typescript(), end="")
        return 0
    print(msgspec.json.format(msgspec.json.encode(build_openapi(version())), indent=2).decode())
    return 0


# --- clients ---------------------------------------------------------------------------------------------------------


def _run(arguments: argparse.Namespace) -> int:
    _check_params(arguments)
    given = {"agent": arguments.agent, "params": arguments.params, "budget": arguments.budget}
    return asyncio.run(_run_agent(arguments, lambda api: api.execute(arguments.task, **given)))


def _retry(arguments: argparse.Namespace) -> int:
    _check_params(arguments)
    given = {"task": arguments.task, "params": arguments.params}
    return asyncio.run(_run_agent(arguments, lambda api: retried(api, arguments.execution, **given)))


def _check_params(arguments: argparse.Namespace) -> None:
    if arguments.params is not None and not isinstance(arguments.params, dict):
        raise ValueError("--params is a JSON object")


def _budget(text: str) -> dict[str, float]:
    """`toolCalls=20,costUsd=0.5` as a request has it. Raises `ValueError`; the edge checks names and numbers."""
    parts = [part.partition("=") for part in text.split(",")]
    return {name.strip(): float(value) if "." in value else int(value) for name, _, value in parts}


def _api(arguments: argparse.Namespace) -> EdgeClient:
    """The edge as the user of the token. Raises `ValueError` without one: what the edge would say is for browsers."""
    if not arguments.token:
        raise ValueError("set RUNCAST_TOKEN (or --token) to your token; `runcast dev` and `runcast demo` print one")
    return EdgeClient(arguments.url, arguments.token)


def _ends_in_order() -> None:
    """SIGTERM ends a command that has a terminal as Ctrl-C does: the terminal gets its lines and its echo back."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


async def _run_agent(arguments: argparse.Namespace, start: Callable[[EdgeClient], Awaitable[Mapping[str, Any]]]) -> int:
    async with _api(arguments) as api:
        execution_id: str = (await start(api))["executionId"]
        if not arguments.follow:
            print(execution_id)
            return 0
        print(execution_id, file=sys.stderr)
        _ends_in_order()
        try:
            return await watch(api, execution_id, Console())
        except asyncio.CancelledError:
            print(f"it goes on: runcast tail {execution_id}, or runcast cancel {execution_id}", file=sys.stderr)
            raise


def _tail(arguments: argparse.Namespace) -> int:
    if (arguments.execution is None) == (arguments.user is None):
        raise ValueError("name an execution, or --user")
    cursor = parse_event_id(arguments.after) if arguments.after else None
    target = arguments.execution or Feed(user=arguments.user)

    _ends_in_order()

    async def follow() -> int:
        async with _api(arguments) as api:
            return await watch(api, target, Console(), cursor=cursor)

    return asyncio.run(follow())


def _with_edge(arguments: argparse.Namespace, ask: Callable[[EdgeClient], Awaitable[list[str]]]) -> int:
    """Print the lines that a call to the edge gives."""

    async def call() -> list[str]:
        async with _api(arguments) as api:
            return await ask(api)

    for line in asyncio.run(call()):
        print(line)
    return 0


def _list(arguments: argparse.Namespace) -> int:
    sought = {"q": " ".join(arguments.words) or None, "agent": arguments.agent, "state": arguments.state}
    return _with_edge(arguments, lambda api: listed(api, limit=arguments.limit, **sought))


def _share(arguments: argparse.Namespace) -> int:
    lifetime = None if arguments.hours is None else arguments.hours * 3600
    return _with_edge(arguments, lambda api: shared(api, arguments.execution, lifetime))


def _cancel(arguments: argparse.Namespace) -> int:
    return _with_edge(arguments, lambda api: cancelled(api, arguments.execution, arguments.reason))


def _answer(arguments: argparse.Namespace) -> int:
    given = arguments.execution, arguments.input, arguments.value
    return _with_edge(arguments, lambda api: answered(api, *given, declined=arguments.decline))


def _message(arguments: argparse.Namespace) -> int:
    given = arguments.execution, arguments.text
    return _with_edge(arguments, lambda api: sent(api, *given, interrupts=arguments.interrupt))


# --- prints ----------------------------------------------------------------------------------------------------------


def _token(arguments: argparse.Namespace) -> int:
    settings = load_settings(os.environ)
    if not settings.jwt_secret:
        raise InvalidSetting("RUNCAST_JWT_SECRET", "", "the secret that the edges verify tokens with")
    scopes = arguments.scope.split()
    if arguments.agent and "jobs:run" not in scopes:
        raise ValueError("--agent is for tokens of workers: --scope jobs:run")
    given = arguments.user, arguments.org
    print(minted(settings, *given, scopes=scopes, ttl=arguments.ttl, agents=arguments.agent))
    return 0


def _settings(_: argparse.Namespace) -> int:
    for row in describe(load_settings(os.environ)):
        unit = f" ({row.unit})" if row.unit else ""
        print(f"{row.name}{unit}\n    {row.meaning}\n    default {row.default}, now {row.current}")
    return 0
