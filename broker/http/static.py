"""What browsers are served: the console at `/` and `/console/`, the client's modules at `/client/`.

All files are in memory, found by their URL's path in an index made at the start. So no request can name what is not in
it, and none waits for a disk.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from aiohttp import web

from broker.base.accepting import accepts_gzip
from broker.base.problem import Problem

ROOT = Path(__file__).parents[1] / "web"
FOLDERS = ("console", "client")
HOME = "console/index.html"
MIN_GZIP_BYTES = 1024

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".svg": "image/svg+xml",
    ".ts": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
"""What is served, by its name's end; a file of another kind is not."""
LEFT_OUT = frozenset({"screenshots", "node_modules"})

# A worker's script is a page of its own as far as its policy goes, so modules get the same one.
SCRIPT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'"
)
REST_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox"
FEATURES = ("camera", "display-capture", "geolocation", "microphone", "midi", "payment", "usb")
HEADERS = {
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": ", ".join(f"{feature}=()" for feature in FEATURES),
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept-Encoding",
}


class Page(NamedTuple):
    """One file. `packed` is its gzip form, if that is smaller."""

    type: str
    policy: str
    body: bytes
    packed: bytes | None
    tag: str


Stamps = dict[str, tuple[Path, int, int]]
"""Path below the root → the file, when it was changed (ns), its size."""


class StaticFiles:
    """The routes of all files. With `fresh` (development) a change on disk shows at the next request."""

    def __init__(self, root: Path = ROOT, *, fresh: bool = False) -> None:
        self._root = root
        self._fresh = fresh
        self._stamps = dict(stamps(root))
        self._pages = {name: read(path) for name, (path, _, _) in self._stamps.items()}

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/", self.home), *(web.get(f"/{{name:{folder}/.+}}", self.file) for folder in FOLDERS)]

    async def home(self, request: web.Request) -> web.Response:
        return self._answer(request, HOME)

    async def file(self, request: web.Request) -> web.Response:
        return self._answer(request, request.match_info["name"])

    def _answer(self, request: web.Request, name: str) -> web.Response:
        if self._fresh:
            self._refresh()
        page = self._pages.get(name)
        if page is None:
            raise Problem(404, "not-found", "there is no such file")
        return answer(request, page)

    def _refresh(self) -> None:
        """Read again what has changed."""
        with contextlib.suppress(FileNotFoundError):  # an editor is just putting a new file in an old one's place
            now = dict(stamps(self._root))
            self._pages = {
                name: self._pages[name] if self._stamps.get(name) == stamp else read(stamp[0])
                for name, stamp in now.items()
            }
            self._stamps = now


def stamps(root: Path) -> Iterator[tuple[str, tuple[Path, int, int]]]:
    """The files that are served. Symbolic links are not."""
    for folder in FOLDERS:
        for place, inner, names in os.walk(root / folder):
            inner[:] = [name for name in inner if name not in LEFT_OUT and not name.startswith(".")]
            for path in (Path(place, name) for name in names):
                if path.suffix in TYPES and not path.name.startswith(".") and not path.is_symlink():
                    stat = path.stat()
                    yield path.relative_to(root).as_posix(), (path, stat.st_mtime_ns, stat.st_size)


def read(path: Path) -> Page:
    body, is_script = path.read_bytes(), path.suffix in (".html", ".js")
    packed = gzip.compress(body, mtime=0) if len(body) >= MIN_GZIP_BYTES and path.suffix != ".woff2" else None
    tag = hashlib.sha256(body).hexdigest()[:32]
    return Page(TYPES[path.suffix], SCRIPT_POLICY if is_script else REST_POLICY, body, packed, tag)


def answer(request: web.Request, page: Page) -> web.Response:
    """The file, or 304 for a client that has it."""
    is_packed = page.packed is not None and accepts_gzip(request.headers.get("Accept-Encoding", ""))
    tag = page.tag + "-gzip" if is_packed else page.tag
    headers = {**HEADERS, "Content-Security-Policy": page.policy, "ETag": f'"{tag}"'}
    if any(known.value in (tag, "*") for known in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    headers["Content-Type"] = page.type
    if is_packed:
        headers["Content-Encoding"] = "gzip"
    return web.Response(body=page.packed if is_packed else page.body, headers=headers)
