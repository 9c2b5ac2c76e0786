"""The files for browsers: which are served, how, and that nothing else is."""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from broker.auth import authenticator
from broker.base.accepting import accepts_gzip
from broker.base.metrics import Metrics
from broker.edge.serving import serving
from broker.http import errors
from broker.http.connection import Unreadable
from broker.http.listener import Counts, Listener, listen
from broker.http.static import ROOT, StaticFiles
from tests.edges import Connection, request

ORIGIN = "https://app.example.com"
SCRIPT = b"export const answer = 42;\n" + b"// a comment\n" * 200
FILES: dict[str, bytes] = {
    "console/index.html": b"<!doctype html><title>Runcast</title>",
    "console/app.js": b"import {answer} from '/client/index.js';\n",
    "console/style.css": b"body { color: black }\n",
    "console/icons/tool.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>\n",
    "console/notes.txt": b"of no kind that is served",
    "console/.hidden.js": b"secret",
    "console/screenshots/one.svg": b"not for browsers",
    "client/index.js": SCRIPT,
    "client/index.d.ts": b"export const answer: number;\n",
    "client/package.json": b"{}",
    "client/node_modules/left.js": b"not ours",
    "elsewhere/other.js": b"not below a served folder",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / "web" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "secret.js").write_bytes(b"secret")
    (tmp_path / "web" / "client" / "link.js").symlink_to(tmp_path / "secret.js")
    (tmp_path / "web" / "client" / "linked").symlink_to(tmp_path)
    return tmp_path / "web"


async def serve(pages: StaticFiles) -> AsyncIterator[int]:
    app = web.Application()
    authenticator.setup_cors(app, [ORIGIN])
    errors.setup(app)
    app.add_routes(pages.routes())
    metrics = Metrics()
    counts = Counts(metrics.sockets, metrics.rejected["sockets"])
    listener = Listener(listen("127.0.0.1", 0), 100, counts)
    async with serving(app, listener, Unreadable(metrics.unreadable)):
        yield listener.port


@pytest.fixture
async def port(root: Path) -> AsyncIterator[int]:
    async for port in serve(StaticFiles(root)):
        yield port


@pytest.fixture
async def fresh_port(root: Path) -> AsyncIterator[int]:
    async for port in serve(StaticFiles(root, fresh=True)):
        yield port


class Got:
    """A response, read to its end."""

    def __init__(self, connection: Connection, body: bytes) -> None:
        self.status = connection.status
        self.headers = connection.headers
        self.body = body


async def get(port: int, path: str, method: str = "GET", **headers: str) -> Got:
    given = {"Connection": "close", **{name.replace("_", "-"): value for name, value in headers.items()}}
    async with request(port, method, path, headers=given) as response:
        return Got(response, b"" if method == "HEAD" else await response.body())


@pytest.mark.parametrize(
    ("path", "type_"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/console/index.html", "text/html; charset=utf-8"),
        ("/console/app.js", "text/javascript; charset=utf-8"),
        ("/console/style.css", "text/css; charset=utf-8"),
        ("/console/icons/tool.svg", "image/svg+xml"),
        ("/client/index.js", "text/javascript; charset=utf-8"),
        ("/client/index.d.ts", "text/plain; charset=utf-8"),
        ("/client/package.json", "application/json"),
    ],
)
async def test_a_file_is_served_as_what_it_is(port: int, path: str, type_: str) -> None:
    """Every file has its type, cannot be taken for another, is always asked for anew, and says nothing to others."""
    got = await get(port, path)
    assert (got.status, got.body) == (200, FILES[path[1:] or "console/index.html"])
    assert got.headers["content-type"] == type_
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.headers["referrer-policy"] == "no-referrer"
    assert got.headers["cache-control"] == "no-cache"
    assert got.headers["cross-origin-opener-policy"] == "same-origin"
    assert got.headers["content-security-policy"].startswith("default-src 'none'; ")
    assert "frame-ancestors 'none'" in got.headers["content-security-policy"]


