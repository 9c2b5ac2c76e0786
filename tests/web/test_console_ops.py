"""The operations page: every edge and worker and Redis, as they are now."""

from __future__ import annotations

from playwright.async_api import Page, expect

from tests.edges import ALL_SCOPES, token_for
from tests.web.browser import Complaints, WebStand, needs_chromium
from tests.web.console_page import ConsolePage

pytestmark = needs_chromium


async def test_edges_workers_and_redis_are_shown(
    page: Page, stand: WebStand, user: str, complaints: Complaints
) -> None:
    """Both edges and the worker by name, Redis up, and a line that grows with each snapshot."""
    await ConsolePage(page, stand, user).open("/ops")
    edges = page.get_by_role("group", name="Edges").get_by_role("row")
    await expect(edges).to_have_count(3, timeout=40_000)  # one that was killed before is listed for some time
    await expect(page.get_by_role("group", name="Workers")).to_contain_text("analyst")
    await expect(page.locator(".card", has_text="Redis")).to_contain_text("Up")
    drawn = "() => document.querySelector('.spark-line').getAttribute('d').split('L').length >= 3"
    await page.wait_for_function(drawn)


async def test_who_may_not_see_it_is_told_which_scope_it_needs(
    page: Page, stand: WebStand, user: str, complaints: Complaints
) -> None:
    """The rest of the console goes on."""
    complaints.allow("status of 403")
    token = token_for(user, scopes=ALL_SCOPES - {"ops:read", "admin"})
    await page.goto(f"{stand.url}/#token={token}&to=/ops")
    await expect(page.locator(".ops .banner")).to_have_text("Not connected: needs scope ops:read")
    await page.get_by_role("link", name="Executions", exact=True).click()
    await expect(page.get_by_role("heading", name="What are your agents doing?")).to_be_visible()
