"""The proxies between an edge and its viewers, judged by what arrives. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import msgspec

from broker.cli.doctor.findings import Finding, note, ok, problem, warning

FIRST_BYTE_SECONDS = 2.0
HELD_SECONDS = 0.5
"""An event that is this much later than its neighbours counts as held back."""
LATE_SECONDS = 0.2
"""Longer than a round trip around the world: if every event needs it, each one is held back."""
BUFFERING = (
    "switch response buffering off for streams: nginx `proxy_buffering off` (and no `proxy_ignore_headers "
    "X-Accel-Buffering`), Envoy no buffer filter, Cloudflare and CDNs no caching of text/event-stream"
)
LATE = (
    "unless the edge or its Redis is far from here: a proxy waits to fill its packets (HAProxy: `option http-no-delay`)"
)


class Sent(msgspec.Struct, frozen=True):
    """An event: when it was appended and when it arrived, in seconds of one clock; `None` if it did not arrive."""

    at: float
    arrived: float | None


def judge_first_byte(seconds: float | None) -> Finding:
    if seconds is None:
        return problem("first byte", "none arrived: the response is held back until it is complete", BUFFERING)
    seen = f"after {seconds * 1000:.0f} ms"
    return problem("first byte", seen, BUFFERING) if seconds > FIRST_BYTE_SECONDS else ok("first byte", seen)


def judge_events(sent: Sequence[Sent]) -> Finding:
    """Events sent one by one must arrive one by one. The fastest one shows the delay of the path itself."""
    delays = [each.arrived - each.at for each in sent if each.arrived is not None]
    if len(delays) < len(sent):
        return problem("events", f"{len(sent) - len(delays)} of {len(sent)} did not arrive", BUFFERING)
    held = max(delays) - min(delays)
    if held > HELD_SECONDS:
        return problem("events", f"held back for up to {held:.1f} s: they arrive in bursts", BUFFERING)
    seconds = statistics.median(delays)
    seen = f"each arrives on its own, {seconds * 1000:.0f} ms after it was emitted"
    return warning("events", seen, LATE) if seconds > LATE_SECONDS else ok("events", seen)


def judge_content_types(values: Sequence[str]) -> list[Finding]:
    """A browser uses the last type that it knows, and takes a response as a stream only by its type."""
    if len(values) == 1:
        return []
    change = "add no second Content-Type (nginx `add_header` adds, and does not replace)"
    return [problem("content type", f"{len(values)} of them: {', '.join(values)}", change)]


def judge_cache(before: int | None, after: int | None) -> list[Finding]:
    """Statuses of a request without a token, before and after the same request with one."""
    if before == 200:
        change = "edges refuse requests without a token: remove whatever adds a token, or caches responses"
        return [problem("caching", "a request without a token is answered", change)]
    if after == 200:
        change = "do not cache responses of edges (nginx `proxy_cache off`; CDNs: bypass); see their Cache-Control"
        return [problem("caching", "the response for one caller is given to others", change)]
    return []


def judge_query() -> Finding:
    """For a stream whose heartbeats do not have the form that its query asked for."""
    change = (
        "pass the query on (nginx: `proxy_pass` without a path, or with `$is_args$args`): tickets and cursors are in it"
    )
    return problem("query", "the query string does not reach the edge", change)


def judge_coding(coding: str, is_edges: bool) -> Finding:
    """`is_edges`: whether an edge has made the coding, which no proxy has touched."""
    if is_edges:
        return ok("compression", f"{coding} by the edge, which holds back nothing")
    if not coding:
        return ok("compression", "none, although it was offered")
    change = "leave text/event-stream out of compression (nginx: not in gzip_types; others: honour no-transform)"
    return problem("compression", f"a proxy makes the stream {coding}: a compressor holds back events", change)


def judge_headers(headers: Mapping[str, str]) -> list[Finding]:
    found = []
    if "no-cache" not in headers.get("Cache-Control", ""):
        change = "pass the edge's Cache-Control on: no-cache, no-transform"
        found.append(warning("caching", f"Cache-Control is {headers.get('Cache-Control', 'gone')!r}", change))
    return found


def judge_large(arrived: bool) -> Finding:
    if arrived:
        return ok("large events", "an event of 60 KiB arrives")
    return problem("large events", "an event of 60 KiB did not arrive", BUFFERING)


def judge_idle(watched_seconds: float, cut_after: float | None, beats: int, heartbeat: float) -> list[Finding]:
    """`cut_after`: after how many seconds with heartbeats only the connection ended, or `None`."""
    if cut_after is not None:
        change = (
            f"raise the read timeout of the proxy well above the heartbeat of {heartbeat:g} s (nginx "
            "`proxy_read_timeout 1h`, Envoy `timeout: 0s` and `stream_idle_timeout`, ALB idle timeout), "
            "or lower RUNCAST_HEARTBEAT_SECONDS"
        )
        return [problem("idle streams", f"cut off after {cut_after:.1f} s", change)]
    due = int(watched_seconds / heartbeat) if heartbeat else 0
    if due and not beats:
        return [problem("heartbeats", f"none arrived in {watched_seconds:.0f} s", BUFFERING)]
    seen = f"open after {watched_seconds:.0f} s, {beats} heartbeats"
    if not due:
        return [note("idle streams", seen, f"watch longer than a heartbeat: --idle {heartbeat * 2.5:.0f}")]
    return [ok("idle streams", seen)]


def judge_resume(first_id: str | None, expected: str) -> Finding:
    """A reconnect with `Last-Event-ID` must begin with the event after it."""
    if first_id == expected:
        return ok("resume", "Last-Event-ID arrives, and the stream continues after it")
    if first_id is None:
        return problem("resume", "nothing arrived after a reconnect", "see the edge's log for stream_closed")
    change = "pass the request header Last-Event-ID on to the edge"
    return problem("resume", f"began again with {first_id}: Last-Event-ID did not reach the edge", change)


def judge_http2(scheme: str, protocol: str | None) -> Finding:
    if protocol == "h2":
        return ok("HTTP/2", "offered")
    change = "offer HTTP/2 to browsers: over HTTP/1.1 they open six connections to a site, so at most six streams"
    if scheme == "http":
        return note("HTTP/2", "not over plain http", change)
    return warning("HTTP/2", f"not offered ({protocol or 'no ALPN'})", change)


def judge_private(tells: bool) -> Finding:
    if tells:
        change = "do not route to RUNCAST_ADMIN_PORT from outside"
        return problem("/metrics", "is public at this address", change)
    return ok("/metrics", "not at this address")
