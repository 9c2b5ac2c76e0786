"""A real OpenID provider, and an edge whose console signs in there."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright.async_api import Page, expect

from broker.cli.embedded import EmbeddedRedis
from tests.edges import EdgeProcess
from tests.ports import reserved_ports

HERE = Path(__file__).parent / "console"
NODE = shutil.which("node")
TTL_SECONDS = 4

needs_provider = pytest.mark.skipif(
    NODE is None or not (HERE / "node_modules" / "oidc-provider").is_dir(),
    reason="needs node and oidc-provider (tests/run installs it)",
)


class OidcStand(NamedTuple):
    url: str
    provider: str


@contextlib.contextmanager
def oidc_stand(token_host: str = "", *, says_issuer: bool = True, **settings: Any) -> Iterator[OidcStand]:
    """An edge that trusts a provider, whose access tokens live for some seconds. `token_host`: another name of this
    machine, where the provider has its token endpoint; `{origin}` in the settings is the origin there. Without
    `says_issuer` its answers do not, though its metadata promises it."""
    variant = {"TTL_SECONDS": str(TTL_SECONDS), "WITHOUT_ISSUER": "" if says_issuer else "1"}
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(EmbeddedRedis())
        (port,) = stack.enter_context(reserved_ports(1))
        issuer = f"http://127.0.0.1:{port}"
        token_origin = f"http://{token_host}:{port}" if token_host else ""
        edge = EdgeProcess(
            redis.url,
            jwt_secret="",
            jwks_url=f"{issuer}/jwks",
            jwt_issuer=issuer,
            jwt_audience="runcast",
            oidc_issuer=issuer,
            oidc_client_id="runcast-console",
            oidc_scope="openid profile executions:read executions:write",
            heartbeat_seconds=1,
            **{name: value.format(origin=token_origin) for name, value in settings.items()},
        )
        stack.callback(edge.close)
        url = f"http://127.0.0.1:{edge.port}"
        assert NODE is not None
        provider = subprocess.Popen(
            [NODE, "provider.mjs", str(port), url + "/"],
            cwd=HERE,
            env={**os.environ, **variant, "TOKEN_ORIGIN": token_origin},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert provider.stdout is not None
        stack.callback(provider.stdout.close)
        stack.callback(provider.wait)
        stack.callback(provider.kill)
        assert "ready" in provider.stdout.readline()
        edge.start().wait_ready()
        yield OidcStand(url, issuer)


async def answer_provider(page: Page, stand: OidcStand, name: str, to: str = "/new") -> None:
    """Sign in as anybody, on the provider's pages, which would wait for fonts of another host."""
    await page.context.route("https://fonts.googleapis.com/**", lambda route: route.fulfill(content_type="text/css"))
    await page.goto(f"{stand.url}/#{to}")
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_placeholder("Enter any login").fill(name)
    await page.get_by_placeholder("and password").fill("any")
    await page.get_by_role("button", name="Sign-in").click()
    await page.get_by_role("button", name="Continue").click()


async def sign_in(page: Page, stand: OidcStand, name: str, to: str = "/new") -> None:
    await answer_provider(page, stand, name, to)
    await expect(signed_in(page)).to_contain_text(name)


def signed_in(page: Page) -> Any:
    return page.get_by_role("button", name="Sign out")
