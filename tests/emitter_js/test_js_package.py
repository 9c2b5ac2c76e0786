"""`@runcast/emitter` as a package: its catalogue, its declarations, and the files that npm publishes."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from broker.edge.typescript import build_typescript
from broker.executions.publish import NOT_PUBLISHED
from emitter.budgets import BudgetState
from emitter.events import BY_TYPE, TERMINAL_STATE_OF
from emitter.values import MAX_INTEGER
from tests.edges import ROOT
from tests.emitter_js.stand import EMITTER, NODE, needs_node, needs_packages, node

WORKER = EMITTER.parent / "worker-js"
PACKAGE: dict[str, Any] = json.loads((EMITTER / "package.json").read_text())
WORKER_PACKAGE: dict[str, Any] = json.loads((WORKER / "package.json").read_text())
KINDS = {str: "text", float: "number", int: "integer", bool: "flag", Any: "any", BudgetState: "object"}

CONSUMER = """
import { AgentEmitter, AgentSSEEmitter, Cancelled, ExecutionEnded, type EmitterOptions } from "@runcast/emitter";
import { pipe, type Piped } from "@runcast/emitter/ai-sdk";
import { endOnExit, stopOnSignal } from "@runcast/emitter/node";
import { createWorker, Retry, type Context } from "@runcast/worker";
import type { ToolStart } from "@runcast/emitter/events";

const options: EmitterOptions = { url: "https://x", token: async ({ refresh }) => (refresh ? "new" : "old") };

export async function agent(): Promise<number> {
  await using emitter = new AgentEmitter(options);
  const takeBack: () => void = endOnExit(emitter, { signals: ["SIGTERM"] });
  await emitter.executionStarted({ task: "t" });
  await emitter.thinking({ thought: "hm" });
  // @ts-expect-error a thought has a text
  await emitter.thinking({ iteration: 1 });
  // @ts-expect-error there is no such kind
  await emitter.ask("?", { kind: "telepathy" });
  const start: ToolStart = { callId: "c", toolName: "t", params: 1 };
  await emitter.toolStart(start);
  const found: { n: number } = await emitter.tool("search", { q: 1 }, async (call) => {
    await call.progress({ progress: 50 });
    return { n: 1 };
  });
  const name: string = await emitter.phase("p", "P", () => "done");
  const yes: boolean = await emitter.ask("sure?");
  const one: string = await emitter.ask("which?", { kind: "choice", options: ["a"] });
  const { signal }: { signal: AbortSignal } = emitter;
  if (signal.aborted && signal.reason instanceof Cancelled) console.log(signal.reason.by, yes, one, name);
  takeBack();
  await emitter.executionComplete({ result: found });
  return found.n;
}

export const ran: Promise<number> = new AgentSSEEmitter(options).run("task", async (emitter) => {
  await emitter.usage({ add: {} });
  return 1;
});
const worker = createWorker({
  url: "https://x",
  token: "t",
  agents: {
    short: async ({ task }) => task,
    long: { maxAttempts: 2, run: async (context: Context) => (await context.ask("?")) || new Retry("", { after: 1 }) },
  },
});
stopOnSignal(worker);
export const ends: Promise<void> = worker.run();
// @ts-expect-error an agent has a function
createWorker({ url: "https://x", token: "t", agents: { none: { maxAttempts: 1 } } });
export const state = (error: unknown) => (error instanceof ExecutionEnded ? error.state : "");
"""
AI_SDK = """
import { streamText, ToolLoopAgent, type LanguageModel } from "ai";
import { AgentEmitter } from "@runcast/emitter";
import { pipe, type Piped } from "@runcast/emitter/ai-sdk";

export async function all(model: LanguageModel, emitter: AgentEmitter): Promise<Piped> {
  await pipe(streamText({ model, prompt: "p", abortSignal: emitter.signal }), emitter);
  await pipe(new ToolLoopAgent({ model }), emitter, { prompt: "p" });
  return await pipe((input) => streamText({ model, ...input }), emitter, { task: "t", prompt: "p" });
}
"""


def test_the_version_is_the_project_s() -> None:
    """Edge, Python packages and this package have one version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (told,) = re.findall(r'VERSION = "(.*)"', (EMITTER / "version.js").read_text())
    assert PACKAGE["version"] == told == project["version"]
    assert PACKAGE["license"] == project["license"]
    assert WORKER_PACKAGE["version"] == told
    assert WORKER_PACKAGE["dependencies"] == {"@runcast/emitter": told}
    assert not {"dependencies", "peerDependencies"} & PACKAGE.keys()


@needs_node
async def test_the_catalogue_is_the_emitter_s() -> None:
    """Types, fields, and what may be left out, are those of `emitter.events`."""
    module = (EMITTER / "catalogue.js").as_uri()
    script = f"""
        const {{ CATALOGUE, TERMINAL_STATE_OF }} = await import({json.dumps(module)});
        const kinds = (fields) => Object.fromEntries(
          Object.entries(fields).map(([name, {{ kind, required }}]) => [name, [kind.name, required]]));
        const all = Object.entries(CATALOGUE).map(([type, fields]) => [type, kinds(fields)]);
        console.log(JSON.stringify([Object.fromEntries(all), TERMINAL_STATE_OF]));
    """
    found, ends = json.loads(await node("--input-type=module", "-e", script))
    assert ends == TERMINAL_STATE_OF
    assert found.keys() == BY_TYPE.keys() - NOT_PUBLISHED.keys()
    for type_, fields in found.items():
        expected = _fields(BY_TYPE[type_])
        assert {name: kind for name, (kind, _) in fields.items()} == {
            name: kind for name, (kind, _) in expected.items()
        }
        # What a Python event leaves out is its default.
        assert {name for name, (_, required) in fields.items() if required} == {
            name for name, (_, required) in expected.items() if required
        }


