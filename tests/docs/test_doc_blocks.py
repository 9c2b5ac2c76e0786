"""Every code block of the pages is tested, or says why it is not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import DOCS, PROGRAMS, ROOT, Block, all_blocks, blocks, commands, is_part_of, is_printed, pages
from tests.docs.stack import NODE_MODULES, Shell, background, stack
from tests.edges import under_load
from tests.web.browser import CHROMIUM, Chromium

BLOCKS = all_blocks()
HAS_NODE = shutil.which("node") is not None and (NODE_MODULES / "jsdom").is_dir()
STORIES = [page for page in pages() if any(block.mark == "run" for block in blocks(page))]
NOT_RUN = {
    "it needs a Kubernetes cluster": "kubectl",
    "it needs a host that is not free": "an MCP host, a hosted model",
    "it needs addresses of your own": "a public host name, an identity provider, a Redis with TLS",
    "it installs packages": "the packages are tested by tests/emitter_js and tests/web",
    "it is what the demo prints": "tests/e2e/test_demo.py and test_command_line.py run the demo and its agents",
    "it is a part of your own code": "it calls functions of the reader's",
    "it is your present code": "what a page moves away from",
    "it is a request's beginning": "an outline of a message, not one",
}
"""The reasons that a page may give, and what they mean."""


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Path, dict[str, str]]]:
    with stack() as started:
        yield started


def test_every_block_says_how_it_is_tested() -> None:
    """A block of a program has a mark; a reason not to run it is one of the table above."""
    unmarked = [str(block) for block in BLOCKS if block.language in PROGRAMS and not block.mark]
    assert unmarked == [], "say how it is tested, in a comment before the fence: tests/docs/blocks.py"
    reasons = {block.argument: str(block) for block in BLOCKS if block.mark == "not run"}
    assert set(reasons) <= set(NOT_RUN), reasons
    print("\n".join(f"not run: {block}: {block.argument}" for block in BLOCKS if block.mark == "not run"))


def test_code_stands_in_fences() -> None:
    """Pages have no blocks by indentation, which would pass unseen. (`tests/test_readme.py` holds the README's two.)"""
    for page in DOCS.rglob("*.md"):
        lines = page.read_text().splitlines()
        is_open, in_list = False, False
        for number, line in enumerate(lines, 1):
            if line.lstrip().startswith("```"):
                is_open = not is_open
            elif not is_open and line.strip():
                in_list = line.lstrip()[:2] in ("- ", "* ") or line.lstrip()[:2].rstrip(".").isdigit() or (
                    in_list and line.startswith("  ")
                )  # fmt: skip
                assert in_list or not line.startswith("    "), f"{page.relative_to(ROOT)}:{number}: use a fence"


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.mark == "file"], ids=str)
def test_a_part_of_a_file_is_what_the_file_has(block: Block) -> None:
    assert is_part_of(block.text, ROOT / block.argument), f"{block} is not in {block.argument}"


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "json"], ids=str)
def test_json_is_json(block: Block) -> None:
    if "…" not in block.text:
        [json.loads(line) for line in block.text.splitlines()] if block.text.count("\n{") else json.loads(block.text)


def test_what_others_run_is_there() -> None:
    """`run by` names a test."""
    for block in BLOCKS:
        if block.mark == "run by":
            assert Path(block.argument).name.startswith("test_"), block
            assert (ROOT / block.argument).is_file(), block


def test_every_example_is_run() -> None:
    """A file of `docs/examples` is in the worker of these tests, or a page runs it, or a test of its own does."""
    folder = Path(__file__).parent
    run = "".join(block.text for block in BLOCKS if block.mark == "run") + "".join(
        path.read_text() for path in folder.glob("*.py")
    )
    for path in (DOCS / "examples").iterdir():
        if path.suffix in (".py", ".mjs", ".js", ".jsx"):
            assert path.name in run or path.stem in run, f"nothing runs {path.name}"


@pytest.mark.parametrize("page", STORIES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_do_what_it_says(page: Path, running: tuple[Path, dict[str, str]]) -> None:
    """In their order, in one shell, against a running `runcast dev`."""
    if any("node " in block.text for block in blocks(page) if block.mark == "run") and not HAS_NODE:
        pytest.skip("no node, or the packages of tests/interop are not installed")
    folder, environ = running
    shell = Shell(folder, environ)
    with contextlib.ExitStack() as closing:
        closing.callback(shell.close)
        for block in blocks(page):
            if block.mark == "run" and block.argument == "background":
                text = block.text.removeprefix("$ ")
                closing.enter_context(background(["bash", "-c", "exec " + text], folder, environ, subprocess.DEVNULL))
            elif block.mark == "run":
                for command in commands(block):
                    shell.run(command)


def test_the_examples_for_pages_show_what_they_should(running: tuple[Path, dict[str, str]]) -> None:
    """In a DOM: React with the client's hook, and `useChat`."""
    if not HAS_NODE:
        pytest.skip("no node, or the packages of tests/interop are not installed")
    folder, environ = running
    shutil.copy(Path(__file__).parent / "in_a_page.mjs", folder)
    given = json.dumps({"edge": environ["RUNCAST_URL"], "token": environ["RUNCAST_TOKEN"]})
    command = ["node", "in_a_page.mjs", given]
    ended = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=55)
    assert ended.returncode == 0, ended.stderr
    shown = json.loads(ended.stdout.splitlines()[-1])
    assert "cancelled" in shown["task"]
    assert shown["chat"].startswith("user: How did March go?assistant: March went well.")


async def test_an_event_source_shows_the_text(running: tuple[Path, dict[str, str]]) -> None:
    """The browser's own, with a ticket, in a page of the edge."""
    if CHROMIUM is None:
        pytest.skip("needs chromium-headless-shell (tests/run installs it)")
    _, environ = running
    edge, token = environ["RUNCAST_URL"], environ["RUNCAST_TOKEN"]
    source = (
        (DOCS / "examples" / "eventsource.js").read_text().replace("export async function show", "async function show")
    )
    script = (
        source
        + """
    const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
    const body = JSON.stringify({ agent: "reporter", task: "March" });
    const started = await fetch("/api/agent/execute", { method: "POST", headers, body });
    const shown = document.createElement("p");
    const source = await show((await started.json()).executionId, shown, headers);
    while (source.readyState !== EventSource.CLOSED) await new Promise((later) => setTimeout(later, 20));
    return shown.textContent;
    """
    )
    chromium = Chromium()
    try:
        page = await (await chromium.browser()).new_page()
        await page.goto(edge + "/openapi.json")
        async with asyncio.timeout(under_load(20)):
            assert await page.evaluate(f"async (token) => {{ {script} }}", token) == "March went well."
    finally:
        await chromium.close()


def test_output_is_compared() -> None:
    """The comparison can fail: an ellipsis stands for a part of a line, a line of it for lines."""
    assert is_printed(["a … c"], "a b c\n")
    assert is_printed(["a", "…", "d"], "a\nb\nc\nd\n")
    assert not is_printed(["a", "d"], "a\nb\nd\n")
    assert not is_printed(["a"], "")
