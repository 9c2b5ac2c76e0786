"""Where webhooks may go: to hosts of the internet by https, and to hosts that the operator has named. Pure.

Users name the URLs, and edges stand in networks that users do not. So a name is not enough: what counts is the address
that is connected to (`broker.webhooks.sender` asks for each one).
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Collection
from typing import NamedTuple
from urllib.parse import urlsplit

from emitter.errors import InvalidEvent

HOST_FORM = r"^(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_.-]{1,253})(:[0-9]{1,5})?$"
PORTS = frozenset({443, 8443})
"""Other ports are those of other services; the operator can name a host with its port."""
MAX_URL_CHARS = 2048
SECRET_BYTES = (24, 64)
_NAME = re.compile(r"(?=.{1,253}\Z)(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9-]{1,63}\.?\Z")
_FORBIDDEN = [
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4",
        "168.63.129.16/32",  # a public address, but inside Azure its host
        # Addresses of IPv4 in other clothes: mapped, compatible, translated (NAT64), 6to4, Teredo.
        "::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/23",
        "100::/64", "2001:db8::/32", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
    )
]  # fmt: skip
"""IANA's special-purpose addresses, and those for many receivers; not by `is_global`, which differs between versions of
Python."""


class ForbiddenTarget(Exception):
    """A URL or an address that webhooks must not go to. Its text names no more of the URL than its host."""


class Target(NamedTuple):
    """The parts of a URL that decide. `is_named`: the operator has named the host, and nothing else is checked."""

    host: str
    port: int
    is_named: bool

    @property
    def origin(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def target_of(url: str, named: Collection[str]) -> Target:
    """Raises `ForbiddenTarget`. A name is only checked for its form; `check_address` has the rest."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError as error:
        raise ForbiddenTarget("it is no URL") from error
    if len(url) > MAX_URL_CHARS or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise ForbiddenTarget(f"a URL is up to {MAX_URL_CHARS} ASCII characters without blanks")
    if parts.scheme not in ("https", "http") or not host:
        raise ForbiddenTarget("it is no https URL")
    if "@" in parts.netloc:
        raise ForbiddenTarget("a URL has no user name here: use a header")
    target = Target(host, port or (443 if parts.scheme == "https" else 80), is_named=False)
    known = {each.lower().strip("[]") for each in named} | {each.lower() for each in named}
    if target.host in known or target.origin in known:
        return target._replace(is_named=True)
    if parts.scheme != "https":
        raise ForbiddenTarget("only https is allowed")
    if target.port not in PORTS:
        raise ForbiddenTarget(f"only ports {', '.join(map(str, sorted(PORTS)))} are allowed")
    _check_host(host)
    return target


def _check_host(host: str) -> None:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if not _NAME.match(host):
            raise ForbiddenTarget("the host is no name") from None
        if host.rstrip(".").rpartition(".")[2].isdigit() or "." not in host.rstrip("."):
            # 127.1 and 2130706433 are addresses to some; a name without a dot is one of this network.
            raise ForbiddenTarget("the host is no name of the internet") from None
        return
    check_address(host)


def check_address(address: str) -> None:
    """Raises `ForbiddenTarget` for an address that is not one of the internet."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError as error:
        raise ForbiddenTarget("the address cannot be read") from error
    if any(found in network for network in _FORBIDDEN if network.version == found.version):
        raise ForbiddenTarget("the address is private, or has a special purpose")


def check_secrets(text: str) -> None:
    """Raises `InvalidEvent` for what signs nothing well. The package `standardwebhooks` takes any text as base 64, and
    skips what is none: a mistyped secret would sign, and nobody could verify it."""
    secrets = text.split()
    if not 1 <= len(secrets) <= 2:
        raise InvalidEvent("one secret, or two with a blank between")
    for secret in secrets:
        coded = secret.removeprefix("whsec_")
        try:
            size = len(base64.b64decode(coded + "=" * (-len(coded) % 4), validate=True))
        except binascii.Error:
            raise InvalidEvent("it is not base 64") from None
        if not SECRET_BYTES[0] <= size <= SECRET_BYTES[1]:
            raise InvalidEvent(f"it has {size} bytes")
