"""The base of the browser tests: Chromium, and edges with workers over one Redis, all of them real."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import json
import re
import shutil
import threading
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Playwright, WebError, async_playwright

from broker.cli.embedded import EmbeddedRedis
from tests.edges import ALL_SCOPES, ROOT, EdgeProcess, edges, token_for, under_load
from tests.ports import reserved_ports
from tests.workers import WorkerProcess

HERE = Path(__file__).resolve().parent
CHROMIUM = shutil.which("chromium-headless-shell")
"""Chromium without what surrounds pages in a window, which would take as much of a CPU as the pages themselves."""
WINDOWED = shutil.which("chromium")
NODE = shutil.which("node")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP *.runcast.test 127.0.0.1",  # a name that is not this machine's own
)
AGENTS_SECONDS = 20.0

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium-headless-shell (tests/run installs it)")
needs_windowed = pytest.mark.skipif(WINDOWED is None, reason="needs Debian's chromium (tests/run installs it)")


def needs_npm(folder: Path) -> pytest.MarkDecorator:
    """For tests that need the npm packages of a folder (`npm ci`)."""
    is_there = NODE is not None and (folder / "node_modules").is_dir()
    where = folder.relative_to(ROOT)
    return pytest.mark.skipif(not is_there, reason=f"needs node, and `npm ci` in {where} (tests/run does it)")


# --- the browser -----------------------------------------------------------------------------------------------------


class Chromium:
    """One browser process for a session's tests, started with the first and again when a test has brought it down."""

    def __init__(self, program: str | None = CHROMIUM) -> None:
        self._program = program
        self._playwright: Playwright | None = None
        self._browser: Browser | None = None

    async def browser(self) -> Browser:
        if self._playwright is None:
            self._playwright = await async_playwright().start()
        if self._browser is None or not self._browser.is_connected():
            launch = self._playwright.chromium.launch
            self._browser = await launch(executable_path=self._program, args=list(FLAGS), timeout=30_000)
        return self._browser

    async def close(self) -> None:
        if self._browser is not None:
            await self._browser.close()
        if self._playwright is not None:
            await self._playwright.stop()


class Complaints:
    """Errors on the consoles of pages, and uncaught errors. A test fails if it ends with one that it did not declare:
    `complaints.allow("Failed to load resource")`, a regular expression."""

    def __init__(self) -> None:
        self._heard: list[str] = []
        self._allowed: list[re.Pattern[str]] = []

    def allow(self, *patterns: str) -> None:
        self._allowed += [re.compile(pattern) for pattern in patterns]

    def hear(self, context: BrowserContext) -> None:
        """Listen to every page of a context, also to later ones."""
        context.on("console", self._on_console)
        context.on("weberror", self._on_error)

    def _on_console(self, message: ConsoleMessage) -> None:
        url = message.location["url"]
        if message.type in ("error", "assert") and not url.endswith(
            "/favicon.ico"
        ):  # the browser asks for it by itself
            self._heard.append(f"{message.text} ({url})")

    def _on_error(self, error: WebError) -> None:
        self._heard.append(f"uncaught: {error.error}")

    @property
    def undeclared(self) -> list[str]:
        return [text for text in self._heard if not any(pattern.search(text) for pattern in self._allowed)]


# --- servers ---------------------------------------------------------------------------------------------------------


class Site:
    """The web server of an application, with another origin than the edges, which allow it. It serves the files of a
    folder, and pages that a test sets."""

    def __init__(self, port: int) -> None:
        self.origin = f"http://127.0.0.1:{port}"
        self._pages: dict[str, tuple[str, bytes]] = {}
        self._folder = [HERE]
        handler = partial(_SiteHandler, self._pages, self._folder)
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def page(self, path: str, text: str, type_: str = "text/html; charset=utf-8") -> str:
        """Serve a page at a path; returns its URL."""
        self._pages[path] = (type_, text.encode())
        return self.origin + path

    def folder(self, folder: Path) -> str:
        """Serve the files of a folder (a build's `dist`, say) from now on; the site's URL."""
        self._folder[0] = folder
        return self.origin + "/"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


