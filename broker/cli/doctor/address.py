"""Checks what answers at an address, before any stream is opened there."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

import aiohttp

from broker.cli.doctor.findings import Finding, problem
from broker.cli.doctor.proxy import judge_cache

ANSWER_SECONDS = 10.0
HEAD_BYTES = 4096
LISTING = "/api/agent/executions"


async def who_answers(session: aiohttp.ClientSession, url: str) -> Finding | None:
    """What is wrong, if it is no edge."""
    headers = {"Accept-Encoding": "identity"}  # a page of somebody else's may be compressed just as well
    try:
        async with (
            asyncio.timeout(ANSWER_SECONDS),
            session.get(url + "/openapi.json", headers=headers, allow_redirects=False) as answer,
        ):
            begin = await answer.content.read(HEAD_BYTES)
            is_ours = b"Runcast" in begin or "Content-Encoding" in answer.headers
            if answer.status == 200 and answer.content_type == "application/json" and is_ours:
                return None
            return _stranger(url, answer)
    except aiohttp.ClientSSLError as error:
        change = (
            "a certificate that names this host, with the certificates between it and an authority that browsers know "
            "(one of your own: SSL_CERT_FILE here); or is it http?"
        )
        return problem(url, f"TLS fails: {str(error).partition(' [')[2].rstrip(']') or error}", change)
    except (aiohttp.ClientError, aiohttp.InvalidURL, OSError, TimeoutError) as error:
        text = str(error) or "no answer in time"
        return problem(url, f"cannot be reached: {text}", "check the address, DNS and the network between")


def _stranger(url: str, answer: aiohttp.ClientResponse) -> Finding:
    seen = f"answers {answer.status}, but not like a Runcast edge"
    if answer.status in (401, 403, 407):
        change = "a proxy asks for its own login: let these paths pass without it, because edges verify tokens"
    elif target := sent_to(answer):
        seen = f"answers {answer.status} and sends to {target}"
        change = (
            "if that is a login page, let these paths pass without it, edges verify tokens; else check that address"
        )
    else:
        change = "check the address and the proxy's routes"
    return problem(url, seen, change)


def sent_to(answer: aiohttp.ClientResponse) -> str:
    """The target of a redirect without its query, which may have secrets; empty if it is no redirect."""
    if not 300 <= answer.status < 400:
        return ""
    return answer.headers.get("Location", "nowhere").partition("?")[0]


async def alpn(url: str) -> str | None:
    """What TLS negotiates when HTTP/2 is offered."""
    parts = urlsplit(url)
    if parts.scheme != "https":
        return None
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # aiohttp has verified it
    context.set_alpn_protocols(["h2", "http/1.1"])
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(ANSWER_SECONDS):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or 443, ssl=context)
            found = writer.get_extra_info("ssl_object").selected_alpn_protocol()
            writer.close()
            return str(found) if found else None
    return None


async def tells_metrics(session: aiohttp.ClientSession, url: str) -> bool:
    """Whether the metrics are public. A page that answers every path does not count."""
    _, body = await _get(session, url + "/metrics", {})
    return b"runcast_" in body


async def look_for_cache(session: aiohttp.ClientSession, url: str, credentials: Mapping[str, str]) -> list[Finding]:
    """Statuses without a token, before and after a request with one: a cache must not give that response to others."""
    address = url + LISTING + "?limit=1"
    before, _ = await _get(session, address, {})
    await _get(session, address, credentials)
    after, _ = await _get(session, address, {})
    return judge_cache(before, after)


async def _get(session: aiohttp.ClientSession, address: str, headers: Mapping[str, str]) -> tuple[int | None, bytes]:
    """Status and beginning of a response; `None` if there was none."""
    with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
        async with (
            asyncio.timeout(ANSWER_SECONDS),
            session.get(address, headers={**headers, "Accept-Encoding": "identity"}, allow_redirects=False) as answer,
        ):
            return answer.status, await answer.content.read(HEAD_BYTES)
    return None, b""
