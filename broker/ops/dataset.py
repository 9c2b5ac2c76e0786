"""Whether Redis still has the data that this edge has seen. A Redis that comes back empty answers as before. So the
edges mark the data with a random value, and remember it. Pure."""

from __future__ import annotations

import secrets

MARK_SCRIPT = """
local mark = redis.call('HGET', KEYS[1], 'mark')
if not mark then
  redis.call('HSET', KEYS[1], 'mark', ARGV[1])
  redis.call('HSET', KEYS[1], 'since', ARGV[2])
end
return mark
"""
"""Two writes make a transaction, like those of most scripts: a restart that loses transactions must lose the mark as
well."""


class Dataset:
    """`offer` is the mark for data that has none. Call `found` after every check."""

    def __init__(self) -> None:
        self.offer = secrets.token_hex(16).encode()
        self._seen: bytes | None = None

    def found(self, mark: bytes | None) -> bool:
        """Remember the mark that was there before ours was offered (`None`: there was none, and ours is set). True if
        the data is not what was seen last, so that the old data is gone."""
        mark = mark or self.offer
        is_other = self._seen is not None and mark != self._seen
        self._seen = mark
        if mark == self.offer:
            self.offer = secrets.token_hex(16).encode()  # each mark is for one set of data
        return is_other
