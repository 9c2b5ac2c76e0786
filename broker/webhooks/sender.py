"""Signs a message by Standard Webhooks (https://www.standardwebhooks.com, specification 1.0) and posts it.

What a receiver may do to us is bounded: time, redirects (none is followed), cookies (none is kept), and how much of its
response is read. An address that webhooks must not go to is refused when the socket for it is made: whatever the name
resolves to at that moment, nothing else is connected to. Proxies of the environment are not used, because they would
choose the address.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
import time
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, NamedTuple

import aiohttp
from aiohttp.abc import AbstractResolver
from standardwebhooks import Webhook as Signer
from yarl import URL

from broker.base.targets import ForbiddenTarget, Target, check_address, target_of

TIMEOUT_SECONDS = 15.0
CONNECT_SECONDS = 5.0
ANSWER_BYTES = 16 * 1024
"""A connection with a longer response is closed instead of being used again."""
BODY_SECONDS = 1.0
LOOKUPS = 256
"""Names that are looked up at a time, as many as an edge has deliveries. A lookup goes on when its delivery has given
up, so one user may have twice as many under way as deliveries."""
RETRY_AFTER_MAX = 3600.0
GONE = 410
BUSY = (429, 503)


class Outcome(NamedTuple):
    """What became of one request: `taken` (any 2xx), or not. `is_gone`: the receiver wants no more. `is_away`: it was
    not reached, or did not answer. `retry_after`: seconds that it has asked for. `error`: a word or a status, without
    anything that the receiver has said."""

    taken: bool
    is_gone: bool = False
    is_away: bool = False
    retry_after: float = 0.0
    error: str = ""


class SystemNames(AbstractResolver):
    """Asks the system, in threads of its own: users choose the names, and one that is answered after half a minute
    keeps a thread for so long. Those of the loop find Redis."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="webhook-names")

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[Any]:
        ask = functools.partial(
            socket.getaddrinfo, host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
        found = await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            {
                "hostname": host,
                "host": address[0],
                "port": address[1],
                "family": kind,
                "proto": protocol,
                "flags": flags,
            }
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class GuardedResolver(AbstractResolver):
    """Resolves a name, and refuses it if one of its addresses is forbidden."""

    def __init__(self, inner: AbstractResolver) -> None:
        self._inner = inner

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[Any]:
        found = await self._inner.resolve(host, port, family)
        for each in found:
            check_address(each["host"])
        return found

    async def close(self) -> None:
        await self._inner.close()


def _guarded_socket(info: Any) -> socket.socket:
    """The socket for an address that is about to be connected to. The last word: also literal addresses come here."""
    family, kind, protocol, _, address = info
    check_address(address[0])
    return socket.socket(family, kind, protocol)


class Sender:
    """`async with Sender(…) as sender:`. `secrets` are those of the setting; `named` are hosts that may have any
    address; `resolver` takes the place of the system's."""

    def __init__(
        self, secrets: str, named: Collection[str], user_agent: str, *, resolver: AbstractResolver | None = None
    ) -> None:
        self._signers = [Signer(secret) for secret in secrets.split()]
        self._named = named
        self._user_agent = user_agent
        self._resolver = resolver

    async def __aenter__(self) -> Sender:
        tls = ssl.create_default_context()
        self._names = self._resolver or SystemNames()
        common: dict[str, Any] = {"use_dns_cache": False, "limit": 0, "ssl": tls, "keepalive_timeout": 15.0}
        guarded = aiohttp.TCPConnector(resolver=GuardedResolver(self._names), socket_factory=_guarded_socket, **common)
        self._guarded = self._session(guarded)
        self._open = self._session(aiohttp.TCPConnector(resolver=self._names, **common))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._guarded.close()
        await self._open.close()
        await self._names.close()

    def _session(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS, sock_connect=CONNECT_SECONDS),
            auto_decompress=False,
            trust_env=False,
        )

    def target(self, url: str) -> Target:
        """Where a URL leads. Raises `ForbiddenTarget`."""
        target = target_of(url, self._named)
        parsed = URL(url, encoded=True)
        if ((parsed.host or "").lower(), parsed.port) != (target.host, target.port):
            raise ForbiddenTarget("it can be read in two ways")  # by the client and by the check
        return target

    async def post(self, url: str, message_id: str, body: bytes, headers: Mapping[str, str]) -> Outcome:
        """Post one message. Headers of the protocol take the place of those that are given."""
        try:
            target = self.target(url)
            session = self._open if target.is_named else self._guarded
            # Not `replace(tzinfo=…)` of a local time, as the package does with what it gets: this one is in UTC.
            now = datetime.fromtimestamp(int(time.time()), tz=UTC)
            signatures = " ".join(signer.sign(message_id, now, body.decode()) for signer in self._signers)
            sent = {
                **headers,
                "Content-Type": "application/json",
                "User-Agent": self._user_agent,
                "webhook-id": message_id,
                "webhook-timestamp": str(int(now.timestamp())),
                "webhook-signature": signatures,
            }
            async with session.post(URL(url, encoded=True), data=body, headers=sent, allow_redirects=False) as response:
                await _drop_body(response)
                return _outcome(response.status, response.headers.get("Retry-After"))
        except ForbiddenTarget:
            return Outcome(taken=False, error="forbidden")
        except TimeoutError:
            return Outcome(taken=False, is_away=True, error="timeout")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if _is_forbidden(error):
                return Outcome(taken=False, error="forbidden")
            return Outcome(taken=False, is_away=True, error=_word(error))


async def _drop_body(response: aiohttp.ClientResponse) -> None:
    """Read what there is of it, so that the connection can be used again; the status has said everything."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            await response.content.read(ANSWER_BYTES)
    except (TimeoutError, aiohttp.ClientError, OSError):
        response.close()
    else:
        if not response.content.at_eof():
            response.close()


def _outcome(status: int, retry_after: str | None) -> Outcome:
    if 200 <= status < 300:
        return Outcome(taken=True)
    pause = _seconds(retry_after) if status in BUSY and retry_after else 0.0
    return Outcome(taken=False, is_gone=status == GONE, retry_after=pause, error=f"status {status}")


def _seconds(text: str) -> float:
    """Of `Retry-After`: seconds, or a date; 0 for anything else."""
    try:
        seconds = float(text) if text.strip().isdigit() else parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), RETRY_AFTER_MAX)


def _is_forbidden(error: BaseException | None) -> bool:
    """Whether a guard has refused; the client wraps what it raises."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, ForbiddenTarget):
            return True
        seen.add(id(error))
        if isinstance(error, BaseExceptionGroup):
            return any(_is_forbidden(each) for each in error.exceptions)
        error = error.__cause__ or error.__context__
    return False


def _word(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError() | ssl.SSLError():
            return "tls"
        case aiohttp.ClientConnectorDNSError():
            return "dns"
        case aiohttp.ClientConnectorError():
            return "connect"
        case asyncio.IncompleteReadError() | aiohttp.ServerDisconnectedError() | ConnectionError():
            return "disconnected"
    return "protocol"