class _SiteHandler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, pages: dict[str, tuple[str, bytes]], folder: list[Path], *arguments: Any) -> None:
        self._pages = pages
        super().__init__(*arguments, directory=str(folder[0]))

    def do_GET(self) -> None:
        found = self._pages.get(self.path.partition("?")[0])
        if found is None:
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", found[0])
        self.send_header("Content-Length", str(len(found[1])))
        self.end_headers()
        self.wfile.write(found[1])

    def log_message(self, *_: Any) -> None:
        pass


class WebStand:
    """Two edges and a worker over a Redis of their own, and an application's site. Every test has its own user.

    The worker runs the demo's agents and those of web_agents.py. An edge may be killed and started again on its port:
    `edge.kill()`, then `edge.start().wait_ready()`; a fixture starts what a test left dead.
    """

    def __init__(self, redis: EmbeddedRedis, started: list[EdgeProcess], worker: WorkerProcess, site: Site) -> None:
        self.redis_url = redis.url
        self.edges = started
        self.worker = worker
        self.site = site
        self._numbers = itertools.count(1)

    @property
    def url(self) -> str:
        return self.urls[0]

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{edge.port}" for edge in self.edges]

    def new_user(self) -> str:
        return f"user-{next(self._numbers)}"

    def token(self, user: str, *, ttl: float = 3600.0) -> str:
        """A token of this user with every scope but `admin`."""
        return token_for(user, scopes=ALL_SCOPES - {"admin"}, ttl=ttl)

    def console(self, user: str, edge: int = 0) -> str:
        """The console's URL that signs a user in, as `runcast demo` prints it."""
        return f"{self.urls[edge]}/#token={self.token(user)}"

    def mend(self) -> None:
        """Start the servers again that a test has killed or stopped."""
        for edge in self.edges:
            if edge.process is not None and edge.process.poll() is not None:
                edge.start().wait_ready()


@contextlib.contextmanager
def web_stand(agents: str = "web_agents:agents", **settings: Any) -> Iterator[WebStand]:
    """`agents` are the worker's; `settings` those of the edges, by their field names."""
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(EmbeddedRedis())
        site = Site(*stack.enter_context(reserved_ports(1)))
        stack.callback(site.close)
        # However busy the machine is, no edge seems to be silent; and no agent waits for those that others have left.
        given = {"heartbeat_seconds": 5, "cors_origins": site.origin, "executes_per_minute": 0, **settings}
        worker = WorkerProcess(redis.url, agents, HERE, concurrency=100)
        stack.callback(worker.close)
        started = stack.enter_context(edges(redis.url, 2, **given))
        _agents_known(started[0], worker)
        yield WebStand(redis, started, worker, site)


class Stands:
    """Stands that several test files share, one for each set of settings, until `close`."""

    def __init__(self) -> None:
        self._running: dict[str, WebStand] = {}
        self._closing = contextlib.ExitStack()

    def get(self, **settings: Any) -> WebStand:
        name = repr(sorted(settings.items()))
        if name not in self._running:
            self._running[name] = self._closing.enter_context(web_stand(**settings))
        return self._running[name]

    def close(self) -> None:
        self._running.clear()
        self._closing.close()


def _agents_known(edge: EdgeProcess, worker: WorkerProcess) -> None:
    headers = {"Authorization": f"Bearer {token_for('alice')}"}
    request = urllib.request.Request(f"http://127.0.0.1:{edge.port}/api/agent/agents", headers=headers)
    deadline = time.monotonic() + under_load(AGENTS_SECONDS)
    while True:
        with urllib.request.urlopen(request, timeout=under_load(5)) as response:
            if json.load(response)["agents"]:
                return
        assert worker.alive, worker.log_text()
        assert time.monotonic() < deadline, f"no agents:\n{worker.log_text()}"
        time.sleep(0.05)
