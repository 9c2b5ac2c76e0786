"""Checks the network path from an edge to its viewers: streams through the given address, with events that the doctor
emits."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
import zlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import jwt
import msgspec
from redis.exceptions import RedisError
from yarl import URL

from broker.cli.doctor.address import ANSWER_SECONDS, alpn, look_for_cache, sent_to, tells_metrics, who_answers
from broker.cli.doctor.findings import Finding, note, problem
from broker.cli.doctor.proxy import (
    Sent,
    judge_coding,
    judge_content_types,
    judge_events,
    judge_first_byte,
    judge_headers,
    judge_http2,
    judge_idle,
    judge_large,
    judge_private,
    judge_query,
    judge_resume,
)
from broker.cli.doctor.redis import LIMITS, USER
from broker.cli.eventsource import Frame, SseParser
from broker.live import gzip_body, sse
from emitter.errors import InvalidEvent, RuncastError
from emitter.publishing.agent_emitter import AgentEmitter
from emitter.publishing.publisher import Publisher
from emitter.store.connection import GONE, connect
from emitter.wire.keys import Owner
from emitter.wire.subjects import owner_of_token

EVENTS = 6
GAP_SECONDS = 0.4
LARGE_CHARS = 60 * 1024
RESUME_SECONDS = 2.0
FEED = "/api/agent/stream"


class Caller(msgspec.Struct, frozen=True):
    """The user whose streams the doctor opens."""

    token: str
    owner: Owner

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


def caller_of(token: str, org_claim: str = "org") -> Caller:
    """The token's subject, unverified; the edge verifies it. Raises `ValueError` if it is no JWT."""
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
        return Caller(token, owner_of_token(str(claims["sub"]), str(claims.get(org_claim) or "default")))
    except (jwt.InvalidTokenError, KeyError, InvalidEvent) as error:
        raise ValueError(f"the token is no JWT with a subject: {error}") from error


async def look_at_way(url: str, caller: Caller, redis_url: str, idle_seconds: float) -> list[Finding]:
    """Everything there is to say of `url`, which leads to an edge. With `redis_url`, the doctor emits events of its own
    and times them; without, it only sees first bytes and heartbeats. Never raises what the network does."""
    url = url.rstrip("/")
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=ANSWER_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:
        stranger = await who_answers(session, url)
        if stranger is not None:
            return [stranger]
        found = [judge_http2(urlsplit(url).scheme, await alpn(url)), judge_private(await tells_metrics(session, url))]
        found += await look_for_cache(session, url, caller.headers)
        try:
            if redis_url:
                found += await _with_events(session, url, caller, redis_url)
            else:
                found.append(note("events", "not sent", "set RUNCAST_REDIS_URL to emit and time events"))
            found += await _quiet(session, url, caller, idle_seconds)
        except _Refused as error:
            found.append(error.finding)
        except (RedisError, RuncastError) as error:
            change = "see the findings about Redis above"
            found.append(problem("events", f"cannot be emitted: {str(error) or type(error).__name__}", change))
    return found


class _Refused(Exception):
    """No stream was to be had."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.seen)
        self.finding = finding


# --- streams ---------------------------------------------------------------------------------------------------------


class _Stream:
    """One open stream: frames with the time (monotonic) of their arrival."""

    def __init__(self, response: aiohttp.ClientResponse, opened: float) -> None:
        self.response = response
        self.opened = opened
        self.first_byte: float | None = None
        self.has_comments = False
        self.is_cut = False
        self.coding = response.headers.get("Content-Encoding", "")
        self._begin = b""
        self._gzip = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self._parser = SseParser()

    @property
    def is_edges_gzip(self) -> bool:
        return self.coding == "gzip" and self._begin.startswith(gzip_body.HEADER)

    @property
    def is_readable(self) -> bool:
        """A stream that a proxy compresses is a finding already: its frames are not needed."""
        return not self.coding or self.is_edges_gzip

    def _decoded(self, chunk: bytes) -> bytes:
        if not self.coding:
            return chunk
        if len(self._begin) < len(gzip_body.HEADER):
            self._begin = chunk = self._begin + chunk
        try:
            return self._gzip.decompress(chunk) if self.is_edges_gzip else b""
        except zlib.error as error:
            change = "let a stream that has a Content-Encoding pass as it is, or set RUNCAST_COMPRESS_STREAMS=off"
            raise _Refused(problem("compression", f"the edge's gzip arrives broken: {error}", change)) from error

    async def frames(self, seconds: float) -> AsyncIterator[tuple[float, Frame]]:
        """The frames of the next seconds. `is_cut` if the connection ended before."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    chunk = await self.response.content.readany()
            except TimeoutError:
                return
            except (aiohttp.ClientError, OSError):
                chunk = b""
            if not chunk:
                self.is_cut = True
                return
            now = time.monotonic()
            self.first_byte = self.first_byte or now
            data = self._decoded(chunk)
            self.has_comments = self.has_comments or sse.HEARTBEAT in data
            for frame in self._parser.feed(data):
                yield now, frame


@contextlib.asynccontextmanager
async def _open(
    session: aiohttp.ClientSession, url: str, caller: Caller, last_event_id: str | None = None, **query: str
) -> AsyncIterator[_Stream]:
    headers = {**caller.headers, "Accept": "text/event-stream", "Accept-Encoding": "gzip, deflate, br"}
    if last_event_id is not None:
        headers["Last-Event-ID"] = last_event_id
    opened = time.monotonic()
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            response = await session.get(URL(url).update_query(query), headers=headers, allow_redirects=False)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        if isinstance(error, TimeoutError):
            raise _Refused(judge_first_byte(None)) from error
        raise _Refused(problem("stream", f"failed: {error}", "see the proxy's log")) from error
    try:
        if response.status != 200 or response.content_type != "text/event-stream":
            raise _Refused(_refusal(response))
        yield _Stream(response, opened)
    finally:
        response.close()


