"""Requests by the rows of `access_table.py`, and what they are asked for."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from redis.asyncio import Redis

from emitter.events import InputRequired, Thinking
from emitter.store.append import LogLimits
from emitter.store.lifecycle import Lifecycle, Start
from emitter.wire.keys import Owner
from emitter.wire.redact import Redactor
from tests.abuse.access_table import Row
from tests.edges import ALL_SCOPES, Author, Connection, request, token_for, under_load

QUIET_SECONDS = 0.1
TOLD_SECONDS = 5.0
HEAD_END = "\n\n"
_numbers = itertools.count(1)


# --- who is asked for -------------------------------------------------------------------------------------------------


class Target(NamedTuple):
    """A user with an execution whose task is `marker`, of agent `matrix`, in a chat, with the open input `q`. `prepare`
    of a row adds a webhook (`push`), a waiting message (`message`), a job that this user's worker has (`job`), or an
    end (`ended`).
    `names`: what requests may call them."""

    user: str
    marker: str
    names: dict[str, str]

    @property
    def owner(self) -> Owner:
        return Owner(self.user)

    def is_in(self, text: str) -> bool:
        """Whether a text has anything of the execution."""
        return self.marker in text or self.names["id"] in text

    def fill(self, value: Any) -> Any:
        """The value, with the names in braces filled in."""
        if isinstance(value, str):
            for name, text in self.names.items():
                value = value.replace("{" + name + "}", text)
            return value
        if isinstance(value, Mapping):
            return {name: self.fill(each) for name, each in value.items()}
        return [self.fill(each) for each in value] if isinstance(value, list) else value


async def target(redis: Redis) -> Target:
    number = next(_numbers)
    user, marker, id_ = f"owner{number}", f"marker-{number}-of-the-owner", f"x-{number}-of-the-owner"
    start = Start(task=marker, agent="matrix", conversation_id=f"c{number}")
    await Lifecycle(redis, LogLimits(), Redactor()).accept(Owner(user), id_, start)
    await Author(redis, user, id_).write(Thinking(thought=marker), InputRequired(input_id="q", prompt="?", kind="text"))
    names = {"id": id_, "chatId": f"c{number}", "agent": "matrix", "config": "c", "messageId": "m1", "share": "0" * 16}
    return Target(user, marker, names)


async def state_of(redis: Redis, owner: Owner) -> bytes:
    """A digest of all that is kept of an owner's executions."""
    client: Any = redis
    digest = hashlib.sha256()
    for id_ in sorted(await client.zrange(owner.index, 0, -1)):
        keys = owner.execution(id_.decode())
        digest.update(repr(sorted((await client.hgetall(keys.record)).items())).encode())
        digest.update(repr(await client.xrange(keys.log)).encode())
    return digest.digest()


class Caller(NamedTuple):
    """`statuses`: what they must be answered, one of them; `says`: a text in the answer; `shows`: they may see it.
    `general`: one piece of code refuses them on all routes."""

    name: str
    statuses: tuple[int, ...]
    token: str | None = None
    query: str = ""
    headers: Mapping[str, str] = {}
    says: str = ""
    shows: bool = False
    general: bool = False


class Answer(NamedTuple):
    status: int
    text: str

    @property
    def end(self) -> str:
        return self.text[-300:]

    @property
    def json(self) -> Any:
        return json.loads(self.text.partition(HEAD_END)[2])


# --- asking -----------------------------------------------------------------------------------------------------------


class Asking:
    """Sends requests to one edge after the other."""

    def __init__(self, ports: Iterable[int]) -> None:
        self._ports = itertools.cycle(ports)

    async def ask(
        self, row: Row, of: Target, caller: Caller, *, method: str = "", until: Callable[[str], bool] = bool
    ) -> Answer:
        """`until`: what holds of head and body of a stream that has told what it must."""
        path = row.path
        for name, text in row.names.items():
            path = path.replace("{" + name + "}", text)
        query = "&".join(part for part in (of.fill(row.query), caller.query) if part)
        path = quote(of.fill(path), safe="/:") + (f"?{query}" if query else "")
        headers = {"Connection": "close", "Content-Type": "application/json", **of.fill(row.headers), **caller.headers}
        body = None if row.body is None else json.dumps(of.fill(row.body)).encode()
        asked = request(
            next(self._ports), method or row.method, path, caller.token, headers=headers, body=body, seconds=60
        )
        async with asked as connection:
            head = str(connection.headers) + HEAD_END
            text = b"" if method == "HEAD" else await _body(connection, lambda body: until(head + body))
            return Answer(connection.status, head + text.decode())


async def _body(connection: Connection, is_told: Callable[[str], bool]) -> bytes:
    """The body; of a stream what comes until it has told what it must, and is quiet."""
    if connection.headers.get("content-type", "").partition(";")[0] != "text/event-stream":
        async with asyncio.timeout(60):
            return await connection.body()
    text, pieces, seconds = b"", connection.pieces(), under_load(TOLD_SECONDS)
    with contextlib.suppress(TimeoutError, StopAsyncIteration):
        async with asyncio.timeout(seconds):
            while not (text and is_told(text.decode(errors="replace"))):
                text += await anext(pieces)
        while True:
            text += await asyncio.wait_for(anext(pieces), QUIET_SECONDS)
    return text


async def prepared(asking: Asking, redis: Redis, row: Row) -> Target:
    """A target with what the row needs."""
    of = await target(redis)
    me = Caller("owner", (200, 202), token_for(of.user, scopes=ALL_SCOPES))
    if row.prepare == "push":
        hook = {"id": "c", "url": "http://127.0.0.1:9/"}
        path = "POST /a2a/tasks/{id}/pushNotificationConfigs"
        answer = await asking.ask(Row(path, headers={"A2A-Version": "1.0"}, body=hook), of, me)
        assert answer.status == 200, answer
    elif row.prepare == "ended":
        await Author(redis, of.user, of.names["id"]).end()
    elif row.prepare == "message":
        say = Row("POST /api/agent/executions/{id}/messages", body={"text": of.marker, "messageId": "m1"})
        answer = await asking.ask(say, of, me)
        assert answer.status == 202, answer
    elif row.prepare == "job":
        agent, job = f"job-{of.user}", f"j-{of.user}"
        await Lifecycle(redis, LogLimits(), Redactor()).accept(of.owner, job, Start(task=of.marker, agent=agent))
        claim = {"agents": [agent], "worker": "w", "waitSeconds": 20}
        answer = await asking.ask(Row("POST /api/agent/jobs/claim", body=claim), of, me)
        assert answer.status == 200, answer
        claimed = answer.json["jobs"][0]
        of.names.update(job=job, fence=claimed["fence"], attempt=str(claimed["attempt"]))
    return of
