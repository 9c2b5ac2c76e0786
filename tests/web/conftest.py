"""Browser, edges and workers for the tests of the browser side. tests/web/README.md says how to use them.

All async tests and fixtures of this folder run in one event loop, the session's: Playwright's objects belong to the
loop that made them, and a driver and a browser for each test would cost more than a second each time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, expect
from redis.asyncio import Redis

from emitter.store.connection import connect
from tests.edges import Author
from tests.web.browser import CHROMIUM, WINDOWED, Chromium, Complaints, Stands, WebStand

HERE = Path(__file__).resolve().parent
PAGE_MS = 30_000
_stands = Stands()

expect.set_options(timeout=PAGE_MS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> Generator[None]:
    """After the last of these tests nobody needs the servers."""
    yield
    if nextitem is None or HERE not in nextitem.path.parents:
        _stands.close()


@pytest.fixture(scope="session")
def stands() -> Iterator[Stands]:
    yield _stands
    _stands.close()


@pytest.fixture(scope="module")
def module_stand(stands: Stands) -> WebStand:
    return stands.get()


@pytest.fixture
def stand(module_stand: WebStand) -> Iterator[WebStand]:
    """The servers of the test's file, all of them alive."""
    yield module_stand
    module_stand.mend()


@pytest.fixture
def user(stand: WebStand) -> str:
    """A user of this test only."""
    return stand.new_user()


@pytest_asyncio.fixture(loop_scope="session")
async def stand_redis(stand: WebStand) -> AsyncIterator[Redis]:
    client = connect(stand.redis_url)
    yield client
    await client.aclose()


@pytest_asyncio.fixture(loop_scope="session")
async def web_author(stand_redis: Redis, user: str) -> Author:
    """Writes an execution of `user`, event by event, straight into its log."""
    return Author(stand_redis, user)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Chromium]:
    chromium = Chromium()
    yield chromium
    await chromium.close()


@pytest_asyncio.fixture(loop_scope="session")
async def browser(chromium: Chromium) -> Browser:
    if CHROMIUM is None:
        pytest.skip("needs chromium-headless-shell (tests/run installs it)")
    return await chromium.browser()


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    complaints = Complaints()
    yield complaints
    assert complaints.undeclared == []


@pytest_asyncio.fixture(loop_scope="session")
async def windowed() -> AsyncIterator[Browser]:
    """A whole Chromium, for what only that has."""
    chromium = Chromium(WINDOWED)
    yield await chromium.browser()
    await chromium.close()


@pytest_asyncio.fixture(loop_scope="session")
async def context(browser: Browser, complaints: Complaints) -> AsyncIterator[BrowserContext]:
    """The browser of one user: its tabs share storage and connections, separate from other tests."""
    context = await browser.new_context()
    context.set_default_timeout(PAGE_MS)
    complaints.hear(context)
    yield context
    await context.close()


@pytest_asyncio.fixture(loop_scope="session")
async def page(context: BrowserContext) -> Page:
    return await context.new_page()
