"""The harness itself: a page that sees a real edge, a browser that stays, complaints that are heard."""

from __future__ import annotations

from playwright.async_api import Browser, BrowserContext, Page

from tests.edges import eventually
from tests.web.browser import Complaints, WebStand


async def test_a_page_sees_an_edge(page: Page, stand: WebStand, user: str) -> None:
    """A page in Chromium reaches the stand's edges, and the worker's agents are there."""
    await page.goto(stand.url + "/openapi.json")
    names = await page.evaluate(
        """async token => {
            const response = await fetch("/api/agent/agents", {headers: {Authorization: `Bearer ${token}`}});
            return (await response.json()).agents.map(agent => agent.name);
        }""",
        stand.token(user),
    )
    assert {"analyst", "panel", "teller", "asker"} <= set(names)


async def test_what_pages_complain_about_is_heard(
    page: Page, context: BrowserContext, stand: WebStand, complaints: Complaints
) -> None:
    """Errors on the console of any tab, uncaught exceptions and lost promises are complaints; a declared one is not."""
    await page.goto(stand.site.page("/loud.html", "<title>loud</title>"))
    other = await context.new_page()
    await other.goto(stand.site.page("/loud.html", "<title>loud</title>"))
    await page.evaluate("console.error('first'); console.warn('not this')")
    await other.evaluate("setTimeout(() => { throw new Error('second'); })")
    await other.evaluate("Promise.reject(new Error('third')); undefined")

    def heard(word: str) -> bool:
        return any(word in complaint for complaint in complaints.undeclared)

    await eventually("all are heard", lambda: all(map(heard, ("first", "second", "third"))))
    assert not heard("not this")
    complaints.allow("first", "second", "third")


async def test_an_edge_comes_back_on_its_port(page: Page, stand: WebStand, complaints: Complaints) -> None:
    """An edge that was killed is started again where it was."""
    complaints.allow("Failed to load resource", "ERR_CONNECTION_REFUSED")
    port = stand.edges[0].port
    stand.edges[0].kill()
    stand.mend()
    assert stand.edges[0].port == port
    response = await page.goto(stand.url + "/openapi.json")
    assert response is not None
    assert response.status == 200


async def test_the_browser_survives_its_tests(browser: Browser) -> None:
    """One browser serves all tests: this one finds it connected, and without what others left."""
    assert browser.is_connected()
    assert browser.contexts == []
