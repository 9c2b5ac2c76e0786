"""Takes the console's screenshots again: real executions of the demo's agents on this repository's own code.

`python -m tests.web.screenshots [NAME …]` writes broker/web/console/screenshots/NAME.png, all of them without a name.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

from playwright.async_api import Browser, Page, expect

from tests.edges import ROOT
from tests.web.browser import Chromium, WebStand, web_stand
from tests.web.console_page import ConsolePage, start

FOLDER = ROOT / "broker" / "web" / "console" / "screenshots"
SOURCES = Path("/tmp/src")
USER = "ada"
MAX_BYTES = 160_000
WAIT_MS = 90_000


class Shot(NamedTuple):
    """A picture: what is done before it is taken, and from where one looks."""

    take: Callable[[ConsolePage, WebStand], Awaitable[None]]
    width: int = 1280
    height: int = 800
    scheme: Any = "light"


def source(name: str) -> str:
    """A directory of code under a name that anybody might have, with its tests."""
    skipped = shutil.ignore_patterns("__pycache__", "node_modules", "web")
    shutil.copytree(ROOT / name, SOURCES / name, dirs_exist_ok=True, ignore=skipped)
    tests = ROOT / "tests" / name
    if tests.is_dir():
        shutil.copytree(tests, SOURCES / name / "tests", dirs_exist_ok=True, ignore=skipped)
    return str(SOURCES / name)


async def until_action(console: ConsolePage, text: str) -> None:
    await expect(console.page.locator(".doing")).to_contain_text(text, timeout=WAIT_MS)


async def running(console: ConsolePage, stand: WebStand) -> None:
    """The analyst half-way, others before and beside it."""
    await console.open()
    await start(stand, USER, "panel", f"What do you make of {source('broker')}?", pace=0, patience=0)
    await expect(console.list.get_by_text("Completed")).to_have_count(1, timeout=WAIT_MS)
    await start(stand, USER, "analyst", f"Survey {SOURCES}/site", pace=0)
    await start(stand, USER, "analyst", f"Survey {source('emitter')}", pace=0)
    execution_id = await start(stand, USER, "analyst", f"Survey the code in {source('broker')}", pace=0.6)
    await console.go(f"/x/{execution_id}")
    await until_action(console, "Matching tests")
    await expect(console.list.get_by_text("Needs an answer")).to_have_count(1)


async def approval(console: ConsolePage, stand: WebStand) -> None:
    """The analyst asks whether it may write its report."""
    await console.open()
    execution_id = await start(stand, USER, "analyst", f"Survey {source('emitter')}", pace=0.2)
    await console.go(f"/x/{execution_id}")
    await expect(console.questions).to_contain_text("Write the report", timeout=WAIT_MS)


async def specialists(console: ConsolePage, stand: WebStand) -> None:
    """The panel at work, some of it done."""
    await console.open()
    execution_id = await start(stand, USER, "panel", f"What do you make of {source('emitter')}?", pace=0.7, patience=0)
    await console.go(f"/x/{execution_id}")
    await expect(console.rows.locator(".member.is-complete").nth(1)).to_be_visible(timeout=WAIT_MS)


async def failed(console: ConsolePage, stand: WebStand) -> None:
    """The only specialist that was asked has failed."""
    await console.open()
    await start(stand, USER, "analyst", f"Survey {source('emitter')}", pace=0)
    only: Any = {"specialists": ["docs"], "fail": "docs"}
    execution_id = await start(stand, USER, "panel", f"What is written down in {source('emitter')}?", pace=0.1, **only)
    await console.go(f"/x/{execution_id}")
    await expect(console.rows.locator(".row-end")).to_contain_text("told to fail", timeout=WAIT_MS)


async def reconnecting(console: ConsolePage, stand: WebStand) -> None:
    """The edge is gone for a moment."""
    await console.open()
    execution_id = await start(stand, USER, "analyst", f"Survey {source('emitter')}", pace=1)
    await console.go(f"/x/{execution_id}")
    await until_action(console, "Searching")
    stand.edges[0].kill()
    await expect(console.page.locator(".banner")).to_contain_text("Trying again in", timeout=WAIT_MS)


async def many(console: ConsolePage, stand: WebStand) -> None:
    """Ten executions at once: failed, completed, waiting for input, running."""
    await console.open()
    await start(stand, USER, "analyst", f"Survey {SOURCES}/site")
    await start(stand, USER, "panel", f"What do you make of {source('broker')}?", pace=0, patience=0)
    await start(stand, USER, "analyst", f"Survey {source('emitter')}", pace=0)
    await expect(console.list.get_by_text("Completed")).to_have_count(1, timeout=WAIT_MS)
    for number in range(7):
        agent, task = (("analyst", "Survey {}"), ("panel", "What do you make of {}?"))[number % 2]
        name = ("broker", "emitter")[number // 2 % 2]
        await start(stand, USER, agent, task.format(source(name)), pace=1 + 0.3 * number, patience=0)
    await expect(console.list.locator(".meter:visible")).to_have_count(8, timeout=WAIT_MS)
    await console.entry("Survey").first.click()
    await expect(console.row("read_files").first).to_be_visible(timeout=WAIT_MS)


async def operations(console: ConsolePage, stand: WebStand) -> None:
    """Both edges, the worker and Redis, while an execution runs."""
    await console.open("/ops")
    for pace in (0.2, 0.5, 1.0):
        await start(stand, USER, "analyst", f"Survey {source('emitter')}", pace=pace)
    drawn = "() => document.querySelector('.spark-line')?.getAttribute('d').split('L').length >= 8"
    await console.page.wait_for_function(drawn, timeout=WAIT_MS)


async def new(console: ConsolePage, stand: WebStand) -> None:
    """The form of the panel, made from its input schema."""
    await console.open("/new")
    await console.page.get_by_role("radio", name="panel").check()
    await console.page.get_by_label("Task").fill(f"What do you make of {source('emitter')}?")


async def timeline(console: ConsolePage, stand: WebStand) -> None:
    """What the panel's specialists did at the same time."""
    await console.open()
    execution_id = await start(stand, USER, "panel", f"What do you make of {source('emitter')}?", pace=0.5)
    await console.go(f"/x/{execution_id}?view=timeline")
    await expect(console.page.locator(".timeline-row[data-kind=person]")).to_be_visible(timeout=WAIT_MS)
    await console.questions.get_by_role("button").first.click()
    await expect(console.state).to_have_text("Completed", timeout=WAIT_MS)
    await console.page.reload()
    await expect(console.page.locator(".timeline-row").first).to_be_visible(timeout=WAIT_MS)


