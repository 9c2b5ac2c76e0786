"""What a peer has not taken yet."""

from __future__ import annotations

import contextlib
import fcntl
import struct
import termios
from typing import Any


def unsent_bytes(transport: Any) -> int:
    """Bytes that have not reached the peer: in the transport and, on Linux, in the kernel. While nothing
    is written it only ever gets less, by every byte that the peer takes. 0 when the connection is closing."""
    if transport is None or transport.is_closing():
        return 0
    return int(transport.get_write_buffer_size()) + unacknowledged_bytes(transport)


def unacknowledged_bytes(transport: Any) -> int:
    with contextlib.suppress(OSError, AttributeError, struct.error):
        fd = transport.get_extra_info("socket").fileno()
        return int(struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)))[0])
    return 0
