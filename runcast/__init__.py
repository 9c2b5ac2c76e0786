"""Runcast's public names: `from runcast import Agents` is `from emitter import Agents`, and loads what that loads.

`runcast.events`, `.errors`, `.testing` and `.integrations` are those of `emitter`, too.
"""

from typing import TYPE_CHECKING, Any

import emitter

if TYPE_CHECKING:
    from emitter import *  # noqa: F403

__all__ = emitter.__all__


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(emitter, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
