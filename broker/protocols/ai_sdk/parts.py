"""The streamed parts of one UI message: text, reasoning, and the steps around them. Pure.

A client refuses a delta or an end without its start, and forgets at `finish-step` which parts were open: so a step only
ends when all of them have.
"""

from __future__ import annotations

from copy import copy
from typing import Any, Literal

import msgspec

from broker.protocols.kept import Kept, Shown

Chunk = dict[str, Any]
Kind = Literal["text", "reasoning"]
_DELTAS: dict[Kind, str] = {"text": "text-delta", "reasoning": "reasoning-delta"}

MAX_OPEN = 200
MAX_SAID = 1000


encode = msgspec.json.Encoder().encode


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


class Said:
    """The shown text of each incomplete message: enough to know what its completion adds."""

    def __init__(self) -> None:
        self._messages: Kept[Shown] = Kept(MAX_SAID)

    def fork(self) -> Said:
        other = Said()
        other._messages = self._messages.fork(Shown.fork)
        return other

    def add(self, message_id: str, delta: str) -> None:
        shown = self._messages.get(message_id)
        if shown is None:
            shown = Shown()
            self._messages.set(message_id, shown)
        shown.add(delta)

    def rest(self, message_id: str, text: str) -> str | None:
        """What of the complete text was not shown yet; None if what was shown is not its beginning."""
        shown = self._messages.pop(message_id)
        return text if shown is None else shown.rest(text)

    def forget(self, message_id: str) -> None:
        self._messages.pop(message_id)

    def clear(self) -> None:
        self._messages.clear()


def metadata(agent: str | None, parent_id: str | None = None) -> Chunk:
    """Who speaks, as a part's `providerMetadata`; nothing for nobody in particular."""
    known = {name: value for name, value in (("agent", agent), ("parentId", parent_id)) if value is not None}
    return {"providerMetadata": {"runcast": known}} if known else {}
