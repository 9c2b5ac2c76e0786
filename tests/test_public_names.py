"""`runcast` has the public names of `emitter`, also where a workflow's file names them."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import emitter
import runcast

ROOT = Path(__file__).parents[1]
MODULES = ("events", "errors", "testing", "integrations.models", "integrations.langgraph", "integrations.temporal")


def test_names_are_the_same() -> None:
    """Each is the very object that `emitter` has; nothing else is there by accident."""
    assert runcast.__all__ == emitter.__all__
    for name in emitter.__all__:
        assert getattr(runcast, name) is getattr(emitter, name)
    assert set(emitter.__all__) <= set(dir(runcast))
    with pytest.raises(AttributeError, match="module 'runcast' has no attribute 'wire'"):
        _ = runcast.wire  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", MODULES)
def test_modules_have_the_same_names(name: str) -> None:
    """And of those that say which names are public, all."""
    here, there = importlib.import_module(f"runcast.{name}"), importlib.import_module(f"emitter.{name}")
    own = [n for n, value in vars(there).items() if getattr(value, "__module__", "") == there.__name__ and n[0] != "_"]
    names = getattr(there, "__all__", own)
    assert names
    for each in names:
        assert getattr(here, each) is getattr(there, each)


WORKFLOW = """
from temporalio import workflow
from emitter import AgentEmitter, Agents, Budget
from emitter.events import Thinking, UsageTotals
from runcast import Retry, SyncAgentEmitter

@workflow.defn
class Quiet:
    @workflow.run
    async def run(self) -> str:
        return Thinking(thought="x").type + UsageTotals.type
"""
PREPARE = """
import asyncio, own
from temporalio import workflow
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner
async def main():
    SandboxedWorkflowRunner().prepare_workflow(workflow._Definition.must_from_class(own.Quiet))
asyncio.run(main())
"""


def test_the_sandbox_of_workflows_takes_them(tmp_path: Path) -> None:
    """A workflow's file may import what its activities use, without the plugin."""
    (tmp_path / "own.py").write_text(WORKFLOW)
    environ = {"PYTHONPATH": f"{ROOT}:{tmp_path}", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", PREPARE], env=environ, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