def _fields(event: Any) -> dict[str, tuple[str, bool]]:
    hints = get_type_hints(event)
    required = len(event.__struct_fields__) - len(event.__struct_defaults__)
    names = zip(event.__struct_fields__, event.__struct_encode_fields__, strict=True)
    # Keyword-only fields are sorted: those without a default first.
    is_required = {name: at < required for at, name in enumerate(event.__struct_fields__)}
    return {wire: (_kind(name, hints[name]), is_required[name]) for name, wire in names}


def _kind(name: str, hint: Any) -> str:
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    if type(None) in get_args(hint) and len(kinds) == 1:
        hint = kinds[0]
    if get_origin(hint) is list:
        return "texts"
    if get_origin(hint) is dict:
        return "object"
    if get_origin(hint) is not None:
        return "oneOf"
    if name == "progress":
        return "percent"
    return KINDS.get(hint, getattr(hint, "__name__", "?"))


def test_the_declarations_of_events_are_current() -> None:
    """`runcast openapi --typescript` prints them."""
    assert (EMITTER / "events.d.ts").read_text() == build_typescript()


@needs_packages
async def test_the_declarations_are_current(tmp_path: Path) -> None:
    """The modules are typed (strict), and the declarations beside them are made from them (`node types.mjs`)."""
    await node("types.mjs", str(tmp_path))
    made = {path.name: path.read_text() for path in tmp_path.glob("*.d.ts")}
    committed = {path.name: path.read_text() for path in EMITTER.glob("*.d.ts") if path.name != "events.d.ts"}
    assert made == committed


@needs_packages
@pytest.mark.parametrize("version", ["ai6", "ai7"])
async def test_an_application_in_typescript(tmp_path: Path, version: str) -> None:
    """An application can use the declarations, with the AI SDK or without it."""
    installed = tmp_path / "node_modules" / "@runcast" / "emitter"
    shutil.copytree(EMITTER, installed, ignore=shutil.ignore_patterns("*.js"))
    shutil.copytree(WORKER, installed.parent / "worker", ignore=shutil.ignore_patterns("*.js"))
    packages = Path(__file__).parent / "node_modules"
    for package in packages.iterdir():
        if not package.name.startswith("."):
            (tmp_path / "node_modules" / package.name).symlink_to(package)
    (tmp_path / "node_modules" / "ai").symlink_to(packages / version)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "app.ts").write_text(CONSUMER)
    (tmp_path / "sdk.ts").write_text(AI_SDK)
    options = "--noEmit --strict --skipLibCheck --preserveSymlinks --module nodenext --target es2022"
    libraries = ("--lib", "es2023,esnext.disposable,dom")
    compiler = str(packages / "typescript" / "bin" / "tsc")
    await node(compiler, *options.split(), *libraries, "app.ts", "sdk.ts", cwd=tmp_path)


@pytest.mark.skipif(NODE is None or shutil.which("npm") is None, reason="needs node and npm")
async def test_what_npm_would_publish() -> None:
    """Modules, their declarations, the README, the project's licence, and nothing else; everything that `exports` names
    is among them, and the folder is left as it was."""
    npm = shutil.which("npm")
    assert npm is not None
    printed = await node(str(Path(npm).resolve()), "pack", "--dry-run", "--json", "--silent", str(EMITTER))
    (packed,) = json.loads(printed[printed.index("[\n") :])
    names = {file["path"] for file in packed["files"]}
    modules = {path.name for path in EMITTER.glob("*.js")}
    declared = {f"{name.removesuffix('.js')}.d.ts" for name in modules} | {"events.d.ts"}
    assert names == modules | declared | {"package.json", "README.md", "LICENSE"}
    assert not (EMITTER / "LICENSE").exists()
    targets = [entry if isinstance(entry, str) else list(entry.values()) for entry in PACKAGE["exports"].values()]
    exported = {each for entry in targets for each in ([entry] if isinstance(entry, str) else entry)}
    assert {target.removeprefix("./") for target in exported} <= names


@needs_node
async def test_the_worker_s_package(tmp_path: Path) -> None:
    """`@runcast/worker` is the emitter's worker."""
    scope = tmp_path / "node_modules" / "@runcast"
    scope.mkdir(parents=True)
    (scope / "emitter").symlink_to(EMITTER)
    shutil.copytree(WORKER, scope / "worker")
    script = 'console.log(Object.keys(await import("@runcast/worker")).sort().join())'
    assert (await node("--input-type=module", "-e", script, cwd=tmp_path)).strip() == "Fatal,Retry,Worker,createWorker"


@needs_node
async def test_units() -> None:
    """units.test.mjs: the parts of the package."""
    assert "# fail 0" in await node("--test", "--test-reporter=tap", "units.test.mjs")


def test_integers_are_what_every_parser_reads() -> None:
    """Numbers of JavaScript hold what the catalogue allows."""
    assert MAX_INTEGER == 2**53 - 1
