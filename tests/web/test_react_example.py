"""deploy/examples/react, built as a user builds it, does its job in Chromium: on the edge's own origin, as behind a
load balancer."""

from __future__ import annotations

import json
import mimetypes
import subprocess
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Page, Route, expect

from tests.edges import ROOT, Author
from tests.web.browser import NODE, Complaints, WebStand, needs_chromium, needs_npm

EXAMPLE = ROOT / "deploy" / "examples" / "react"
APP = "/app/"

pytestmark = [needs_chromium, needs_npm(EXAMPLE)]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert NODE is not None
    folder = tmp_path_factory.mktemp("example")
    command = [NODE, "node_modules/vite/bin/vite.js", "build", "--outDir", str(folder), "--emptyOutDir"]
    done = subprocess.run(command, cwd=EXAMPLE, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    return folder


@pytest_asyncio.fixture(loop_scope="session")
async def app(context: BrowserContext, page: Page, stand: WebStand, user: str, built: Path) -> Page:
    """The application, signed in."""

    async def serve(route: Route) -> None:
        name = route.request.url.partition(APP)[2].partition("?")[0] or "index.html"
        type_ = mimetypes.guess_type(name)[0] or "application/octet-stream"
        await route.fulfill(body=(built / name).read_bytes(), content_type=type_)

    await context.route(f"{stand.url}{APP}**", serve)
    await page.goto(f"{stand.url}{APP}#token={stand.token(user)}")
    await expect(page.get_by_role("heading", name="Executions")).to_be_visible()
    assert "token" not in page.url
    return page


async def faster(route: Route) -> None:
    """Have the analyst go at a pace that a test can wait for."""
    request = route.request.post_data_json
    assert request is not None
    await route.continue_(post_data=json.dumps({**request, "params": {"pace": 0.2}}))


async def test_a_link_replaces_nobody(app: Page, stand: WebStand, user: str) -> None:
    """Who is signed in stays so, and the other's token leaves the address."""
    mine = await app.evaluate("sessionStorage.getItem('runcast-example-token')")
    await app.goto(f"{stand.url}{APP}?again#token={stand.token(user + '-other')}")
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
    await expect(app.locator(".executions .hint")).to_contain_text("waits for you")
    await expect(app.get_by_role("status")).to_have_text("live")
    await question.get_by_role("button", name="Approve").click()
    await expect(app.locator(".badge")).to_have_text("completed")
    assert (tmp_path / "RUNCAST_REPORT.md").exists()
    await expect(question).to_have_count(0)
    await expect(app.locator(".phases .complete")).to_have_count(5)
    await expect(app.get_by_label("Thinking").get_by_role("listitem").first).to_be_visible()
    await expect(app.locator(".text")).to_contain_text("sums.py")
    await expect(app.get_by_role("button", name="Cancel")).to_have_count(0)
    await expect(app.get_by_role("status")).to_have_text("over")


async def test_cancel_and_the_list(app: Page, web_author: Author) -> None:
    """What runs is cancelled by a button; what others start appears in the list, and can be looked at."""
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


async def test_a_token_that_is_refused(app: Page, complaints: Complaints) -> None:
    """Whoever signs in with a token that is none is told so, and may sign in again."""
    complaints.allow("status of 401")
    await app.get_by_role("button", name="Sign out").click()
    await app.get_by_label("Token").fill("not-a-token")
    await app.get_by_role("button", name="Sign in").click()
    await expect(app.get_by_role("alert").first).to_be_visible()
    await app.get_by_role("button", name="Sign out").click()
    await expect(app.get_by_label("Token")).to_be_visible()
