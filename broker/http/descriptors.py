"""How many connections a process has descriptors for."""

from __future__ import annotations

import contextlib
import resource
from typing import NamedTuple

from broker.base.settings import Settings

ADMIN_SOCKETS = 32
"""Connections of the admin port."""
OWN = 384
"""Descriptors for all else: two pools of Redis connections, the admin port, form checks, files."""
OWN_AT_LEAST = 96
UNLIMITED = 1 << 20


class Room(NamedTuple):
    """`sockets` of the public port, of which `streams` may be streams; the difference is for requests that end.
    `descriptors` are what the process may have."""

    sockets: int
    streams: int
    descriptors: int


def raise_limit() -> None:
    """Let this process have as many descriptors as it may: shells and systemd start it with 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # macOS says "unlimited", and refuses it
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return UNLIMITED if soft == resource.RLIM_INFINITY else soft


def room(settings: Settings, descriptors: int) -> Room:
    """What the settings ask for, within what the descriptors allow."""
    wanted = settings.max_connections
    most = descriptors - max(OWN_AT_LEAST, min(OWN, descriptors // 3))
    asked = settings.max_sockets or (wanted + max(64, wanted // 10) if wanted else most)
    sockets = max(16, min(asked, most))
    streams = sockets - max(8, sockets // 11)
    return Room(sockets, min(wanted, streams) if wanted else streams, descriptors)
