"""Parses addresses of Redis (RUNCAST_REDIS_URL). Pure."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple
from urllib.parse import SplitResult, parse_qs, urlsplit

from redis.asyncio.connection import parse_url

from emitter.errors import InvalidEvent

SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
OPTIONS = frozenset(
    {
        *("db", "username", "password", "client_name", "protocol", "max_connections", "sentinel_password"),
        *("socket_timeout", "socket_connect_timeout", "socket_keepalive", "socket_read_size"),
        *("ssl_ca_certs", "ssl_ca_data", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"),
        *("ssl_min_version", "ssl_ciphers"),
    }
)
"""Options that may follow the `?`. Other options of redis-py change the form of replies, repeat commands that must not
be repeated, or belong to another client."""


class Address(NamedTuple):
    """`options` are redis-py's, including TLS, for a Cluster without host and port. `hosts` are the Sentinels, or nodes
    of the Cluster; `master` is set for a Sentinel address only."""

    kind: Literal["server", "sentinel", "cluster"]
    has_tls: bool
    options: dict[str, Any]
    hosts: list[tuple[str, int]]
    master: str
    sentinel_password: str | None


def read_url(url: str) -> Address:
    """Raises `InvalidEvent`, whose text never shows a password."""
    try:
        parts = urlsplit(url)
        scheme, _, kind = parts.scheme.partition("+")
        if parts.scheme not in SCHEMES:
            raise InvalidEvent(f"redis url: scheme {parts.scheme!r} is not one of {', '.join(SCHEMES)}")
        _check_options(parts.query)
        if kind == "sentinel":
            return _sentinel(scheme, parts.netloc, parts.path, parts.query)
        if kind == "cluster":
            return _cluster(scheme, parts)
        options: dict[str, Any] = dict(parse_url(parts._replace(scheme=scheme).geturl()))
        options.pop("sentinel_password", None)
        return Address("server", scheme == "rediss", options, [], "", None)
    except ValueError:  # its text may contain a part of an unencoded password
        hint = "the characters /?#@:% of a password are written %2F %3F %23 %40 %3A %25"
        raise InvalidEvent(f"redis url: its port or a number among its options is none ({hint})") from None


def _check_options(query: str) -> None:
    for name in parse_qs(query, keep_blank_values=True):
        if name not in OPTIONS:
            raise InvalidEvent(f"redis url: option {name[:80]!r} is not one of {', '.join(sorted(OPTIONS))}")


def _sentinel(scheme: str, netloc: str, path: str, query: str) -> Address:
    """`sentinel://user:password@host:port,host:port/master/db`: the credentials are those of the servers."""
    credentials, at, hosts = netloc.rpartition("@")
    master, _, database = path.strip("/").partition("/")
    options: dict[str, Any] = dict(parse_url(f"{scheme}://{credentials}{at}sentinels/{database}?{query}"))
    del options["host"]
    password = options.pop("sentinel_password", None)
    sentinels = [_host_and_port(host, "a Sentinel") for host in hosts.split(",")]
    return Address("sentinel", scheme == "rediss", options, sentinels, master or "mymaster", password)


def _cluster(scheme: str, parts: SplitResult) -> Address:
    """`cluster://user:password@host:port,host:port`: any of these nodes tells the others. Of a single one the port may
    be left out."""
    credentials, at, hosts = parts.netloc.rpartition("@")
    first, _, others = hosts.partition(",")
    options: dict[str, Any] = dict(
        parse_url(parts._replace(scheme=scheme, netloc=f"{credentials}{at}{first}").geturl())
    )
    options.pop("sentinel_password", None)
    nodes = [(options.pop("host", "127.0.0.1"), options.pop("port", 6379))]
    nodes += [_host_and_port(host, "a node of a Cluster") for host in others.split(",") if others]
    return Address("cluster", scheme == "rediss", options, nodes, "", None)


def _host_and_port(text: str, what: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise InvalidEvent(f"redis url: {what} is not host:port")
    return host.strip("[]"), int(port)
