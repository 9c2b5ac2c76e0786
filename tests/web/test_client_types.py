"""The client as a package: its dependencies, its declarations, and the files that npm publishes."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.edges import ROOT
from tests.npm import copied
from tests.web.browser import NODE, needs_npm
from tests.web.client.viewers import HERE, node

CLIENT = ROOT / "broker" / "web" / "client"
PACKAGE: dict[str, Any] = json.loads((CLIENT / "package.json").read_text())

CONSUMER = """
import { AgentStream, ExecutionWatch, RuncastClient, RuncastError } from "@runcast/client";
import type { Status, StreamEvent } from "@runcast/client";
import type { ExecutionState, ToolStart } from "@runcast/client/events";

const client = new RuncastClient({ baseUrl: "https://x", token: async ({ refresh }) => (refresh ? "new" : "old") });

export async function run(): Promise<string> {
  const { executionId } = await client.execute({ task: "t", params: { a: 1 } }, { idempotencyKey: "k" });
  const watch: ExecutionWatch = client.watch(executionId, { keepEvents: 10, mode: "shared" });
  const stop: () => void = watch.subscribe(() => undefined);
  const state: ExecutionState | null = watch.getSnapshot().state;
  const onStatus = (status: Status) => status.phase;
  const stream: AgentStream = client.stream({ executionId, types: ["tool:*"], onStatus });
  for await (const event of stream) {
    if (event.type === "tool:start") {
      const data: ToolStart = event.data;
      return data.toolName + event.id;
    }
    // @ts-expect-error a thought is no tool
    if (event.type === "thinking") event.data.toolName;
  }
  stop();
  return state?.phases.map((phase) => phase.name).join() ?? "";
}

export const told = (event: StreamEvent) => (event.type === "progress" ? event.data.progress : 0);
// @ts-expect-error there is no such mode
client.stream({ mode: "telepathy" });
export const failed = (error: unknown) => error instanceof RuncastError && error.retryAfterMs;
"""


def test_the_version_is_the_project_s() -> None:
    """Edge and client have one version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (told,) = re.findall(r'VERSION = "(.*)"', (CLIENT / "version.js").read_text())
    assert PACKAGE["version"] == told == project["version"]
    connection = (CLIENT / "shared-worker" / "shared-connection.js").read_text()
    assert re.findall(r'name: "runcast ([0-9].*?)"', connection) == [told]  # a literal there, for bundlers
    assert PACKAGE["license"] == project["license"]


def test_what_it_needs() -> None:
    """No dependencies, and React and zustand as optional peers for the hooks and the store."""
    assert "dependencies" not in PACKAGE
    assert set(PACKAGE["peerDependencies"]) == set(PACKAGE["peerDependenciesMeta"]) == {"react", "zustand"}
    assert all(meta["optional"] for meta in PACKAGE["peerDependenciesMeta"].values())


@pytest.mark.parametrize("name", ["react", "store"])
def test_the_hooks_are_a_browser_s(name: str) -> None:
    """A directive tells frameworks that render on a server that these modules are for the browser."""
    assert (CLIENT / f"{name}.js").read_text().startswith('"use client";\n')


def test_a_bundler_keeps_the_worker_s_script() -> None:
    """Only this module is imported for its side effects."""
    assert PACKAGE["sideEffects"] == ["./shared-worker.js"]


@needs_npm(HERE)
async def test_an_application_in_typescript(tmp_path: Path) -> None:
    """An application can use the declarations: an event is narrowed by its type."""
    installed = tmp_path / "node_modules" / "@runcast" / "client"
    shutil.copytree(CLIENT, installed, ignore=shutil.ignore_patterns("*.js", "LICENSE"))
    (tmp_path / "app.ts").write_text(CONSUMER)
    options = (
        "--noEmit --strict --skipDefaultLibCheck --module nodenext --target es2022 --lib es2023,dom,dom.asynciterable"
    )
    await node("node_modules/typescript/bin/tsc", *options.split(), str(tmp_path / "app.ts"))


@pytest.mark.skipif(NODE is None or shutil.which("npm") is None, reason="needs node and npm")
async def test_what_npm_would_publish(tmp_path: Path) -> None:
    """Modules, their declarations, the README, the project's licence, and nothing else; everything that `exports` names
    is among them, and the folder is left as it was."""
    npm = shutil.which("npm")
    assert npm is not None
    package = copied(CLIENT, tmp_path)
    printed = await node(str(Path(npm).resolve()), "pack", "--dry-run", "--json", "--silent", str(package))
    (packed,) = json.loads(printed[printed.index("[\n") :])
    names = {file["path"] for file in packed["files"]}
    modules = {path.relative_to(CLIENT).as_posix() for path in CLIENT.rglob("*.js")}
    declared = {f"{name.removesuffix('.js')}.d.ts" for name in modules} | {"events.d.ts"}
    assert names == modules | declared | {"package.json", "README.md", "LICENSE"}
    assert not (package / "LICENSE").exists()
    exported = [target for entry in PACKAGE["exports"].values() for target in _targets(entry)]
    assert {target.removeprefix("./") for target in exported} <= names


def _targets(entry: str | dict[str, str]) -> list[str]:
    return [entry] if isinstance(entry, str) else list(entry.values())