async def test_the_consoles_policy_is_strict(port: int) -> None:
    """The console may load and ask what is the edge's own, and nothing else; a worker's script has the same policy."""
    home = await get(port, "/")
    assert home.headers["content-security-policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'; require-trusted-types-for 'script'"
    )
    script = await get(port, "/client/index.js")
    assert script.headers["content-security-policy"] == home.headers["content-security-policy"]
    assert "camera=()" in home.headers["permissions-policy"]


async def test_who_has_a_file_is_told_so(port: int, root: Path) -> None:
    """An ETag stands for the content: asked with it, alone or among others, the edge answers 304 without a body."""
    first = await get(port, "/console/app.js")
    tag = first.headers["etag"]
    assert re.fullmatch(r'"[0-9a-f]{32}"', tag)
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = await get(port, "/console/app.js", If_None_Match=known)
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
        assert again.headers["cache-control"] == "no-cache"
    assert (await get(port, "/console/app.js", If_None_Match='"other"')).status == 200
    assert (await get(port, "/console/style.css")).headers["etag"] != tag


async def test_a_large_file_goes_packed(port: int) -> None:
    """Who takes gzip gets a large text packed, under another ETag; who does not gets it plain; caches are told."""
    plain = await get(port, "/client/index.js")
    packed = await get(port, "/client/index.js", Accept_Encoding="br, gzip;q=0.8")
    assert (plain.body, "content-encoding" in plain.headers) == (SCRIPT, False)
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == SCRIPT
    assert len(packed.body) < len(SCRIPT)
    assert packed.headers["etag"] != plain.headers["etag"]
    small = await get(port, "/console/app.js", Accept_Encoding="gzip")
    assert "content-encoding" not in small.headers
    async with aiohttp.request("HEAD", f"http://127.0.0.1:{port}/client/index.js") as response:
        assert set(response.headers.getall("Vary")) == {"Accept-Encoding", "Origin"}


@pytest.mark.parametrize(
    ("header", "is_taken"),
    [("", False), ("gzip", True), ("deflate, GZIP ; q=0.5", True), ("gzip;q=0", False), ("gzip; q=0.000", False),
     ("x-gzip", False), ("*", False)],
)  # fmt: skip
def test_gzip_is_sent_to_who_takes_it(header: str, is_taken: bool) -> None:
    """Only a client that names gzip, with a weight above 0, gets it."""
    assert accepts_gzip(header) is is_taken


async def test_head_is_get_without_a_body(port: int) -> None:
    """HEAD has the headers of GET, with the length of what is not sent."""
    got, head = await get(port, "/console/app.js"), await get(port, "/console/app.js", "HEAD")
    assert head.status == 200
    assert head.headers["content-length"] == str(len(got.body))
    assert {name: head.headers[name] for name in ("etag", "content-type")} == {
        name: got.headers[name] for name in ("etag", "content-type")
    }


@pytest.mark.parametrize(
    "path",
    [
        "/console/", "/console/none.js", "/console/notes.txt", "/console/.hidden.js", "/console/screenshots/one.svg",
        "/client/node_modules/left.js", "/client/link.js", "/client/linked/secret.js", "/elsewhere/other.js",
        "/client/../../secret.js", "/client/%2e%2e/%2e%2e/secret.js", "/client/..%2f..%2fsecret.js",
        "/console//index.html", "/console/%00", "/client/\\..\\secret.js", "//client/../../secret.js",
        "/console/../elsewhere/other.js", "/client/index.js/", "/client/index.js%00.html", "/web/client/index.js",
    ],
)  # fmt: skip
async def test_nothing_else_is_served(port: int, path: str) -> None:
    """What is no file of the index is not found, however it is spelt: links, hidden files, ways out, other kinds."""
    got = await get(port, path)
    assert (got.status, got.headers["content-type"]) == (404, "application/problem+json")
    assert b"secret" not in got.body.replace(path.encode(), b"")


