"""What the console checks of an OpenID provider's answers, and a token endpoint on another origin than the issuer."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page, Route, expect

from tests.web.browser import Complaints, needs_chromium
from tests.web.oidc_provider import OidcStand, answer_provider, needs_provider, oidc_stand, sign_in, signed_in

pytestmark = [needs_chromium, needs_provider]

METADATA = "**/.well-known/openid-configuration"


@pytest.fixture(scope="module")
def oidc() -> Iterator[OidcStand]:
    """Its token endpoint is on another origin, which the edge names."""
    with oidc_stand("localhost", oidc_origins="{origin}") as stand:
        yield stand


def signed_anew(token: str, **changes: Any) -> str:
    """An ID token with other claims."""
    head, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    text = json.dumps({**claims, **changes}).encode()
    return ".".join((head, base64.urlsafe_b64encode(text).decode().rstrip("="), signature))


async def answer_tokens(context: BrowserContext, grant: str, **changes: Any) -> list[Any]:
    """Change the ID tokens that the provider gives for a grant; the list grows with each."""
    given: list[Any] = []

    async def change(route: Route) -> None:
        if f"grant_type={grant}" not in (route.request.post_data or ""):
            await route.continue_()
            return
        response = await route.fetch()
        body = await response.json()
        given.append(body["id_token"])
        await route.fulfill(response=response, json={**body, "id_token": signed_anew(body["id_token"], **changes)})

    await context.route("**/token", change)
    return given


async def test_the_token_endpoint_may_be_on_another_origin(page: Page, oidc: OidcStand) -> None:
    """One that the edge's settings name."""
    async with page.expect_response("http://localhost:*/token"):
        await sign_in(page, oidc, "ada")


async def test_an_origin_that_is_not_named_is_said(page: Page) -> None:
    """With the setting that has to name it."""
    with oidc_stand("localhost") as stand:
        await answer_provider(page, stand, "ada")
        alert = page.get_by_role("alert").first
        await expect(alert).to_contain_text(re.compile(r"http://localhost:\d+, .* RUNCAST_OIDC_ORIGINS"))
        await expect(signed_in(page)).to_have_count(0)


async def test_an_answer_says_whose_it_is_where_the_provider_promised_it(page: Page, context: BrowserContext) -> None:
    """Without it, it may be another provider's (RFC 9207). Where nothing was promised, it may be left out."""
    with oidc_stand(says_issuer=False) as stand:
        await answer_provider(page, stand, "ada")
        await expect(page.get_by_role("alert").first).to_contain_text("Another provider answered")
        await expect(signed_in(page)).to_have_count(0)

        async def older(route: Route) -> None:
            response = await route.fetch()
            body = {**await response.json(), "authorization_response_iss_parameter_supported": False}
            await route.fulfill(response=response, json=body)

        await context.route(METADATA, older)
        await page.get_by_role("button", name="Sign in").click()  # the provider knows who it is
        await expect(signed_in(page)).to_contain_text("ada")
        await page.goto("about:blank")  # or it misses the edge, which ends before it


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"exp": 1}, "out of date"),
        ({"sub": ""}, "another sign-in"),
        ({"azp": "another-client"}, "another sign-in"),
        ({"nonce": "another"}, "another sign-in"),
    ],
)
async def test_an_id_token_is_checked(
    page: Page,
    context: BrowserContext,
    oidc: OidcStand,
    changes: dict[str, Any],
    said: str,
) -> None:
    """Nobody is signed in by one that has expired, or is not about this sign-in."""
    given = await answer_tokens(context, "authorization_code", **changes)
    await answer_provider(page, oidc, "ada")
    await expect(page.get_by_role("alert").first).to_contain_text(said)
    await expect(signed_in(page)).to_have_count(0)
    assert given


@pytest.mark.parametrize(
    ("changes", "is_same"),
    [({"sub": "grace"}, False), ({"exp": 1}, False), ({"auth_time": 1}, False), ({"jti": "another"}, True)],
    ids=["sub", "exp", "auth_time", "jti"],
)
async def test_a_renewed_id_token_is_about_the_same_person(
    page: Page,
    context: BrowserContext,
    oidc: OidcStand,
    complaints: Complaints,
    changes: dict[str, Any],
    is_same: bool,
) -> None:
    """Otherwise the session ends, and its person is asked to sign in again (OpenID Connect Core 12.2)."""
    complaints.allow("status of 401")
    given = await answer_tokens(context, "refresh_token", **changes)
    await sign_in(page, oidc, "ada", "/")
    ending = page.get_by_text("Your session is ending")
    if not is_same:
        await expect(ending).to_be_visible()
        return
    async with asyncio.timeout(30):
        while len(given) < 2:  # the second renewal follows from the first
            await page.wait_for_event("response", lambda response: response.url.endswith("/token"))
    await expect(ending).to_have_count(0)
