"""Search in the executions of one owner: by text, agent, state and time.

What is searched of an execution is a row: its agent, its end, and the beginning of its task and of its result or error.
An ended execution does not change, so its row is made once, when a search first comes to it, and kept in a hash (of all
executions of a day; it expires with their records). A search reads rows, and the records only of what it shows, of what
still runs, and of what no search has come to before. `append.lua` knows nothing of it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import Redis

from broker.base.problem import Problem
from emitter.events import TERMINAL_STATES
from emitter.wire.keys import Owner
from emitter.wire.record import ExecutionRecord, Field, Selection

MAX_QUERY = 200
MAX_QUERY_WORDS = 8
PART_CHARACTERS = 600
"""Of a task, and of a result, that can be found."""
DAY_MS = 86_400_000
READ_AT_ONCE = 50
"""Records whose rows are made at once: each may have a result of the size of an event."""

_BRIEF = Selection(Field.STATE, Field.AGENT)
_WHOLE = Selection(*_BRIEF.names, Field.TASK, Field.END)
_rows = msgspec.msgpack.Decoder(tuple[int, str, str, str])


class Sought(NamedTuple):
    """What is searched for. `words` are folded (`words_of`), and all must be in the text. Times are in ms, `until` not
    included."""

    state: str | None = None
    agent: str | None = None
    words: tuple[str, ...] = ()
    since: int | None = None
    until: int | None = None

    def fits(self, row: Row) -> bool:
        return (
            self.state in (None, row.state)
            and self.agent in (None, row.agent)
            and all(word in row.text for word in self.words)
        )


class Row(NamedTuple):
    """What can be found of one execution. `text` is folded, and has its id, agent, task and result."""

    created_ms: int
    state: str
    agent: str
    text: str


class Search:
    """The rows of all owners. `ttl_seconds`: how long the record of an ended execution stays."""

    def __init__(self, redis: Redis, ttl_seconds: int) -> None:
        self._redis: Any = redis
        self._ttl_seconds = ttl_seconds

    async def found(self, owner: Owner, listed: Sequence[tuple[int, str]], sought: Sought) -> list[bool]:
        """Which of these executions fit, (time of creation in ms, id) each. Raises redis errors."""
        rows = await self._rows(owner, listed, with_text=bool(sought.words))
        return [row is not None and sought.fits(row) for row in rows]

    async def _rows(self, owner: Owner, listed: Sequence[tuple[int, str]], *, with_text: bool) -> list[Row | None]:
        """None for one without a readable record."""
        pipe = self._redis.pipeline(transaction=False)
        days = [(key, list(those)) for key, those in groupby(listed, lambda each: day_key(owner, each[0]))]
        for key, those in days:
            pipe.hmget(key, [execution_id for _, execution_id in those])
        kept = [value for values in await pipe.execute() for value in values]
        found = [_kept(value, created) for value, (created, _) in zip(kept, listed, strict=True)]
        missing = [at for at, row in enumerate(found) if row is None]
        count = READ_AT_ONCE if with_text else max(1, len(missing))
        for part in (missing[at : at + count] for at in range(0, len(missing), count)):
            made = await self._make(owner, [listed[at] for at in part], with_text=with_text)
            for at, row in zip(part, made, strict=True):
                found[at] = row
        return found

    async def _make(self, owner: Owner, listed: Sequence[tuple[int, str]], *, with_text: bool) -> list[Row | None]:
        """Make rows from records; whole ones of ended executions are kept."""
        selection = _WHOLE if with_text else _BRIEF
        pipe = self._redis.pipeline(transaction=False)
        for _, execution_id in listed:
            pipe.hmget(owner.execution(execution_id).record, *selection.names)
        records = [_readable(selection, values) for values in await pipe.execute()]
        rows = [_row(*each, record) for each, record in zip(listed, records, strict=True)]
        if with_text:
            await self._keep(owner, listed, rows)
        return rows

    async def _keep(self, owner: Owner, listed: Sequence[tuple[int, str]], rows: Sequence[Row | None]) -> None:
        pipe = self._redis.pipeline(transaction=False)
        for row, (created, execution_id) in zip(rows, listed, strict=True):
            if row is not None and row.state in TERMINAL_STATES:
                pipe.hset(day_key(owner, created), execution_id, msgspec.msgpack.encode(row))
        for key in {day_key(owner, created) for created, _ in listed}:
            pipe.pexpire(key, self._ttl_seconds * 1000, nx=True)  # not renewed: no text is kept for good
        await pipe.execute()


def day_key(owner: Owner, created_ms: int) -> str:
    return owner.found(created_ms // DAY_MS)


def words_of(query: str) -> tuple[str, ...]:
    """The folded words of a query. Raises `Problem` 400 for one that is too long."""
    words = tuple(dict.fromkeys(folded(query).split()))
    if len(query) > MAX_QUERY or len(words) > MAX_QUERY_WORDS:
        raise Problem(
            400, "invalid-parameter", f"q has at most {MAX_QUERY} characters and {MAX_QUERY_WORDS} words", path="q"
        )
    return words


def folded(text: str) -> str:
    """As texts are compared: without case, and without forms that look alike (Unicode NFKC)."""
    return unicodedata.normalize("NFKC", text).casefold()


def _kept(value: bytes | None, created_ms: int) -> Row | None:
    """None for a row of another execution that had the same id, and for what another program wrote."""
    if value is None:
        return None
    try:
        row = Row(*_rows.decode(value))
    except msgspec.DecodeError:
        return None
    return row if row.created_ms == created_ms else None


def _readable(selection: Selection, values: Sequence[bytes | None]) -> ExecutionRecord | None:
    try:
        return selection.read(values)
    except ValueError:
        return None


def _row(created_ms: int, execution_id: str, record: ExecutionRecord | None) -> Row | None:
    if record is None or record.state is None:
        return None
    parts = (execution_id, record.agent, (record.task or "")[:PART_CHARACTERS], _of_end(record))
    return Row(created_ms, record.state, record.agent, folded("\n".join(parts)))


def _of_end(record: ExecutionRecord) -> str:
    """The beginning of the result or the error, without the names of fields."""
    if record.end is None:
        return ""
    try:
        data = msgspec.json.decode(record.end, type=dict[str, Any]).get("data")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    return " ".join(_begin(_texts(data)))[:PART_CHARACTERS]


def _begin(texts: Iterable[str]) -> Iterator[str]:
    left = PART_CHARACTERS
    for text in texts:
        if left <= 0:
            return
        yield text
        left -= len(text)


def _texts(value: Any) -> Iterator[str]:
    """All texts and numbers in a value, in their order."""
    waiting = [value]
    while waiting:
        match waiting.pop():
            case str(text):
                yield text
            case bool() | None:
                pass
            case int() | float() as number:
                yield str(number)
            case list(items):
                waiting += reversed(items)
            case dict(fields):
                waiting += reversed(fields.values())
