"""A gzip body (RFC 1952) made of pieces that many bodies share. Pure.

Every piece is whole bytes of deflate (RFC 1951) and ends with an empty stored block, at which every decoder gives out
what it has: Go's waits for it even after a stored block. What a piece refers to, if anything, is the caller's concern.

The trailer needs the check sum of all that a body held. A body combines it from those of its pieces, so that a piece is
summed up once.
"""

from __future__ import annotations

import zlib

from broker.live.sse import chunk

HEADER = b"\x1f\x8b\x08\x00RCST\x00\xff"
"""The time of the file (`RCST`) means nothing. By it `runcast doctor` knows that an edge, no proxy, has compressed."""
FLUSH = b"\x00\x00\x00\xff\xff"
LAST_BLOCK = b"\x01\x00\x00\xff\xff"
STORED_MAX_BYTES = 0xFFFF
SMALL_BYTES = 128
"""Less is stored: alone it becomes hardly smaller."""


class Piece(bytes):
    """Bytes of a body as they are sent, and the check sum (CRC-32) and size of what they decode to."""

    crc: int
    size: int

    @classmethod
    def of(cls, data: bytes, coded: bytes, *, chunked: bool) -> Piece:
        """`coded` must decode to `data`."""
        piece = cls(chunk(coded) if chunked else coded)
        piece.crc = zlib.crc32(data)
        piece.size = len(data)
        return piece


def stored(data: bytes) -> bytes:
    """The data as it is: ten bytes more, and next to no work."""
    blocks = []
    for start in range(0, len(data), STORED_MAX_BYTES):
        part = data[start : start + STORED_MAX_BYTES]
        size = len(part)
        blocks += [b"\0", size.to_bytes(2, "little"), (size ^ 0xFFFF).to_bytes(2, "little"), part]
    return b"".join((*blocks, FLUSH))


def deflated(data: bytes) -> bytes:
    """The data compressed by itself, fast; stored if that is smaller."""
    if len(data) < SMALL_BYTES:
        return stored(data)
    deflate = zlib.compressobj(1, zlib.DEFLATED, -15)
    coded = deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH)
    return coded if len(coded) < len(data) else stored(data)


class GzipBody:
    """What one viewer's body has held so far. `shared_crc` and `shared_size` are those of its group (`PackedGroup`)
    when it entered; the size is -1 outside of one."""

    __slots__ = ("_chunked", "crc", "shared_crc", "shared_size", "size")

    def __init__(self, *, chunked: bool) -> None:
        self._chunked = chunked
        self.crc = self.size = 0
        self.shared_crc, self.shared_size = 0, -1

    def begin(self) -> bytes:
        """What comes before the first piece."""
        return self._wrap(HEADER)

    def add(self, data: bytes) -> None:
        """A piece was written."""
        assert isinstance(data, Piece), "a view with a coding makes only pieces"
        self.crc = appended(self.crc, data.size) ^ data.crc
        self.size += data.size

    def enter(self, crc: int, size: int) -> None:
        """From here on it gets what its group writes, which is at this check sum and size."""
        self.shared_crc, self.shared_size = crc, size

    def leave(self, crc: int, size: int) -> None:
        """It got what its group wrote between `enter` and here. For A, the group's bytes before `enter`, and B, those
        since: crc(AB) is known, so crc(B) is what remains of it without A."""
        since = size - self.shared_size
        if self.shared_size >= 0 and since:
            self.crc = appended(self.crc ^ self.shared_crc, since) ^ crc
            self.size += since
        self.shared_size = -1

    def end(self) -> bytes:
        """What comes after the last piece."""
        trailer = self.crc.to_bytes(4, "little") + (self.size & 0xFFFFFFFF).to_bytes(4, "little")
        return self._wrap(LAST_BLOCK + trailer)

    def _wrap(self, data: bytes) -> bytes:
        return chunk(data) if self._chunked else data


# --- check sums ------------------------------------------------------------------------------------------------------

_POLYNOMIAL = 0xEDB88320
_LOW_BITS = 10
_ZEROS = memoryview(bytes(1 << _LOW_BITS))
_Table = tuple[tuple[int, ...], ...]


def _table(power: int) -> _Table:
    """Multiplication by a polynomial over GF(2), modulo that of CRC-32, whose highest bit stands for x^0: what each
    half byte of the other factor comes to."""
    of_bit = [0] * 32
    for bit in reversed(range(32)):
        of_bit[bit] = power
        power = power >> 1 ^ _POLYNOMIAL if power & 1 else power >> 1
    table = []
    for first in range(0, 32, 4):
        sums = [0] * 16
        for value in range(1, 16):
            low = value & -value
            sums[value] = sums[value ^ low] ^ of_bit[first + low.bit_length() - 1]
        table.append(tuple(sums))
    return tuple(table)


def _multiplied(crc: int, table: _Table) -> int:
    product = 0
    for sums in table:
        product ^= sums[crc & 15]
        crc >>= 4
    return product


def _tables(count: int) -> tuple[_Table, ...]:
    """What 2^`_LOW_BITS`, twice as many, four times as many … more bytes do to a check sum."""
    found: list[_Table] = []
    power = 1 << 23  # x^8: one byte
    for _ in range(_LOW_BITS + count):
        found.append(_table(power))
        power = _multiplied(power, found[-1])
    return tuple(found[_LOW_BITS:])


_TABLES = _tables(32)


def appended(crc: int, size: int) -> int:
    """The part that `crc`, of A, has in the check sum of AB, for any B of `size` bytes: crc(AB) = appended(crc(A),
    size of B) ^ crc(B)."""
    if not crc:
        return 0
    zeros = _ZEROS[: size & len(_ZEROS) - 1]
    crc = zlib.crc32(zeros, crc) ^ zlib.crc32(zeros)  # for a few bytes the fastest
    size >>= _LOW_BITS
    for table in _TABLES:
        if not size:
            break
        if size & 1:
            crc = _multiplied(crc, table)
        size >>= 1
    return crc