async def finished(console: ConsolePage, stand: WebStand) -> None:
    """A run that is over: what it was given and what came out."""
    await console.open()
    execution_id = await start(stand, USER, "panel", f"What do you make of {source('emitter')}?", pace=0, patience=0)
    await expect(console.list.get_by_text("Completed")).to_have_count(1, timeout=WAIT_MS)
    await console.go(f"/x/{execution_id}")
    await expect(console.row("Queued")).to_be_visible(timeout=WAIT_MS)
    await console.page.wait_for_timeout(1_500)  # a page that opens at the end of a run is one that has followed it
    await console.page.reload()
    await expect(console.page.get_by_role("region", name="Input and result")).to_be_visible(timeout=WAIT_MS)


async def compare(console: ConsolePage, stand: WebStand) -> None:
    """The same question to all specialists, and to one that fails."""
    await console.open()
    task, some = f"What do you make of {source('emitter')}?", ["structure", "docs"]
    one = await start(stand, USER, "panel", task, pace=0.1, patience=0)
    other = await start(stand, USER, "panel", task, pace=0.4, patience=0, specialists=some, fail="docs")
    await expect(console.list.locator(".entry[data-state=completed]")).to_have_count(2, timeout=WAIT_MS)
    await console.go(f"/compare/{one}/{other}")
    await expect(console.page.get_by_role("row").filter(has_text="Specialists, differs")).to_be_visible(timeout=WAIT_MS)


async def idle(console: ConsolePage, stand: WebStand) -> None:
    """No execution is selected; earlier ones are in the list."""
    await console.open()
    await start(stand, USER, "panel", f"What do you make of {source('broker')}?", pace=0, patience=0)
    await start(stand, USER, "analyst", f"Survey {SOURCES}/site")
    await expect(console.list.get_by_text("Completed")).to_have_count(1, timeout=WAIT_MS)
    await expect(console.list.get_by_role("link").filter(has_text="Failed")).to_have_count(1, timeout=WAIT_MS)


SHOTS = {
    "running": Shot(running),
    "approval-dark": Shot(approval, scheme="dark"),
    "specialists": Shot(specialists, 1100, 860),
    "failed": Shot(failed, 1024, 720),
    "reconnecting-dark": Shot(reconnecting, 1024, 720, "dark"),
    "ten-at-once": Shot(many, 1024, 860),
    "operations-dark": Shot(operations, 1280, 720, "dark"),
    "new": Shot(new, 1024, 860),
    "idle": Shot(idle, 1024, 640),
    "phone": Shot(approval, 390, 844),
    "timeline": Shot(timeline),
    "finished": Shot(finished, 1024, 860),
    "compare": Shot(compare, 1024, 860),
}


async def shoot(browser: Browser, stand: WebStand, name: str) -> None:
    shot = SHOTS[name]
    context = await browser.new_context(viewport={"width": shot.width, "height": shot.height}, color_scheme=shot.scheme)
    page: Page = await context.new_page()
    try:
        await shot.take(ConsolePage(page, stand, USER), stand)
        await page.evaluate("document.fonts.ready")
        data = await page.screenshot(path=FOLDER / f"{name}.png", caret="hide")
        print(f"{name}: {len(data):,} bytes{' TOO LARGE' if len(data) > MAX_BYTES else ''}")
    finally:
        await context.close()


async def main(names: list[str]) -> None:
    FOLDER.mkdir(exist_ok=True)
    chromium = Chromium()
    try:
        for name in names or SHOTS:
            with web_stand("emitter.demo:agents", drain_seconds=0) as stand:
                await shoot(await chromium.browser(), stand, name)
    finally:
        await chromium.close()
        shutil.rmtree(SOURCES, ignore_errors=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
