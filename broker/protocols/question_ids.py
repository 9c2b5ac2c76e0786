"""The name of a question for clients that send nothing but it with the answer. Pure."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from emitter.wire.ids import EXECUTION_ID, INPUT_ID

SEQ = re.compile(r"[1-9][0-9]{0,14}", re.ASCII)


class QuestionId(NamedTuple):
    """`<execution>:<ordinal>:<input>`; the ordinal is that of the event that asks, or of a message to the agent after
    which it is asked again: of two parts with one id, `ai` 6.0.326 and 7.0.173 answer the first. What follows it is
    what follows the answer."""

    execution_id: str
    seq: int
    input_id: str

    def __str__(self) -> str:
        return f"{self.execution_id}:{self.seq}:{self.input_id}"

    @classmethod
    def parse(cls, text: Any) -> QuestionId | None:
        """None for what is not one of ours."""
        execution_id, _, rest = text.partition(":") if isinstance(text, str) else ("", "", "")
        seq, _, input_id = rest.partition(":")
        is_ours = EXECUTION_ID.match(execution_id) and SEQ.fullmatch(seq) and INPUT_ID.match(input_id)
        return cls(execution_id, int(seq), input_id) if is_ours else None
