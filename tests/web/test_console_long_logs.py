"""Logs of ten thousand events in the console: no task has much to do, and on paper it says what is left out."""

from __future__ import annotations

import re
from typing import Any

from playwright.async_api import Page, expect

from emitter.events import ExecutionStarted, ExecutionSuperseded, Thinking, ToolComplete, ToolStart
from tests.edges import Author
from tests.web.browser import Complaints, WebStand, needs_chromium
from tests.web.console_page import ConsolePage

pytestmark = needs_chromium

EVENTS = 10_000
APPEND = 500
MAX_ADDED = 24
"""Rows that a task may add: a slice of virtual-list.js and what is around a row that stays where it is."""
MAX_ROWS = 500

RECORD = """
window.most = 0;
new MutationObserver((changes) => {
  const ofRows = changes.filter(({ target }) => target.matches?.(".rows"));
  most = Math.max(most, ofRows.reduce((sum, { addedNodes }) => sum + addedNodes.length, 0));
}).observe(document, { childList: true, subtree: true });
"""


RECORD_FOUND = """
new MutationObserver((changes) => {
  const row = changes.map(({ target }) => target).find((node) => node.matches(".rows > .is-found"));
  window.found ??= row?.dataset.seq;
}).observe(document, { attributes: true, attributeFilter: ["class"], subtree: true });
"""


async def write(author: Author, count: int) -> None:
    """A log of calls and thoughts."""
    await author.begin()
    for first in range(1, count, APPEND):
        told: list[Any] = []
        for number in range(first, min(first + APPEND, count)):
            step = number % 3
            if step == 0:
                told.append(Thinking(thought=f"thought {number}"))
            elif step == 1:
                told.append(ToolStart(call_id=f"c{number}", tool_name="look", params={"at": number}))
            else:
                told.append(ToolComplete(call_id=f"c{number - 1}", tool_name="look", result=number, duration=0.1))
        await author.write(*told)


async def test_a_long_log_is_shown_some_rows_at_a_time(
    page: Page, stand: WebStand, user: str, web_author: Author, complaints: Complaints
) -> None:
    """As it opens, as it goes on, and when one scrolls; the page never holds more than the window."""
    await page.add_init_script(RECORD)
    await write(web_author, EVENTS)
    console = await ConsolePage(page, stand, user).watch(web_author.execution_id)
    await expect(console.row("thought 9999")).to_be_in_viewport()
    rows = console.rows.locator("> li")
    await expect(rows.nth(49)).to_be_attached()
    await web_author.write(*(Thinking(thought=f"more {number}") for number in range(400)))
    await expect(console.row("more 399")).to_be_in_viewport()
    scroller = page.get_by_role("region", name="Story")
    before = await rows.count()
    await scroller.evaluate("node => node.scrollTo(0, 300)")
    await expect(rows).not_to_have_count(before)
    await page.get_by_role("button", name="Raw events").click()
    await expect(page.locator(".raw").first).to_be_visible()
    await expect(page.locator(".raw-rows > li").nth(49)).to_be_attached()
    assert 0 < await page.evaluate("most") <= MAX_ADDED
    assert await page.locator(".rows > li").count() <= 2 * MAX_ROWS


async def test_what_one_reads_stays_where_it_is_while_rows_come(
    page: Page, stand: WebStand, user: str, web_author: Author, complaints: Complaints
) -> None:
    """A row chosen in the timeline, and one above which the steps of a lost attempt are opened."""
    await page.add_init_script(RECORD_FOUND)
    await write(web_author, 1_000)
    await web_author.write(
        ExecutionSuperseded(from_seq=900, attempt=2), ExecutionStarted(task="t", started_at=1, attempt=2)
    )
    await web_author.write(*(Thinking(thought=f"again {number}") for number in range(60)))
    console = await ConsolePage(page, stand, user).watch(f"{web_author.execution_id}?view=timeline")
    await expect(console.row("again 59")).to_be_in_viewport()
    grid = page.get_by_role("grid", name="Timeline")
    await grid.evaluate("node => node.scrollTo(0, 26 * 500)")
    await grid.get_by_role("row").filter(has_text="thought 7").first.click()
    number = await (await page.wait_for_function("() => window.found")).json_value()  # it is marked for a moment only
    row = page.locator(f".rows > [data-seq='{number}']")
    await expect(row).to_be_in_viewport()
    await expect(page.locator(".rows > li").nth(49)).to_be_attached()
    await expect(row).to_be_in_viewport()
    lost = console.row("Attempt 1 was lost")
    await page.get_by_role("button", name=re.compile("below|latest")).click()
    await expect(console.row("again 59")).to_be_in_viewport()
    await lost.evaluate("node => { node.scrollIntoView(); node.closest('.scroller').scrollBy(0, -60); }")
    await expect(page.get_by_role("button", name=re.compile("below|latest"))).to_be_visible()
    top = (await lost.bounding_box() or {})["y"]
    await lost.get_by_role("button", name="steps").click()
    await expect(console.row("thought 999")).to_have_count(1)
    assert abs((await lost.bounding_box() or {})["y"] - top) < 2


ON_PAPER = """
addEventListener("beforeprint", () => {
  const rest = [...document.querySelectorAll(".rows-rest")].filter((node) => !node.hidden);
  window.paper = {
    story: document.querySelectorAll(".rows > .row").length,
    timeline: document.querySelectorAll(".timeline-row").length,
    height: document.querySelector(".timeline-canvas").offsetHeight,
    rest: rest.map((node) => node.textContent),
  };
});
"""


async def test_paper_says_what_is_left_out(
    page: Page, stand: WebStand, user: str, web_author: Author, complaints: Complaints
) -> None:
    """Story and timeline are printed whole up to a thousand rows; then the page goes on as it was."""
    await write(web_author, 900)
    console = await ConsolePage(page, stand, user).watch(f"{web_author.execution_id}?view=timeline")
    items = 600  # of 900 events, a third of which end calls
    grid = page.get_by_role("grid", name="Timeline")
    await expect(grid).to_have_attribute("aria-rowcount", str(items))  # with its head: it has all of the log
    await expect(console.rows.locator("> li").nth(49)).to_be_attached()
    await page.evaluate(ON_PAPER)
    await page.pdf()
    whole = {"story": items, "timeline": items - 1, "height": 26 * (items - 1), "rest": []}
    assert await page.evaluate("paper") == whole
    await web_author.write(*(Thinking(thought=f"more {number}") for number in range(600)))
    await expect(console.row("more 599")).to_be_in_viewport()
    await expect(grid).to_have_attribute("aria-rowcount", str(items + 600))  # it may come a moment later
    await page.pdf()
    paper = await page.evaluate("paper")
    assert (paper["story"], paper["timeline"], paper["height"]) == (1_000, 1_000, 26_000)
    assert paper["rest"] == ["… and 199 more rows", "… and 200 more rows"]
    await expect(page.locator(".rows-rest").filter(visible=True)).to_have_count(0)
    await expect(console.row("more 599")).to_be_in_viewport()
    assert await page.locator(".rows > li").count() <= MAX_ROWS
