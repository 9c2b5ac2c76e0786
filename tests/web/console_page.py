"""A page object of the console: its parts by accessible name, and a few checks that need a script."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from playwright.async_api import Locator, Page, expect

from tests.edges import call
from tests.web.browser import WebStand

A_FRAME = "() => new Promise(requestAnimationFrame)"


async def start(stand: WebStand, user: str, agent: str, task: str = "Go", **params: Any) -> str:
    """Start an execution by the API; its id."""
    body = {"agent": agent, "task": task, "params": params}
    answer = await call(stand.edges[0].port, "POST", "/api/agent/execute", stand.token(user), body)
    assert answer.status == 202, answer
    execution_id: str = answer.body["executionId"]
    return execution_id


class ConsolePage:
    """A page with the console, with a user signed in."""

    def __init__(self, page: Page, stand: WebStand, user: str) -> None:
        self.page = page
        self._stand = stand
        self._user = user
        self.list = page.get_by_role("navigation", name="Executions")
        self.rows = page.get_by_role("list", name="Story")
        self.raw = page.get_by_role("list", name="Raw events")
        self.questions = page.get_by_role("region", name="Open questions")
        self.state = page.locator(".execution-header .state")
        self.title = page.locator(".execution-title")
        self.banner = page.locator(".execution-page .banner")
        self.details = page.get_by_role("complementary", name="Details")

    async def open(self, path: str = "/") -> ConsolePage:
        """Sign in by a link, and go to `path`."""
        await self.page.goto(f"{self._stand.console(self._user)}&to={path}")
        await expect(self.list.get_by_text("Loading…")).to_have_count(0)
        return self

    async def watch(self, execution_id: str) -> ConsolePage:
        return await self.open(f"/x/{execution_id}")

    async def go(self, path: str) -> None:
        """The address of a link on the page."""
        await self.page.evaluate("path => void (location.hash = path)", path)

    async def show_raw(self) -> None:
        await self.page.get_by_role("button", name="Raw events").click()

    def entry(self, text: str) -> Locator:
        """An execution in the list."""
        return self.list.get_by_role("link").filter(has_text=text)

    def row(self, text: str) -> Locator:
        return self.rows.get_by_role("listitem").filter(has_text=text)

    async def has_raw(self, numbers: Iterable[int]) -> None:
        """The raw events have these ordinals, from top to bottom, once all of them are in the page: some come with each
        frame."""
        await expect(self.raw.locator(".raw-seq")).to_have_text([str(number) for number in numbers])

    async def is_alive(self) -> None:
        """The page renders, and reacts to keys."""
        for _ in range(3):
            await self.page.evaluate(A_FRAME)
        await self.page.keyboard.press("?")
        await expect(self.page.get_by_role("dialog", name="Keyboard")).to_be_visible()
        await self.page.keyboard.press("Escape")
        await expect(self.page.get_by_role("dialog")).to_have_count(0)


async def storage(page: Page) -> Mapping[str, str]:
    found: dict[str, str] = await page.evaluate("({...sessionStorage})")
    return found
