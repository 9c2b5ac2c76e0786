"""The client as most applications have it: packed by npm, installed, and built or served by Vite, in Chromium."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page

from tests.edges import ROOT, Author, eventually
from tests.npm import copied
from tests.web.browser import HERE, Complaints, Stands, WebStand, needs_chromium, needs_npm
from tests.web.vite_server import EXAMPLE, build, served

CLIENT = ROOT / "broker" / "web" / "client"
WAIT_MS = 30_000
STRICT = "require-trusted-types-for 'script'; trusted-types runcast"
NOT_FOUND = """
const Real = SharedWorker;
window.SharedWorker = function (_, options) { return new Real("/none.js", options); };
"""

pytestmark = [needs_chromium, needs_npm(EXAMPLE)]


@pytest.fixture(scope="module")
def module_stand(stands: Stands) -> WebStand:
    return stands.get(max_connections_per_user=0)


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tests/web/vite, and the client as `npm install` puts it there; built."""
    folder = tmp_path_factory.mktemp("application") / "app"
    shutil.copytree(HERE / "vite", folder)
    installed = folder / "node_modules" / "@runcast"
    installed.mkdir(parents=True)
    npm = shutil.which("npm")
    assert npm is not None
    package = copied(CLIENT, tmp_path_factory.mktemp("packed"))
    pack = [npm, "pack", "--json", "--silent", "--pack-destination", str(folder), str(package)]
    done = subprocess.run(pack, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    (packed,) = folder.glob("*.tgz")
    with tarfile.open(packed) as archive:
        archive.extractall(installed, filter="data")
    (installed / "package").rename(installed / "client")
    build(folder)
    return folder


async def follow(page: Page, url: str, token: str, *, worker_url: bool = False) -> dict[str, Any]:
    """Follow ex_1 on a page of the application; the status once it is live."""
    await page.goto(url)
    await page.wait_for_function("() => !!window.follow", polling=50, timeout=WAIT_MS)
    await page.evaluate("([token, given]) => follow(token, 'ex_1', given)", [token, worker_url])
    await page.wait_for_function("() => window.status_?.phase === 'live'", polling=50, timeout=WAIT_MS)
    status: dict[str, Any] = await page.evaluate("window.status_")
    return status


def connections(stand: WebStand) -> float:
    return sum(edge.metric("runcast_connections") for edge in stand.edges)


@pytest.mark.parametrize("command", ["preview", "dev"])
async def test_tabs_share_one_connection(
    context: BrowserContext, stand: WebStand, user: str, web_author: Author, application: Path, command: str
) -> None:
    """In a build, and under the server for development, seven tabs have one connection: more than a browser has of
    HTTP/1.1 to a host."""
    await eventually("no connections", lambda: connections(stand) == 0)
    await web_author.begin()
    with served(application, command, stand.url, application.parent / "vite.log") as url:
        tabs = [await context.new_page() for _ in range(7)]
        # The first has the server make all modules, for which a tab that starts the worker does not wait for long.
        statuses = [await follow(tabs[0], url, stand.token(user))]
        statuses += await asyncio.gather(*(follow(tab, url, stand.token(user)) for tab in tabs[1:]))
        assert [(status["mode"], status["fallback"]) for status in statuses] == [("shared", None)] * 7
        assert connections(stand) == 1
        await asyncio.gather(*(tab.close() for tab in tabs))


async def test_why_a_stream_is_not_shared(
    context: BrowserContext, stand: WebStand, user: str, web_author: Author, application: Path, complaints: Complaints
) -> None:
    """The status says why each tab has its own connection, and of a policy that asks for trusted types too; there
    `workerUrl` is what a bundler makes of the worker's script."""
    complaints.allow("TrustedScriptURL", "Failed to load resource")
    await web_author.begin()
    token = stand.token(user)
    built = (application / "dist" / "index.html").read_text()
    with served(application, "preview", stand.url, application.parent / "vite.log") as url:
        strict: dict[str, Any] = {"content_type": "text/html", "headers": {"Content-Security-Policy": STRICT}}
        await context.route(url + "strict", lambda route: route.fulfill(body=built, **strict))
        refused = await follow(await context.new_page(), url + "strict", token)
        assert (refused["mode"], "TrustedScriptURL" in refused["fallback"]) == ("fetch", True)
        given = await follow(await context.new_page(), url + "strict", token, worker_url=True)
        assert (given["mode"], given["fallback"]) == ("shared", None)

        lacking = await context.new_page()
        await lacking.add_init_script("delete globalThis.SharedWorker")
        assert (await follow(lacking, url, token))["fallback"] == "this browser has no SharedWorker"
        missing = await context.new_page()
        await missing.add_init_script(NOT_FOUND)
        assert "cannot be loaded" in (await follow(missing, url, token))["fallback"]


def test_the_worker_is_bundled_once(application: Path) -> None:
    """What a build holds of the worker is its bundle: no copy of a script whose imports lead nowhere."""
    scripts = {path.name: path.read_text() for path in (application / "dist" / "assets").glob("*.js")}
    assert all("/shared-streams.js" not in text and "data:text/javascript" not in text for text in scripts.values())
