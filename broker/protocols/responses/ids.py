"""The names of responses and of their items. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from emitter.wire.ids import EXECUTION_ID

_ORDINAL = re.compile(r"0|[1-9][0-9]{0,14}", re.ASCII)


class ResponseId(NamedTuple):
    """`resp_<execution>_<ordinal>`: what an execution does after the event of this ordinal, up to its next question or
    its end; 0 is its beginning."""

    execution_id: str
    after: int = 0

    def __str__(self) -> str:
        return f"resp_{self.execution_id}_{self.after}"

    @classmethod
    def parse(cls, text: str) -> ResponseId | None:
        """None for what is not one of ours."""
        execution_id, _, after = text.removeprefix("resp_").rpartition("_")
        is_ours = text.startswith("resp_") and EXECUTION_ID.match(execution_id) and _ORDINAL.fullmatch(after)
        return cls(execution_id, int(after)) if is_ours else None


def item_id(kind: str, execution_id: str, seq: int) -> str:
    """Of the item of this kind that begins with the event of this ordinal: the same on every edge."""
    return f"{kind}_{execution_id}_{seq}"
