"""A bounded memory of keys. Pure."""

from __future__ import annotations

from collections import OrderedDict

KEYS_REMEMBERED = 4096


class Recent:
    """The last few thousand keys."""

    def __init__(self, limit: int = KEYS_REMEMBERED) -> None:
        self._keys: OrderedDict[str, None] = OrderedDict()
        self._limit = limit

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def add(self, key: str) -> None:
        self._keys[key] = None
        if len(self._keys) > self._limit:
            self._keys.popitem(last=False)
