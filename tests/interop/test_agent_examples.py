"""The examples with agent libraries, each run with the real library against a vendor on this machine."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from model_server import ARGUMENTS, CALL, TEXT, USAGE, model_server
from pythons import AGENTS, python_of

from tests.edges import ROOT

HERE = Path(__file__).parent
EXAMPLES = ROOT / "deploy" / "examples"
TOTAL = sum(given + made for given, made in USAGE.values())


async def run(python: Path | str, module: str) -> Any:
    async with model_server() as url:
        environ = {
            "PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT}:{EXAMPLES}", "OPENAI_BASE_URL": f"{url}/v1",
            "ANTHROPIC_BASE_URL": url, "OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k",
            "OPENAI_AGENTS_DISABLE_TRACING": "1",
        }  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            python, HERE / "run_example_agent.py", module, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        async with asyncio.timeout(50):
            out, error = await process.communicate()
    assert process.returncode == 0, error.decode()
    return json.loads(out)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("module", ["openai_agent", "anthropic_agent", "pydantic_ai_agent", "openai_agents_sdk"])
async def test_an_example_says_what_its_model_does(module: str) -> None:
    """The call of a tool with its result, the text as it comes, and the tokens of both calls."""
    python: Path | str | None = sys.executable
    if module in ("pydantic_ai_agent", "openai_agents_sdk"):
        python = python_of(AGENTS)
    if python is None:
        pytest.skip("its library cannot be installed")
    told = await run(python, module)
    assert told["result"] == TEXT
    named: dict[str, list[Any]] = {}
    for type_, event in told["events"]:
        named.setdefault(type_, []).append(event)
    assert named["tool:start"] == [{"callId": CALL, "toolName": "weather", "params": json.loads(ARGUMENTS)}]
    (complete,) = named["tool:complete"]
    assert (complete["callId"], complete["result"]) == (CALL, "It is sunny in Rome.")
    assert "".join(event["delta"] for event in named["message:delta"]) == TEXT
    assert len(named["message:complete"]) == 1
    assert named["usage"][-1]["totalTokens"] == TOTAL


def test_the_example_with_pytest_passes() -> None:
    """As its first line says."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", "test_with_pytest.py"]
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""}
    command[3:3] = ["-c", "/dev/null"]
    done = subprocess.run(command, cwd=EXAMPLES, env=environ, capture_output=True, text=True, timeout=50)
    assert "2 passed" in done.stdout, done.stdout
