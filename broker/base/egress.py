"""Through which proxy a request leaves, by the environment variables that most programs heed: `HTTPS_PROXY`,
`HTTP_PROXY` and `NO_PROXY`, in capitals or not.

aiohttp's own `trust_env` also reads `.netrc`; its passwords must not be sent to these hosts.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass


def proxy_of(url: str) -> str | None:
    """The URL of the proxy, or None. This machine itself is never reached through one, and only proxies that speak HTTP
    are used."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if _is_loopback(host) or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    found = getproxies_environment().get(parts.scheme, "")
    proxy = found if "://" in found or not found else "http://" + found
    return proxy if proxy.startswith(("http://", "https://")) else None


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
