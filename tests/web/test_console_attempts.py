"""Two attempts of one execution side by side."""

from __future__ import annotations

import re
import time
from typing import Any

from playwright.async_api import Page, expect

from emitter.events import (
    ExecutionComplete,
    ExecutionQueued,
    ExecutionStarted,
    ExecutionSuperseded,
    ToolComplete,
    ToolStart,
)
from tests.edges import Author
from tests.web.browser import Complaints, WebStand, needs_chromium
from tests.web.console_page import ConsolePage

pytestmark = needs_chromium

NOTHING = "\N{EN DASH}"


def call(number: int, name: str) -> list[Any]:
    call_id = f"c{number}"
    return [
        ToolStart(call_id=call_id, tool_name=name, params={}),
        ToolComplete(call_id=call_id, tool_name=name, result=number, duration=0.1),
    ]


async def write_attempts(author: Author) -> None:
    """Three: the first two are lost."""
    await author.write(ExecutionQueued(task="Survey", agent="analyst"))
    for attempt, names in ((1, ["look"]), (2, ["look", "read"]), (3, ["look", "read", "count"])):
        if attempt > 1:
            await author.write(ExecutionSuperseded(from_seq=1, attempt=attempt))
        await author.write(ExecutionStarted(task="Survey", started_at=int(time.time() * 1000), attempt=attempt))
        for number, name in enumerate(names):
            await author.write(*call(10 * attempt + number, name))
    await author.write(ExecutionComplete(result={"ok": True}, duration=1.0))


async def test_two_attempts_stand_side_by_side(
    page: Page, stand: WebStand, user: str, web_author: Author, complaints: Complaints
) -> None:
    """Each with what it did itself, from its wait for a worker to its end; from the story and the list of runs."""
    await write_attempts(web_author)
    id_ = web_author.execution_id
    console = await ConsolePage(page, stand, user).watch(id_)
    await console.row("Attempt 1 was lost").get_by_role("link", name="Compare it with attempt 2").click()
    await expect(page).to_have_url(re.compile(f"#/compare/{id_}@1/{id_}@2$"))
    heads = page.locator(".compare-head")
    await expect(heads.nth(0)).to_contain_text(re.compile("Survey.*attempt 1.*Failed"))
    await expect(heads.nth(1)).to_contain_text(re.compile("Survey.*attempt 2.*Failed"))
    assert await cells(page, "Attempt") == ["1", "2"]
    assert NOTHING not in await cells(page, "look")
    one, other = await cells(page, "read")
    assert one == NOTHING != other
    await expect(page.get_by_role("row").filter(has_text="count")).to_have_count(0)
    timeline = page.get_by_role("grid", name="Timeline of B")
    await expect(timeline.get_by_role("row").filter(has_text="Queued")).to_have_count(1)
    await expect(page.get_by_text("The attempt was lost.")).to_have_count(2)
    await console.go(f"/compare/{id_}")
    await page.get_by_role("link", name="Attempt 2 with 3").click()
    await expect(heads.nth(1)).to_contain_text(re.compile("attempt 3.*Completed"))
    one, other = await cells(page, "count")
    assert one == NOTHING != other
    await page.get_by_role("link", name="Swap").click()
    await expect(page).to_have_url(re.compile(f"#/compare/{id_}@3/{id_}@2$"))


async def cells(page: Page, name: str) -> list[str]:
    """What the two have in the row of this name."""
    rows = page.locator(".compare-table tbody").get_by_role("row")
    row = rows.filter(has=page.get_by_role("rowheader", name=re.compile(rf"^{name}\b")))
    await expect(row).to_have_count(1)
    return await row.get_by_role("cell").all_inner_texts()