def _refusal(response: aiohttp.ClientResponse) -> Finding:
    seen = f"{response.status} {response.content_type}"
    is_edges = response.content_type == "application/problem+json"
    if response.status == 401:
        change = "check the token, the edges' key, and that the proxy passes the Authorization header on"
    elif response.status == 403 and is_edges:
        change = "the token needs the scope executions:read"
    elif response.status == 404 and is_edges:
        change = (
            "edges do not see the new execution: is RUNCAST_REDIS_URL here the same as theirs, including the database?"
        )
    elif response.status in (429, 503):
        change = "a limit was reached: see RUNCAST_MAX_CONNECTIONS, RUNCAST_CONNECTS_PER_MINUTE, or try again"
    elif target := sent_to(response):
        seen = f"{response.status}, sent to {target}"
        change = "let /api/agent/… pass to the edge without a login of the proxy: edges verify tokens"
    elif response.status == 200:
        change = "pass the edge's Content-Type on, and check that /api/agent/… reaches an edge (text/event-stream)"
    else:
        change = "check the routes of the proxy: /api/agent/… must reach an edge"
    return problem("stream", seen, change)


async def _with_events(session: aiohttp.ClientSession, url: str, caller: Caller, redis_url: str) -> list[Finding]:
    """A short execution of the caller's, watched through the address."""
    execution_id = f"ex_doctor_{secrets.token_hex(6)}"
    path = f"{url}/api/agent/executions/{execution_id}/stream"
    redis: Any = connect(redis_url)
    try:
        limits = LIMITS if caller.owner.user == USER else None
        publisher = Publisher(redis=redis, limits=limits, redact_keys=(), hooks=())
        async with publisher, _emitter(caller, execution_id, publisher) as emitter:
            await emitter.execution_started("runcast doctor")
            await emitter.flush(ANSWER_SECONDS)
            try:
                async with _open(session, path, caller) as stream:
                    headers = stream.response.headers
                    found = [*judge_content_types(headers.getall("Content-Type")), *judge_headers(headers)]
                    found += await _time_events(stream, emitter)
                    if stream.first_byte is not None:
                        found.append(judge_coding(stream.coding, stream.is_edges_gzip))
                    readable = stream.is_readable and stream.first_byte is not None
                if readable:
                    log = caller.owner.execution(execution_id).log
                    ids = [id_.decode() for id_, _ in await redis.xrange(log)]
                    async with _open(session, path, caller, last_event_id=ids[1]) as stream:
                        found.append(judge_resume(await _first_id(stream), ids[2]))
            finally:
                await emitter.execution_complete()
                await emitter.flush(ANSWER_SECONDS)
    except GONE as error:
        raise RuncastError(str(error) or type(error).__name__) from error
    finally:
        await redis.aclose()
    return found


async def _first_id(stream: _Stream) -> str | None:
    async for _, frame in stream.frames(RESUME_SECONDS):
        if frame.id is not None:
            return frame.id
    return None


def _emitter(caller: Caller, execution_id: str, publisher: Publisher) -> AgentEmitter:
    return AgentEmitter(caller.owner.user, execution_id, org=caller.owner.org, publisher=publisher)


async def _time_events(stream: _Stream, emitter: AgentEmitter) -> list[Finding]:
    """Emit a few events one by one, then a large one, and measure when each arrives."""
    arrived: dict[str, float] = {}
    large = asyncio.Event()

    async def read() -> None:
        async for now, frame in stream.frames(EVENTS * GAP_SECONDS + ANSWER_SECONDS):
            if frame.event == "status" and frame.data is not None:
                arrived[frame.data.split('"doctor-', 1)[1].split('"', 1)[0]] = now
            elif frame.event == "thinking":
                large.set()
                return

    reading = asyncio.create_task(read(), name="doctor-reads")
    try:
        sent = {}
        for number in range(EVENTS):
            await asyncio.sleep(GAP_SECONDS)
            sent[str(number)] = time.monotonic()
            await emitter.status(f"doctor-{number}", "is it held back?")
            await emitter.flush(ANSWER_SECONDS)
        await asyncio.sleep(GAP_SECONDS)
        await emitter.thinking("x" * LARGE_CHARS)
        await emitter.flush(ANSWER_SECONDS)
        await asyncio.wait([reading], timeout=3.0)
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    first = None if stream.first_byte is None else stream.first_byte - stream.opened
    if not stream.is_readable:
        return [judge_first_byte(first)]
    events = [Sent(at, arrived.get(number)) for number, at in sent.items()]
    return [judge_first_byte(first), judge_events(events), judge_large(large.is_set())]


async def _quiet(session: aiohttp.ClientSession, url: str, caller: Caller, idle_seconds: float) -> list[Finding]:
    """The caller's feed, on which nothing happens but heartbeats."""
    heartbeat, beats = 0.0, 0
    async with _open(session, url + FEED, caller, heartbeat="event", types="sandbox:*") as stream:
        began = last = time.monotonic()
        async for now, frame in stream.frames(idle_seconds):
            last = now
            if frame.event == "stream:open" and frame.data is not None:
                heartbeat = float(msgspec.json.decode(frame.data).get("heartbeatSeconds", 0))
            beats += frame.event == "heartbeat"
    if stream.first_byte is None:
        return [judge_first_byte(None)]
    now = time.monotonic()
    if not stream.is_readable:
        return []
    if stream.has_comments:
        return [judge_query()]
    return judge_idle(now - began, now - last if stream.is_cut else None, beats, heartbeat)