async def test_only_reading_is_possible(port: int) -> None:
    """Other methods than GET and HEAD are refused."""
    assert (await get(port, "/console/app.js", "POST")).status == 405
    assert (await get(port, "/", "DELETE")).status == 405


async def test_the_client_may_be_imported_from_an_allowed_origin(port: int) -> None:
    """A module script of an allowed origin's page may be loaded; of another's the browser refuses it."""
    allowed = await get(port, "/client/index.js", Origin=ORIGIN)
    assert allowed.headers["access-control-allow-origin"] == ORIGIN
    other = await get(port, "/client/index.js", Origin="https://evil.example")
    assert "access-control-allow-origin" not in other.headers


async def test_files_are_read_at_the_start(port: int, root: Path) -> None:
    """What changes on disk afterwards is not served: an edge serves the files that belong to its code."""
    (root / "console" / "app.js").write_bytes(b"changed")
    (root / "console" / "new.js").write_bytes(b"new")
    assert (await get(port, "/console/app.js")).body == FILES["console/app.js"]
    assert (await get(port, "/console/new.js")).status == 404


async def test_a_designer_sees_changes_at_once(fresh_port: int, root: Path) -> None:
    """A fresh index serves what is on disk now: changed, new and without the removed, links still refused."""
    tag = (await get(fresh_port, "/console/app.js")).headers["etag"]
    (root / "console" / "app.js").write_bytes(b"changed")
    (root / "console" / "new.js").write_bytes(b"new")
    (root / "console" / "style.css").unlink()
    (root / "console" / "link.js").symlink_to(root / "console" / "app.js")
    changed = await get(fresh_port, "/console/app.js", If_None_Match=tag)
    assert (changed.status, changed.body) == (200, b"changed")
    assert (await get(fresh_port, "/console/new.js")).body == b"new"
    assert (await get(fresh_port, "/console/style.css")).status == 404
    assert (await get(fresh_port, "/console/link.js")).status == 404


async def test_an_edit_of_the_same_size_and_second_shows(fresh_port: int, root: Path) -> None:
    """A change is seen by its time to the nanosecond, not by its size alone."""
    path = root / "console" / "app.js"
    before = path.stat()
    path.write_bytes(FILES["console/app.js"].replace(b"answer", b"ANSWER"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert b"ANSWER" in (await get(fresh_port, "/console/app.js")).body


async def test_an_edge_without_the_files_serves_all_else(tmp_path: Path) -> None:
    """Where the folder is not installed, its paths are not found."""
    pages = StaticFiles(tmp_path / "none")
    async for port in serve(pages):
        assert (await get(port, "/")).status == 404


def test_what_the_pages_load_is_there() -> None:
    """Every file of the edge that the console's page and modules name is one that is served."""
    pages: Any = StaticFiles()._pages
    named = re.compile(r"""["'(](/(?:console|client)/[A-Za-z0-9_./-]+\.(?:js|css|svg|webmanifest))["')]""")
    assert pages or not ROOT.exists()
    for name, page in pages.items():
        if name.endswith((".html", ".js", ".css")) and name.startswith("console/"):
            missing = [path for path in named.findall(page.body.decode()) if path[1:] not in pages]
            assert not missing, f"{name} names {missing}"


def test_no_page_needs_what_its_policy_forbids() -> None:
    """No HTML has an inline script, style or handler, which the policy would keep from working."""
    pages: Any = StaticFiles()._pages
    for name, page in pages.items():
        if name.endswith(".html"):
            text = page.body.decode()
            assert not re.search(r"<script(?![^>]*\bsrc=)", text), f"{name}: an inline script"
            assert not re.search(r"<style|\sstyle=|\son[a-z]+=", text), f"{name}: inline style or handler"
