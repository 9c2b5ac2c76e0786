"""Finding an execution, showing one to others by a link, and looking at those of others in the console."""

from __future__ import annotations

import re

from playwright.async_api import Browser, BrowserContext, Page, expect

from tests.edges import Author, call, token_for
from tests.web.browser import Complaints, WebStand, needs_chromium
from tests.web.console_page import ConsolePage, start

pytestmark = needs_chromium


async def finished(stand: WebStand, user: str, page: Page, count: int) -> str:
    execution_id = await start(stand, user, "counter", count=count, pause=0)
    console = ConsolePage(page, stand, user)
    await console.go(f"/x/{execution_id}")
    await expect(console.state).to_have_text("Completed")
    return execution_id


async def test_a_search_finds_what_the_list_does_not_say(
    page: Page, stand: WebStand, user: str, web_author: Author, complaints: Complaints
) -> None:
    """By a word of a result, also of an execution that the list has not loaded."""
    console = await ConsolePage(page, stand, user).open()
    await finished(stand, user, page, 2)
    found = await start(stand, user, "asker", "Something else")
    box = page.get_by_label("Search executions")
    links = console.list.get_by_role("link").filter(has_not_text="New")
    await box.fill(found[-8:])
    await expect(links).to_have_count(1)
    await expect(links.first).to_contain_text("Something else")
    await box.fill("nowhere-to-be-found")
    await expect(console.list.get_by_text("No execution matches.")).to_be_visible()
    await box.fill("")
    await expect(links).to_have_count(2)


async def test_a_link_shows_one_execution_to_somebody_without_an_account(
    page: Page, browser: Browser, stand: WebStand, user: str, complaints: Complaints
) -> None:
    """Live, with its input and result and without anything that changes it; once it is revoked, it shows nothing."""
    complaints.allow("status of 401")
    console = await ConsolePage(page, stand, user).watch(await start(stand, user, "asker", "May I share?"))
    await expect(console.questions.get_by_role("button", name="Approve")).to_be_visible()
    await page.get_by_role("button", name="More").click()
    await page.get_by_role("button", name="Share…").click()
    dialog = page.get_by_role("dialog", name="Share this execution")
    await dialog.get_by_role("button", name="Make a link").click()
    link = await dialog.get_by_label("Link", exact=True).input_value()
    await expect(dialog.get_by_role("button", name="Revoke")).to_have_count(1)
    stranger = await browser.new_context()
    try:
        complaints.hear(stranger)
        guest = await stranger.new_page()
        await guest.goto(link)
        await expect(guest.get_by_text("Somebody shared this execution with you")).to_be_visible()
        await expect(guest.locator(".execution-title")).to_have_text("May I share?")
        await expect(guest.get_by_role("region", name="Open questions")).to_contain_text("Go on?")
        for name in ("Approve", "Cancel", "Run again", "Sign out"):
            await expect(guest.get_by_role("button", name=name)).to_have_count(0)
        await page.keyboard.press("Escape")
        await console.questions.get_by_role("button", name="Approve").click()
        await expect(guest.locator(".execution-header .state")).to_have_text("Completed")
        await guest.get_by_role("button", name="More").click()
        offered = await guest.locator(".menu-item").all_inner_texts()
        assert [text.strip() for text in offered] == ["Copy the id", "Export as NDJSON", "Print"]
        await page.get_by_role("button", name="More").click()
        await page.get_by_role("button", name="Share…").click()
        await dialog.get_by_role("button", name="Revoke").click()
        await expect(dialog.get_by_role("button", name="Revoke")).to_have_count(0)
        await guest.reload()
        await expect(guest.get_by_text(re.compile("unknown, has expired or was revoked")).first).to_be_visible()
    finally:
        await stranger.close()


async def test_what_is_shared_stays_when_another_tab_signs_in(
    page: Page, context: BrowserContext, stand: WebStand, user: str, complaints: Complaints
) -> None:
    """A link belongs to nobody's session, though the tab has one."""
    execution_id = await start(stand, user, "counter", "Shared and seen", count=1, pause=0)
    await ConsolePage(page, stand, user).open()
    path = f"/api/agent/executions/{execution_id}/shares"
    made = (await call(stand.edges[0].port, "POST", path, token_for(user), {})).body
    await page.goto(f"{stand.url}/#/shared/{execution_id}/{made['token']}")
    await page.reload()
    await expect(page.locator(".execution-title")).to_have_text("Shared and seen")
    other = await context.new_page()
    await other.goto(f"{stand.url}/#token={token_for(user + '-other')}")
    await expect(other.get_by_role("button", name="Sign out")).to_be_visible()
    await page.evaluate("new Promise((done) => setTimeout(done, 100))")  # a message between tabs
    await expect(page.locator(".execution-title")).to_have_text("Shared and seen")
    await expect(page.get_by_role("button", name="Sign out")).to_have_count(0)


async def test_a_colleague_with_the_scope_reads_the_executions_of_others(
    page: Page, context: BrowserContext, stand: WebStand, user: str, complaints: Complaints
) -> None:
    """The page says whose they are, offers nothing that changes them, and leads back to one's own."""
    execution_id = await start(stand, user, "asker", "Whose is this?")
    colleague = token_for(f"{user}-colleague", scopes={"executions:read", "executions:write", "org:read"})
    await page.goto(f"{stand.url}/#token={colleague}")
    await page.get_by_label("Executions of").fill(user)
    await page.get_by_role("button", name="Show").click()
    await expect(page.get_by_role("status").filter(has_text="Executions of")).to_contain_text(user)
    console = ConsolePage(page, stand, user)
    await console.list.get_by_text("Whose is this?").click()
    await expect(console.state).to_have_text(re.compile("answer", re.IGNORECASE))
    assert page.url == f"{stand.url}/#/as/{user}/x/{execution_id}"
    await expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    await expect(page.get_by_role("button", name="Approve")).to_have_count(0)
    await expect(page.get_by_role("link", name="New")).to_have_count(0)
    await page.keyboard.press("n")
    await page.get_by_role("button", name="More").click()
    await page.evaluate("navigator.clipboard.writeText = (text) => void (window.copied = text)")
    await page.get_by_role("button", name="Copy as curl").click()
    assert f"/stream?user={user}'" in await page.evaluate("copied")
    await page.reload()
    await expect(console.title).to_have_text("Whose is this?")
    await page.get_by_role("link", name="Back to mine").click()
    await expect(console.list.get_by_text("No executions yet.")).to_be_visible()
    await expect(page.get_by_role("status").filter(has_text="Executions of")).to_have_count(0)
