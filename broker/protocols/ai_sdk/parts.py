"""The streamed parts of one UI message: text, reasoning, and the steps around them. Pure.

A client refuses a delta or an end without its start, and forgets at `finish-step` which parts were open: so a step only
ends when all of them have.
"""

from __future__ import annotations

from copy import copy
from typing import Any, Literal

import msgspec

Chunk = dict[str, Any]
Kind = Literal["text", "reasoning"]
_DELTAS: dict[Kind, str] = {"text": "text-delta", "reasoning": "reasoning-delta"}

MAX_OPEN = 200
MAX_AGAIN = 1024
"""Characters of a value that are said again when something else in its data part changes, which is sent as a whole. The
beginning of a text stays, with an ellipsis."""

encode = msgspec.json.Encoder().encode


def short(value: Any) -> Any:
    """What is kept of a part's value to be said again when another of its values changes."""
    if isinstance(value, str):
        return value if len(value) <= MAX_AGAIN else value[: MAX_AGAIN - 1] + "…"
    is_large = isinstance(value, dict | list) and len(encode(value)) > MAX_AGAIN
    return {"clipped": True} if is_large else value


class Parts:
    """Opens a part with its first delta. What somebody (`speaker`) says ends when he does something else, so that the
    parts of a message stand in the order of what happened.

    Each part has an id that no other one has: `WorkflowChatTransport` (`@ai-sdk/workflow` 2.0.43) leaves out a part
    with the id of one that ended in the same step."""

    def __init__(self, frames: list[bytes]) -> None:
        """What is to be sent is added to `frames`, as JSON."""
        self._frames = frames
        self._open: dict[tuple[Kind, str], tuple[str, str | None]] = {}
        """What is written → its id as a part, and who writes it."""
        self._begun = 0
        self._in_step = False
        self._boundary = False
        self.any_text = False
        self.any_shown = False

    def fork(self, frames: list[bytes]) -> Parts:
        """Another one in the same state."""
        other = copy(self)
        other._frames = frames
        other._open = dict(self._open)
        return other

    def _put(self, chunk: Chunk) -> None:
        self._frames.append(encode(chunk))

    def delta(self, kind: Kind, id_: str, text: str, speaker: str | None, parent_id: str | None = None) -> None:
        if (kind, id_) not in self._open:
            self._start(kind, id_, speaker, parent_id)
        self._put({"type": _DELTAS[kind], "id": self._open[kind, id_][0], "delta": text})

    def _start(self, kind: Kind, id_: str, speaker: str | None, parent_id: str | None) -> None:
        self.interrupt(speaker, but=kind)
        self.step()
        if len(self._open) == MAX_OPEN:
            self.end(*next(iter(self._open)))
        self._begun += 1
        part_id = f"{id_}.{self._begun}"
        self._open[kind, id_] = (part_id, speaker)
        self.any_shown = True
        self.any_text = self.any_text or kind == "text"
        self._put({"type": f"{kind}-start", "id": part_id, **metadata(speaker, parent_id)})

    def end(self, kind: Kind, id_: str) -> None:
        """End a part, if it is open."""
        if known := self._open.pop((kind, id_), None):
            self._put({"type": f"{kind}-end", "id": known[0]})

    def whole(self, kind: Kind, id_: str, text: str, speaker: str | None) -> None:
        self.delta(kind, id_, text, speaker)
        self.end(kind, id_)

    def interrupt(self, speaker: str | None, but: Kind | None = None) -> None:
        """End what a speaker has open, of all kinds or all but one."""
        theirs = [key for key, (_, who) in self._open.items() if who == speaker and key[0] != but]
        for kind, id_ in theirs:
            self.end(kind, id_)

    def step(self) -> None:
        """What comes next belongs to a step: to a new one after a boundary, unless text is open across it."""
        if self._boundary and not self._open:
            self._finish_step()
        if not self._in_step:
            self._in_step = True
            self._put({"type": "start-step"})

    def boundary(self) -> None:
        """A phase begins or ends here."""
        self._boundary = True

    def close(self) -> None:
        """End all that is open, and the step."""
        for kind, id_ in list(self._open):
            self.end(kind, id_)
        self._finish_step()

    def _finish_step(self) -> None:
        self._boundary = False
        if self._in_step:
            self._in_step = False
            self._put({"type": "finish-step"})


def metadata(agent: str | None, parent_id: str | None = None) -> Chunk:
    """Who speaks, as a part's `providerMetadata`; nothing for nobody in particular."""
    known = {name: value for name, value in (("agent", agent), ("parentId", parent_id)) if value is not None}
    return {"providerMetadata": {"runcast": known}} if known else {}
