"""How many connections each of the processes on one socket has, in memory that they share: the least full accepts."""

from __future__ import annotations

import mmap
import os
import tempfile

ABSENT = -1
"""In the place of a process that does not accept: it has not begun, leaves, or is dead."""
NUMBER_BYTES = 4


def create(processes: int) -> int:
    """A descriptor of the shared memory, for `Shares` in each process; nobody accepts yet."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("runcast-shares")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.write(descriptor, ABSENT.to_bytes(NUMBER_BYTES, "little", signed=True) * processes)
    return descriptor


class Shares:
    """The share of the process `own`, numbered from 0, and those of the others."""

    def __init__(self, descriptor: int, own: int) -> None:
        self._shares = memoryview(mmap.mmap(descriptor, 0)).cast("i")
        self._own = own
        self._others = [number for number in range(len(self._shares)) if number != own]

    def report(self, count: int) -> None:
        """This process accepts, and has so many connections."""
        self._shares[self._own] = count

    def leave(self) -> None:
        """This process does not accept: nobody leaves connections to it."""
        self._shares[self._own] = ABSENT

    def least(self) -> int | None:
        """The connections of the least full one of the others; None if no other accepts."""
        return min((share for number in self._others if (share := self._shares[number]) != ABSENT), default=None)
