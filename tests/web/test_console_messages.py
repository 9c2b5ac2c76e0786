"""The console's line to write on: messages to a running agent."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, expect

from tests.edges import call
from tests.web.browser import Complaints, WebStand, needs_chromium, needs_npm
from tests.web.console_page import ConsolePage, start
from tests.web.test_console_access import violations

HERE = Path(__file__).parent

pytestmark = needs_chromium


def line_of(page: Page) -> tuple[Locator, Locator]:
    """The line's text, and the part of the page that it is in."""
    part = page.get_by_role("region", name="Messages")
    return part.get_by_role("textbox", name="Message to the agent"), part


async def test_a_message_waits_is_withdrawn_interrupts_and_is_taken(
    page: Page, stand: WebStand, user: str, complaints: Complaints
) -> None:
    """By keyboard alone: what waits is listed and may be withdrawn, an interruption reaches the agent at once."""
    execution_id = await start(stand, user, "listener")
    console = await ConsolePage(page, stand, user).watch(execution_id)
    text, part = line_of(page)
    await expect(text).to_be_visible()
    await page.keyboard.press("m")
    await expect(text).to_be_focused()
    await page.keyboard.type("first")
    await page.keyboard.press("Shift+Enter")
    await page.keyboard.type("more")
    await page.keyboard.press("Enter")
    waiting = part.get_by_role("list", name="Messages that wait").get_by_role("listitem")
    await expect(waiting).to_contain_text(["first more"])
    await expect(text).to_have_value("")
    await expect(part.get_by_role("status")).to_have_text("Sent. It waits for the agent.")
    await page.keyboard.type("a mistake")
    await page.keyboard.press("Enter")
    await part.get_by_role("button", name="Withdraw “a mistake”").press("Enter")
    await expect(waiting).to_have_count(1)
    await expect(part.get_by_role("status")).to_have_text("Withdrawn.")
    await expect(console.row("a mistake")).to_contain_text("Withdrawn.")
    await expect(text).to_be_focused()
    await expect(text).to_have_value("")
    await page.keyboard.type("now")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Space")
    interrupts = part.get_by_role("button", name="Interrupt")
    await expect(interrupts).to_have_attribute("aria-pressed", "true")
    await expect(text).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(part.get_by_role("status")).to_have_text("The agent has taken your message.")
    await expect(interrupts).to_have_attribute("aria-pressed", "false")
    await expect(waiting).to_have_count(0)
    await expect(console.row("interrupts")).to_contain_text(re.compile("now.*taken", re.DOTALL))
    await text.fill("stop")
    await page.keyboard.press("Enter")
    await expect(console.state).to_have_text("Completed")
    await expect(part).to_be_hidden()
    state = await call(stand.edges[0].port, "GET", f"/api/agent/executions/{execution_id}", stand.token(user))
    assert state.body["result"] == ["now", "first\nmore", "stop"]


async def test_an_agent_that_takes_no_messages_has_no_line(
    page: Page, stand: WebStand, user: str, complaints: Complaints
) -> None:
    """Nor has an execution that is over."""
    execution_id = await start(stand, user, "sleeper")
    path = f"/api/agent/executions/{execution_id}/messages"
    answer = await call(stand.edges[0].port, "GET", path, stand.token(user))
    assert answer.body["acceptsMessages"] is False
    async with page.expect_response(f"**{path}"):
        console = await ConsolePage(page, stand, user).watch(execution_id)
    await expect(console.row("I wait")).to_be_visible()
    await expect(line_of(page)[1]).to_be_hidden()


async def test_what_was_not_sent_when_the_agent_ended_is_not_lost(
    page: Page, stand: WebStand, user: str, complaints: Complaints
) -> None:
    """The text stays, to be copied, and the page says that it was not sent; what waited has been dropped."""
    execution_id = await start(stand, user, "listener")
    console = await ConsolePage(page, stand, user).watch(execution_id)
    text, part = line_of(page)
    await text.fill("heard by nobody")
    await page.keyboard.press("Enter")
    await expect(part.get_by_role("listitem")).to_have_count(1)
    await text.fill("half a sent")
    path = f"/api/agent/executions/{execution_id}/cancel"
    await call(stand.edges[0].port, "POST", path, stand.token(user), {})
    await expect(part.get_by_role("status")).to_have_text("The execution is over. This was not sent.")
    await expect(text).to_have_value("half a sent")
    await expect(part.get_by_role("button", name="Send")).to_be_disabled()
    await expect(part.get_by_role("listitem")).to_have_count(0)
    await expect(console.row("heard by nobody")).to_contain_text("The agent ended before it took it.")


async def test_a_refusal_is_shown_and_the_text_stays(
    page: Page, stand: WebStand, user: str, complaints: Complaints
) -> None:
    """With as many waiting as may wait, one more is refused."""
    complaints.allow("status of 429")
    execution_id = await start(stand, user, "listener")
    await ConsolePage(page, stand, user).watch(execution_id)
    path = f"/api/agent/executions/{execution_id}/messages"
    for number in range(50):
        answer = await call(stand.edges[0].port, "POST", path, stand.token(user), {"text": f"message {number}"})
        assert answer.status == 202
    text, part = line_of(page)
    await expect(part.get_by_text("and 47 more messages")).to_be_visible()
    await text.fill("one too many")
    await page.keyboard.press("Enter")
    await expect(part.get_by_role("status")).to_contain_text("50")
    await expect(text).to_have_value("one too many")


@needs_npm(HERE / "console")
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_line_fits_a_phone(
    page: Page, stand: WebStand, user: str, complaints: Complaints, scheme: str
) -> None:
    """At 390 px everything is in view, and buttons without their words keep their names; axe finds nothing serious."""
    await page.set_viewport_size({"width": 390, "height": 844})
    await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce")
    await ConsolePage(page, stand, user).watch(await start(stand, user, "listener"))
    text, part = line_of(page)
    await text.fill("a message that is much longer than the line is wide " * 4)
    await page.keyboard.press("Enter")
    await expect(part.get_by_role("listitem")).to_have_count(1)
    for name in ("Interrupt", "Send", "Withdraw"):
        await expect(part.get_by_role("button", name=name)).to_be_in_viewport(ratio=1)
    box = await text.bounding_box()
    assert box is not None
    assert box["width"] > 200
    assert await page.evaluate("document.documentElement.scrollWidth") == 390
    assert await violations(page, scheme) == []
