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
from yarl import URL

from broker.auth.authenticator import COOKIE
from broker.base.accepting import accepts_gzip
from broker.base.problem import Problem
from broker.base.settings import Settings

ROOT = Path(__file__).parents[1] / "web"
FOLDERS = ("console", "client")
HOME = "console/index.html"
SIGN_IN = "/console/sign-in.json"
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


class SignIn(NamedTuple):
    """The OpenID provider at which people sign in to the console, and what it is asked."""

    issuer: str
    client_id: str
    scope: str
    audience: str | None
    origins: tuple[str, ...] = ()
    """Where it has endpoints, besides the issuer's origin."""

    @property
    def all_origins(self) -> list[str]:
        return list(dict.fromkeys([str(URL(self.issuer).origin()), *self.origins]))


def sign_in_of(settings: Settings) -> SignIn | None:
    if settings.oidc_issuer is None:
        return None
    return SignIn(
        settings.oidc_issuer,
        settings.oidc_client_id,
        settings.oidc_scope,
        settings.oidc_audience,
        settings.oidc_origins,
    )


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

    def __init__(self, root: Path = ROOT, *, fresh: bool = False, sign_in: SignIn | None = None) -> None:
        self._root = root
        self._fresh = fresh
        self._sign_in = sign_in
        self._stamps = dict(stamps(root))
        self._pages = {name: read(path) for name, (path, _, _) in self._stamps.items()}

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/", self.home),
            web.get(SIGN_IN, self.sign_in),
            *(web.get(f"/{{name:{folder}/.+}}", self.file) for folder in FOLDERS),
        ]

    async def home(self, request: web.Request) -> web.Response:
        return self._answer(request, HOME)

    async def file(self, request: web.Request) -> web.Response:
        return self._answer(request, request.match_info["name"])

    async def sign_in(self, request: web.Request) -> web.Response:
        """How one signs in here: at which provider, if there is one, and whether the browser has the cookie."""
        provider = self._sign_in
        given = (
            None
            if provider is None
            else {
                "issuer": provider.issuer,
                "clientId": provider.client_id,
                "scope": provider.scope,
                "audience": provider.audience,
                "origins": provider.all_origins,
            }
        )
        body = {"oidc": given, "cookie": COOKIE in request.cookies}
        return web.json_response(body, headers={**HEADERS, "Cache-Control": "no-store"})

    def _answer(self, request: web.Request, name: str) -> web.Response:
        if self._fresh and not self._is_current(name):
            self._refresh()
        page = self._pages.get(name)
        if page is None:
            raise Problem(404, "not-found", "there is no such file")
        return answer(request, page, self._sign_in)

    def _is_current(self, name: str) -> bool:
        """Whether the file is known, and still what was read."""
        if (known := self._stamps.get(name)) is None:
            return False
        path, changed_ns, size = known
        with contextlib.suppress(FileNotFoundError):
            stat = path.lstat()
            return (stat.st_mtime_ns, stat.st_size) == (changed_ns, size)
        return False

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


def answer(request: web.Request, page: Page, sign_in: SignIn | None = None) -> web.Response:
    """The file, or 304 for a client that has it. Scripts may call the provider of `sign_in` as well."""
    policy = page.policy
    if sign_in is not None:
        policy = policy.replace("connect-src 'self'", f"connect-src 'self' {' '.join(sign_in.all_origins)}")
    is_packed = page.packed is not None and accepts_gzip(request.headers.get("Accept-Encoding", ""))
    tag = page.tag + "-gzip" if is_packed else page.tag
    headers = {**HEADERS, "Content-Security-Policy": policy, "ETag": f'"{tag}"'}
    if any(known.value in (tag, "*") for known in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    headers["Content-Type"] = page.type
    if is_packed:
        headers["Content-Encoding"] = "gzip"
    return web.Response(body=page.packed if is_packed else page.body, headers=headers)
