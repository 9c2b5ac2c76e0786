"""Who looks at the console: by the demo's link, by a token in a form, and no one else."""

from __future__ import annotations

from playwright.async_api import Page, expect

from tests.web.browser import Complaints, WebStand, needs_chromium
from tests.web.console_page import ConsolePage, start, storage

pytestmark = needs_chromium

REFUSED = "status of 401"


async def test_a_link_signs_in_and_leaves_no_token_in_the_address_or_the_history(
    page: Page, stand: WebStand, user: str, complaints: Complaints
) -> None:
    """The token of `#token=` is gone from the address at once, is kept in this tab, and survives a reload."""
    console = await ConsolePage(page, stand, user).open("/ops")
    assert page.url == f"{stand.url}/#/ops"
    assert list(await storage(page)) == ["runcast:token"]
    assert await page.evaluate("JSON.stringify(history.state) + localStorage.length") == "null0"
    await page.reload()
    await expect(console.list).to_be_visible()
    await expect(page.get_by_role("button", name="Sign out")).to_contain_text(user)


async def test_a_token_signs_in_by_the_form(page: Page, stand: WebStand, user: str, complaints: Complaints) -> None:
    """`Bearer ` and blanks around a pasted token do no harm."""
    await page.goto(stand.url)
    await page.get_by_label("Access token").fill(f"  Bearer {stand.token(user)} ")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("navigation", name="Executions")).to_be_visible()


async def test_a_wrong_token_is_refused_with_the_reason(page: Page, stand: WebStand, complaints: Complaints) -> None:
    """Nothing is shown, nothing is kept, and the field has the focus again."""
    complaints.allow(REFUSED)
    await page.goto(stand.url)
    field = page.get_by_label("Access token")
    for wrong, said in ((" ", "Paste a token"), ("wrong token", "no token"), ("eyJ.wrong.one", "not accepted")):
        await field.fill(wrong)
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("alert")).to_contain_text(said)
        await expect(field).to_be_focused()
    assert await storage(page) == {}
    await expect(page.get_by_role("navigation")).to_have_count(0)


async def test_a_link_with_a_token_that_is_over_leads_to_the_form(
    page: Page, stand: WebStand, user: str, complaints: Complaints
) -> None:
    """It says why, and forgets the token."""
    complaints.allow(REFUSED)
    await page.goto(f"{stand.url}/#token={stand.token(user, ttl=-10)}")
    await expect(page.get_by_role("alert")).to_contain_text("not accepted")
    assert await storage(page) == {}
    assert page.url.rstrip("#") == f"{stand.url}/"


async def test_signing_out_forgets_the_token(page: Page, stand: WebStand, user: str, complaints: Complaints) -> None:
    """The form is there again, also after a reload."""
    await ConsolePage(page, stand, user).open()
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_label("Access token")).to_be_visible()
    await page.reload()
    await expect(page.get_by_label("Access token")).to_be_visible()


async def test_a_session_that_ends_is_renewed_in_place(
    page: Page, stand: WebStand, user: str, complaints: Complaints
) -> None:
    """Whoever watches is asked for a newer token, loses nothing of what is shown, and goes on."""
    complaints.allow(REFUSED)
    execution_id = await start(stand, user, "counter", count=25, pause=0.3)
    await page.goto(f"{stand.url}/#token={stand.token(user, ttl=8)}&to=/x/{execution_id}")
    bar = page.get_by_role("alert").filter(has_text="session is ending")
    await bar.get_by_role("button", name="Sign in").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Access token").fill(stand.token(user))
    await dialog.get_by_role("button", name="Sign in").click()
    await expect(bar).to_have_count(0)
    await expect(page.get_by_text("Completed in")).to_be_visible(timeout=15_000)
    console = ConsolePage(page, stand, user)
    await expect(console.rows.get_by_text("thought ")).to_have_count(25)
    await expect(bar).to_have_count(0)  # every stream has the new token, and nobody is asked again
