"""The console for everybody: with a keyboard, with a screen reader, on a narrow screen, in light and in dark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from emitter.events import InputRequired, PartialResult, SandboxViolation, ToolComplete, ToolStart
from tests.edges import Author
from tests.web.browser import Complaints, WebStand, needs_chromium, needs_npm
from tests.web.console_page import ConsolePage, start

HERE = Path(__file__).parent
AXE = HERE / "console" / "node_modules" / "axe-core" / "axe.min.js"

pytestmark = needs_chromium


async def violations(page: Page, scheme: str = "light") -> list[Any]:
    """Serious and critical violations found by axe; in the dark, those of the rules that look at colours. The debugger
    runs its script, which the page's policy forbids."""
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(AXE.read_text())
    rules = {"runOnly": ["color-contrast", "link-in-text-block"]} if scheme == "dark" else {}
    found = await page.evaluate("options => axe.run(document, options)", {"resultTypes": ["violations"], **rules})
    return [
        (each["id"], node["target"], node["failureSummary"])
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


async def fill_story(author: Author) -> None:
    await author.begin()
    await author.write(
        ToolStart(call_id="c", tool_name="read", params={"path": "a"}),
        ToolComplete(call_id="c", tool_name="read", result={"lines": 1}, duration=0.1),
        ToolStart(call_id="d", tool_name="wait", params={}),
        PartialResult(result={"languages": [{"name": "a", "lines": 1}, {"name": "b", "lines": 2}]}),
        SandboxViolation(rule="network", detail="refused"),
        InputRequired(input_id="i", prompt="Go on?", kind="approval"),
        InputRequired(
            input_id="f",
            prompt="Who?",
            kind="form",
            schema={"properties": {"name": {"type": "string"}, "day": {"type": "array", "items": {"enum": ["a"]}}}},
        ),
    )


@needs_npm(HERE / "console")
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_serious(
    page: Page, stand: WebStand, user: str, web_author: Author, complaints: Complaints, scheme: Any
) -> None:
    """On sign-in, the list, an execution in its views, two compared, the form, the operations, and a dialog."""
    await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    await page.goto(stand.url)
    await expect(page.get_by_label("Access token")).to_be_visible()
    assert await violations(page, scheme) == []
    await fill_story(web_author)
    await start(stand, user, "failer", "Fail")
    console = await ConsolePage(page, stand, user).watch(web_author.execution_id)
    await expect(console.questions).to_contain_text("Who?")
    await console.row("read").get_by_role("button").click()
    await page.get_by_role("button", name="Types").click()
    assert await violations(page, scheme) == []
    await page.keyboard.press("v")
    await expect(page.get_by_role("grid", name="Timeline")).to_contain_text("read")
    assert await violations(page, scheme) == []
    await console.show_raw()
    await console.raw.get_by_role("button").first.click()
    assert await violations(page, scheme) == []
    await console.entry("Fail").click()
    await expect(console.state).to_have_text("Failed")
    assert await violations(page, scheme) == []
    failed = page.url.rpartition("/")[2]
    await console.go(f"/compare/{failed}/{web_author.execution_id}")
    await expect(page.get_by_role("grid", name="Timeline of B")).to_contain_text("read")
    assert await violations(page, scheme) == []
    await page.keyboard.press("n")
    await expect(page.get_by_role("radio", name="analyst")).to_be_visible()
    assert await violations(page, scheme) == []
    await page.keyboard.press("Escape")
    await page.keyboard.press("o")
    await expect(page.get_by_role("heading", name="Redis")).to_be_visible()
    assert await violations(page, scheme) == []
    await page.keyboard.press("?")
    assert await violations(page, scheme) == []


async def test_the_keyboard_is_enough(page: Page, stand: WebStand, user: str, complaints: Complaints) -> None:
    """From the list to an execution, its filter and its input, and back."""
    console = await ConsolePage(page, stand, user).open()
    for number in range(3):
        await start(stand, user, "asker", f"Task {number}")
    await expect(console.list.get_by_role("listitem")).to_have_count(3)
    await page.keyboard.press("j")
    await page.keyboard.press("j")
    await expect(console.entry("Task 1")).to_be_focused()
    await page.keyboard.press("k")
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("ArrowDown")
    await expect(console.entry("Task 0")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(console.title).to_be_focused()
    await page.keyboard.press("/")
    await expect(page.get_by_role("searchbox", name="Filter by words")).to_be_focused()
    await page.keyboard.type("jkpr")
    await expect(page.get_by_role("searchbox", name="Filter by words")).to_have_value("jkpr")
    await page.keyboard.press("Escape")
    await expect(console.questions.get_by_role("button", name="Approve")).to_be_visible()
    await page.keyboard.press("a")
    await page.keyboard.press("Enter")
    await expect(console.state).to_have_text("Completed")
    await page.keyboard.press("Escape")
    await expect(console.entry("Task 0")).to_be_focused()


async def test_what_happens_is_said(
    page: Page, stand: WebStand, user: str, web_author: Author, complaints: Complaints
) -> None:
    """Inputs and the end are announced politely, and the page has landmarks and one first heading."""
    await web_author.begin()
    console = await ConsolePage(page, stand, user).watch(web_author.execution_id)
    await expect(console.state).to_have_text("Running")
    live = page.locator("[aria-live=polite].unseen")
    await web_author.write(InputRequired(input_id="i", prompt="Go on?", kind="approval"))
    await expect(live).to_have_text("Needs an answer")
    await web_author.end()
    await expect(live).to_have_text("Completed")
    for landmark in ("banner", "main"):
        await expect(page.get_by_role(landmark)).to_have_count(1)  # type: ignore[arg-type]
    await expect(page.get_by_role("heading", level=1)).to_have_count(1)


async def test_a_narrow_screen_shows_the_list_or_the_execution(
    page: Page, stand: WebStand, user: str, complaints: Complaints
) -> None:
    """One at a time, without a scroll bar below, and a way back."""
    await page.set_viewport_size({"width": 390, "height": 844})
    execution_id = await start(stand, user, "asker", "A task")
    console = await ConsolePage(page, stand, user).open()
    await console.entry("A task").click()
    await expect(console.list).to_be_hidden()
    await expect(console.questions.get_by_role("button", name="Approve")).to_be_in_viewport()
    await expect(console.details).to_be_hidden()
    await page.get_by_role("button", name="Details").click()
    await expect(console.details).to_contain_text(execution_id)
    assert await page.evaluate("document.documentElement.scrollWidth") == 390
    await page.get_by_role("button", name="Back to the list").click()
    await expect(console.list).to_be_visible()
    await expect(console.title).to_have_count(0)


async def test_the_theme_is_kept(page: Page, stand: WebStand, user: str, complaints: Complaints) -> None:
    """System, light, dark, in turn; the choice holds after a reload."""
    await page.emulate_media(color_scheme="light")
    await ConsolePage(page, stand, user).open()
    background = "getComputedStyle(document.querySelector('.stage')).backgroundColor"
    light = await page.evaluate(background)
    await page.keyboard.press("t")
    await page.keyboard.press("t")
    await expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()
    assert await page.evaluate(background) != light
    await page.reload()
    assert await page.evaluate("document.documentElement.dataset.theme") == "dark"
