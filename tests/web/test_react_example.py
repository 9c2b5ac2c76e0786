"""deploy/examples/react, built as a user builds it, does its job in Chromium: on the edge's own origin, as behind a
load balancer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Page, Route, expect

from emitter.events import ExecutionCancelled, PhaseStart, SpecialistActivated, ToolStart
from tests.edges import Author, eventually
from tests.web.browser import Complaints, WebStand, needs_chromium, needs_npm
from tests.web.vite_server import EXAMPLE, build, served

pytestmark = [needs_chromium, needs_npm(EXAMPLE)]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, module_stand: WebStand) -> Iterator[str]:
    """Of the application, built, and served on the edge's origin."""
    folder = tmp_path_factory.mktemp("example")
    build(EXAMPLE, "--outDir", str(folder / "dist"), "--emptyOutDir")
    with served(EXAMPLE, "preview", module_stand.url, folder / "vite.log", "--outDir", str(folder / "dist")) as url:
        yield url


async def signed_in(page: Page, url: str, token: str) -> Page:
    await page.goto(f"{url}#token={token}")
    await expect(page.get_by_role("heading", name="Executions")).to_be_visible()
    await page.wait_for_function("!location.hash.includes('token')")  # which is done once the page is drawn
    assert "token" not in page.url
    return page


@pytest_asyncio.fixture(loop_scope="session")
async def app(page: Page, stand: WebStand, user: str, url: str) -> Page:
    """The application, signed in."""
    return await signed_in(page, url, stand.token(user))


async def faster(route: Route) -> None:
    """Have the analyst go at a pace that a test can wait for."""
    request = route.request.post_data_json
    assert request is not None
    await route.continue_(post_data=json.dumps({**request, "params": {"pace": 0.2}}))


async def test_a_link_replaces_nobody(app: Page, url: str, stand: WebStand, user: str) -> None:
    """Who is signed in stays so, and the other's token leaves the address."""
    mine = await app.evaluate("sessionStorage.getItem('runcast-example-token')")
    await app.goto(f"{url}?again#token={stand.token(user + '-other')}")
    await expect(app.get_by_role("heading", name="Executions")).to_be_visible()
    assert await app.evaluate("sessionStorage.getItem('runcast-example-token')") == mine
    await app.wait_for_function("!location.hash.includes('token')")


async def test_its_main_job(app: Page, tmp_path: Path) -> None:
    """A person starts the analyst, watches it, reloads in the middle, approves what it asks, and sees the end."""
    (tmp_path / "sums.py").write_text("def add(a, b):\n    return a + b\n")
    await app.context.route("**/api/agent/execute", faster)
    await app.get_by_label("Agent").select_option("analyst")
    await app.get_by_label("Task").fill(str(tmp_path))
    await app.get_by_role("button", name="Start").click()
    await expect(app.get_by_role("heading", name=str(tmp_path))).to_be_visible()
    await expect(app.get_by_label("Tools")).to_contain_text("list_files")
    await app.reload()
    question = app.get_by_role("region", name="Question")
    await expect(question).to_contain_text("Write the report", timeout=30_000)
    await expect(app.locator(".executions .hint")).to_contain_text("needs an answer")
    await expect(app.get_by_role("status")).to_have_text("live")
    await question.get_by_role("button", name="Approve").click()
    await expect(app.locator(".badge")).to_have_text("completed")
    assert (tmp_path / "RUNCAST_REPORT.md").exists()
    await expect(question).to_have_count(0)
    await expect(app.locator(".phases .complete")).to_have_count(5)
    await expect(app.get_by_label("Thinking").get_by_role("listitem").first).to_be_visible()
    await expect(app.locator(".text")).to_contain_text("sums.py")
    await expect(app.get_by_role("button", name="Cancel")).to_have_count(0)
    await expect(app.get_by_role("status")).to_have_text("ended")


async def test_cancel_and_the_list(app: Page, web_author: Author) -> None:
    """A button cancels an execution; executions that others start appear in the list, and can be selected."""
    await app.get_by_label("Agent").select_option("sleeper")
    await app.get_by_label("Task").fill("sleep well")
    await app.get_by_role("button", name="Start").click()
    await expect(app.get_by_label("Thinking")).to_contain_text("I wait")
    await app.get_by_role("button", name="Cancel").click()
    await expect(app.locator(".badge")).to_have_text("cancelled")
    await web_author.begin()
    await web_author.say(2)
    rows = app.locator(".executions button")
    await expect(rows).to_have_count(2)
    await rows.first.click()
    await expect(app.get_by_label("Thinking").get_by_role("listitem")).to_have_count(2)
    await expect(app).to_have_url(f"{app.url.partition('#')[0]}#{web_author.execution_id}")
    await app.go_back()
    await expect(app.locator(".badge")).to_have_text("cancelled")


async def test_what_an_ending_leaves_open(app: Page, web_author: Author) -> None:
    """Nothing is shown as running after the terminal event."""
    await web_author.begin()
    await web_author.write(
        PhaseStart(phase_id="p", phase_name="Look"),
        ToolStart(call_id="c", tool_name="search", params={}),
        SpecialistActivated(specialist="legal", task="Read"),
        ExecutionCancelled(reason="enough"),
    )
    await app.locator(".executions button").click()
    await expect(app.locator(".badge")).to_have_text("cancelled")
    await expect(app.get_by_label("Tools")).to_contain_text("interrupted")
    await expect(app.get_by_label("Specialists")).to_contain_text("interrupted")
    await expect(app.locator(".phases .interrupted")).to_have_text("Lookinterrupted")


async def test_five_tabs_are_live(
    context: BrowserContext, app: Page, stand: WebStand, user: str, url: str, web_author: Author
) -> None:
    """Each tab has two streams, the list and an execution; all tabs together have two connections."""
    await web_author.begin()
    tabs = [app, *[await signed_in(await context.new_page(), url, stand.token(user)) for _ in range(4)]]
    for tab in tabs:
        await tab.locator(".executions button").click()
        await expect(tab.get_by_role("status")).to_have_text("live")
    await eventually("two connections", lambda: sum(edge.metric("runcast_connections") for edge in stand.edges) == 2)


async def test_a_token_that_is_refused(app: Page, complaints: Complaints) -> None:
    """A sign-in with an invalid token shows an error, and may be repeated."""
    complaints.allow("status of 401")
    await app.get_by_role("button", name="Sign out").click()
    await app.get_by_label("Token").fill("not-a-token")
    await app.get_by_role("button", name="Sign in").click()
    await expect(app.get_by_role("alert").first).to_be_visible()
    await app.get_by_role("button", name="Sign out").click()
    await expect(app.get_by_label("Token")).to_be_visible()
