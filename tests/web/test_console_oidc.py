"""Sign-in to the console at a real OpenID provider: code and PKCE, renewal, all tabs, sign-out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from playwright.async_api import BrowserContext, Page, Route, expect

from tests.web.browser import Complaints, needs_chromium
from tests.web.oidc_provider import TTL_SECONDS, OidcStand, needs_provider, oidc_stand, sign_in, signed_in

pytestmark = [needs_chromium, needs_provider]


@pytest.fixture(scope="module")
def oidc() -> Iterator[OidcStand]:
    with oidc_stand() as stand:
        yield stand


async def test_one_signs_in_once_for_all_tabs_and_the_page_one_came_for(
    page: Page, context: BrowserContext, oidc: OidcStand
) -> None:
    """The address is clean, no token is stored anywhere, and neither a second tab nor a reload asks anybody."""
    await sign_in(page, oidc, "ada")
    assert page.url == f"{oidc.url}/#/new"
    kept = "JSON.stringify([Object.entries(sessionStorage), Object.entries(localStorage), history.state])"
    assert "eyJ" not in await page.evaluate(kept)
    second = await context.new_page()
    await second.goto(f"{oidc.url}/#/new")
    await expect(signed_in(second)).to_contain_text("ada")
    await second.reload()
    await expect(signed_in(second)).to_contain_text("ada")
    await second.close()
    # The only tab, which has forgotten everything: the provider knows who it is.
    await page.reload()
    await expect(signed_in(page)).to_contain_text("ada")
    assert page.url == f"{oidc.url}/#/new"


async def test_the_session_is_renewed_and_nobody_notices(
    page: Page, context: BrowserContext, oidc: OidcStand, complaints: Complaints
) -> None:
    """In two tabs, for longer than two tokens live: the feed is live, and no request is refused for good."""
    complaints.allow("status of 401")
    await sign_in(page, oidc, "grace", "/")
    second = await context.new_page()
    await second.goto(oidc.url)
    await expect(signed_in(second)).to_contain_text("grace")
    await page.wait_for_timeout(2000 * TTL_SECONDS + 1000)
    for tab in (page, second):
        await expect(tab.get_by_text("Your session is ending")).to_have_count(0)
        await tab.evaluate("void (location.hash = '/new')")
        await expect(signed_in(tab)).to_contain_text("grace")
        await expect(tab.get_by_role("heading", name="New execution")).to_be_visible()


async def test_who_signs_out_is_out_everywhere(page: Page, context: BrowserContext, oidc: OidcStand) -> None:
    """In the other tab as well, and at the provider, which asks whether that is meant."""
    await sign_in(page, oidc, "joan")
    second = await context.new_page()
    await second.goto(oidc.url)
    await expect(signed_in(second)).to_contain_text("joan")
    await signed_in(page).click()
    await page.wait_for_url(oidc.provider + "/session/end**")
    await expect(second.get_by_role("button", name="Sign in", exact=True)).to_be_visible()
    await second.reload()
    await expect(second.get_by_role("button", name="Sign in", exact=True)).to_be_visible()


async def test_a_sign_out_while_the_session_is_renewed_is_final(
    page: Page, context: BrowserContext, oidc: OidcStand, complaints: Complaints
) -> None:
    """The newer token comes late: no tab gets it."""
    complaints.allow("status of 401")
    await sign_in(page, oidc, "edith", "/")
    second = await context.new_page()
    await second.goto(oidc.url)
    await expect(signed_in(second)).to_contain_text("edith")
    asking: asyncio.Future[Page] = asyncio.get_running_loop().create_future()
    may_answer = asyncio.Event()

    async def hold(route: Route) -> None:
        if not asking.done():
            asking.set_result(route.request.frame.page)
        await may_answer.wait()
        await route.continue_()

    await context.route("**/token", hold)
    async with asyncio.timeout(30):
        renewing = await asking
    await signed_in(second if renewing is page else page).click()  # the one that asks would take its request with it
    await expect(renewing.get_by_role("button", name="Sign in", exact=True)).to_be_visible()
    async with renewing.expect_response("**/token"):
        may_answer.set()
    third = await context.new_page()
    await third.goto(oidc.url)
    await expect(third.get_by_role("button", name="Sign in", exact=True)).to_be_visible()
    await expect(signed_in(third)).to_have_count(0)


async def test_who_had_a_token_may_sign_in_at_the_provider(page: Page, oidc: OidcStand, complaints: Complaints) -> None:
    """Once the token of the tab is over: the page offers the provider, as it would to anybody."""
    complaints.allow("status of 401")
    await page.goto(f"{oidc.url}/#token=eyJ.wrong.one")
    await expect(page.get_by_role("alert").filter(has_text="not accepted")).to_be_visible()
    await expect(page.get_by_text("Use an access token")).to_be_visible()


async def test_an_answer_that_nobody_asked_for_signs_nobody_in(page: Page, oidc: OidcStand) -> None:
    """Such as one that somebody else began: the code is not used, and the address is clean. Nobody is forgotten."""
    await page.goto(f"{oidc.url}/openapi.json")
    await page.evaluate("localStorage.setItem('runcast:oidc-known', '1')")
    await page.goto(f"{oidc.url}/?code=abc&state=made-up&iss={oidc.provider}#/new")
    await expect(page.get_by_role("alert").first).to_contain_text("not begun in this tab")
    assert page.url == f"{oidc.url}/#/new"
    await expect(signed_in(page)).to_have_count(0)
    assert await page.evaluate("localStorage.getItem('runcast:oidc-known')") == "1"


async def test_a_token_can_still_be_pasted(page: Page, oidc: OidcStand, complaints: Complaints) -> None:
    """Below the button; a wrong one is refused with the reason."""
    complaints.allow("status of 401")
    await page.goto(oidc.url)
    await page.get_by_text("Use an access token").click()
    await page.get_by_label("Access token").fill("eyJ.wrong.one")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert").filter(has_text="not accepted")).to_be_visible()
