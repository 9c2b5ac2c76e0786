"""The HTTP API as the command line uses it: commands, and a stream that is followed across any break."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import msgspec

from broker.base.egress import proxy_of
from broker.cli.eventsource import Backoff, ClientEvent, NotAStream, Position, SseParser, retry_after
from emitter.events import MessageMode
from emitter.wire.ids import EventId

FIRST_BYTES_SECONDS = 15.0
COMMAND_SECONDS = 30.0
SILENT_HEARTBEATS = 2.5
FEED_PATH = "/api/agent/stream"


class ApiError(Exception):
    """The edge answered with an error. `status` is HTTP's; `problem` the RFC 9457 object, or empty."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.problem = dict(problem)
        text = problem.get("detail") or problem.get("title") or "the edge gave no reason"
        super().__init__(f"{status}: {text}")


class NotSignedIn(ApiError):
    """401: no token, or one that is expired, revoked or not ours."""


class Forbidden(ApiError):
    """403: the token lacks a scope."""


class NotFound(ApiError):
    """404: there is no such execution for this user."""


class Conflict(ApiError):
    """409: already ended, or already answered."""


class EdgeUnreachable(Exception):
    """The edge did not answer a command. Whether it acted is not known; `execute` may be repeated with the same key."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"{url}: {reason}")
        self.url = url
        self.reason = reason


class Connected(msgspec.Struct, frozen=True):
    """The stream is open. `cursor` is what was asked for, `None` for the first connect without one."""

    cursor: EventId | None


class ConnectionLost(msgspec.Struct, frozen=True):
    """The connection is gone or was refused; the next try is in `retry_seconds`, after `cursor`."""

    reason: str
    cursor: EventId | None
    retry_seconds: float


Link = Connected | ConnectionLost


class _TryAgain(Exception):
    """This connection is over; another may do better. `seconds` is what the edge asked for."""

    def __init__(self, reason: str, seconds: float | None = None) -> None:
        super().__init__(reason)
        self.seconds = seconds


class EdgeClient:
    """The API of the edge at `base_url` (`http://…`), as the user of `token`. Use it with `async with`."""

    def __init__(self, base_url: str, token: str | None = None, *, backoff: Backoff = Backoff()) -> None:  # noqa: B008
        self.base_url = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._backoff = backoff
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> EdgeClient:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        proxy = proxy_of(self.base_url)
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=timeout, proxy=proxy)
        return self

    async def __aexit__(self, *exception: object) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def execute(
        self,
        task: str,
        *,
        agent: str | None = None,
        params: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """Start an execution; `more` are further fields as on the wire. Returns {executionId, state, streamUrl}."""
        body = {"task": task, "agent": agent, "params": params, **more}
        body = {name: value for name, value in body.items() if value is not None}
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return await self._call("POST", "/api/agent/execute", body, headers)

    async def cancel(self, execution_id: str, reason: str | None = None) -> dict[str, Any]:
        body = {} if reason is None else {"reason": reason}
        return await self._call("POST", execution_path(execution_id) + "/cancel", body)

    async def answer(self, execution_id: str, input_id: str, value: Any) -> dict[str, Any]:
        """Answer what an agent asked. Raises `Conflict` if somebody was faster."""
        body = {"inputId": input_id, "value": value}
        return await self._call("POST", execution_path(execution_id) + "/input", body)

    async def send_message(
        self, execution_id: str, text: str, *, mode: MessageMode = "queue", message_id: str | None = None
    ) -> dict[str, Any]:
        """Say something to a running agent. With a `message_id` of one's own it may be repeated. Raises `Conflict` if
        the agent takes no messages, or has ended."""
        body = {"text": text, "mode": mode} | ({} if message_id is None else {"messageId": message_id})
        return await self._call("POST", execution_path(execution_id) + "/messages", body)

    async def decline(self, execution_id: str, input_id: str) -> dict[str, Any]:
        """Decline to answer what an agent asked. Raises `Conflict` if somebody was faster."""
        body = {"inputId": input_id, "declined": True}
        return await self._call("POST", execution_path(execution_id) + "/input", body)

    async def messages(self, execution_id: str) -> dict[str, Any]:
        """What people have said to the agent, and whether it takes more: {messages, acceptsMessages}."""
        return await self._call("GET", execution_path(execution_id) + "/messages")

    async def get(self, execution_id: str) -> dict[str, Any]:
        """The execution's folded state."""
        return await self._call("GET", execution_path(execution_id))

    async def request_of(self, execution_id: str) -> dict[str, Any]:
        """What it was started with: {agent, task, params, metadata, conversationId, …}, credentials redacted."""
        return await self._call("GET", execution_path(execution_id) + "/request")

    async def executions(self, *, limit: int = 20, **query: str | None) -> dict[str, Any]:
        """A page of the newest executions: {executions, nextCursor}. `query`: q, agent, state, cursor."""
        given = {"limit": str(limit)} | {name: value for name, value in query.items() if value is not None}
        return await self._call("GET", f"/api/agent/executions?{urlencode(given)}")

    async def share(self, execution_id: str, lifetime: float | None = None) -> dict[str, Any]:
        """A link that shows the execution, for `lifetime` seconds: {url, token, shareId, expiresAt}."""
        body = {} if lifetime is None else {"expiresInSeconds": int(lifetime)}
        return await self._call("POST", execution_path(execution_id) + "/shares", body)

    async def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        url = self.base_url + path
        try:
            async with (
                asyncio.timeout(COMMAND_SECONDS),
                self._open().request(method, url, json=body, headers=headers, allow_redirects=False) as response,
            ):
                content = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise EdgeUnreachable(url, _reason(error)) from error
        if response.status >= 300:
            raise _api_error(response.status, content)
        return _json_object(content)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("use `async with Api(…)`")
        return self._session

    async def follow(
        self,
        path: str,
        cursor: EventId | None = None,
        *,
        params: Mapping[str, str] | None = None,
        on_link: Callable[[Link], None] = lambda _: None,
    ) -> AsyncGenerator[ClientEvent, None]:
        """Every event after `cursor` of the stream at `path` (`stream_path(…)` or `FEED_PATH`), until it is finished.

        Waits for an edge that does not answer, and reports it to `on_link`. Between two `stream:reset` no id comes
        twice. Raises `NotSignedIn`, `Forbidden`, `NotFound` and other `ApiError`s, and `NotAStream`.
        """
        params = params or {}
        from_now = params.get("from", "now" if path.startswith(FEED_PATH) else "start") == "now"
        position, failures = Position(cursor, from_now=from_now), 0
        while not position.finished:
            try:
                async with aclosing(self._connection(path, params, position, on_link)) as events:
                    async for event in events:
                        failures = 0
                        yield event
            except _TryAgain as again:
                asked = position.retry_seconds if again.seconds is None else again.seconds
                delay = self._backoff.delay(failures, asked, random.random())
                on_link(ConnectionLost(str(again), position.cursor, delay))
                failures += 1
                await asyncio.sleep(delay)

    async def _connection(
        self, path: str, params: Mapping[str, str], position: Position, on_link: Callable[[Link], None]
    ) -> AsyncGenerator[ClientEvent, None]:
        """One connection's events. Returns when the stream is finished, else raises `_TryAgain`."""
        asked = position.cursor
        headers, query = position.request()
        response = await self._connect(path, {**params, **query}, headers)
        parser = SseParser()
        try:
            if response.status == 204:
                position.finished = True
                return
            on_link(Connected(asked))
            async for chunk in _chunks(response, position):
                frames = parser.feed(chunk)
                if parser.retry_ms is not None:
                    position.retry_seconds = parser.retry_ms / 1000
                for frame in frames:
                    if (event := position.accept(frame)) is not None:
                        yield event
                if position.finished:
                    return
        finally:
            response.close()  # not release: an endless body is never read to its end
        raise _TryAgain("the edge ended the stream")

    async def _connect(self, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        url = f"{self.base_url}{path}" + (f"{'&' if '?' in path else '?'}{urlencode(query)}" if query else "")
        # identity: a proxy that compresses a stream holds back its events
        wanted = {"Accept": "text/event-stream", "Accept-Encoding": "identity", "Cache-Control": "no-store", **headers}
        try:
            async with asyncio.timeout(FIRST_BYTES_SECONDS):
                response = await self._open().get(url, headers=wanted, allow_redirects=False)
        except (aiohttp.InvalidURL, aiohttp.ClientConnectorCertificateError) as error:
            raise EdgeUnreachable(url, _reason(error)) from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _TryAgain(_reason(error)) from error
        try:
            await _check(response)
        except BaseException:
            response.close()
            raise
        return response


def execution_path(execution_id: str) -> str:
    return "/api/agent/executions/" + quote(execution_id, safe="")


def stream_path(execution_id: str) -> str:
    return execution_path(execution_id) + "/stream"


async def _check(response: aiohttp.ClientResponse) -> None:
    """Nothing for a stream or 204; `_TryAgain` for what passes by itself; else the error it is."""
    status = response.status
    if status == 204:
        return
    if status == 200:
        if response.content_type != "text/event-stream":
            raise NotAStream(f"{response.url.path} answered with {response.content_type}, not with a stream of events")
        return
    if status in (408, 425, 429) or status >= 500:
        raise _TryAgain(f"the edge answered {status}", retry_after(response.headers.get("Retry-After"), time.time()))
    try:
        async with asyncio.timeout(FIRST_BYTES_SECONDS):
            content = await response.content.read(64 * 1024)
    except (aiohttp.ClientError, OSError, TimeoutError):
        content = b""
    raise _api_error(status, content)


async def _chunks(response: aiohttp.ClientResponse, position: Position) -> AsyncIterator[bytes]:
    """The body as it comes. Silence for 2.5 heartbeats is a dead connection: a NAT may drop it without a FIN."""
    while True:
        beat = position.heartbeat_seconds
        silence = FIRST_BYTES_SECONDS if beat is None else beat * SILENT_HEARTBEATS
        try:
            async with asyncio.timeout(silence or None):
                chunk = await response.content.readany()
        except TimeoutError:
            raise _TryAgain(f"nothing came for {silence:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise _TryAgain(_reason(error)) from error
        if not chunk:
            return
        yield chunk


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError)):
        return "it was cut off"  # aiohttp's own words are about the body's framing
    return str(error) or type(error).__name__


def _json_object(content: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(content, type=dict[str, Any]) if content else {}
    except msgspec.MsgspecError:
        return {}


def _api_error(status: int, content: bytes) -> ApiError:
    known: dict[int, type[ApiError]] = {401: NotSignedIn, 403: Forbidden, 404: NotFound, 409: Conflict}
    return known.get(status, ApiError)(status, _json_object(content))
