"""Delivers what webhooks ask for: at least once, and of each webhook in the order of its log.

The life of a webhook here: its time comes, or a message wakes it; this edge takes it with a lease; it reads the log
from the webhook's cursor on; each event that is asked for is posted, and the cursor is written when the receiver has
taken it; at the log's end the webhook is given back, or forgotten if the log is closed. A message that is posted again,
by this edge or by one that takes over, has the same `webhook-id`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime

import msgspec
from msgspec.structs import replace
from redis.asyncio import Redis
from redis.exceptions import RedisError

from broker.base.logging import get_logger
from broker.base.metrics import Metrics
from broker.base.reasons import WebhookResult
from broker.base.targets import ForbiddenTarget, Target
from broker.log.history import History, Page
from broker.webhooks.lanes import Lane, Lanes
from broker.webhooks.sender import Outcome, Sender
from emitter import tasks
from emitter.errors import InvalidEvent, RuncastError
from emitter.events import TERMINAL_TYPES
from emitter.store import webhooks
from emitter.store.connection import GONE
from emitter.wire.entries import Entry
from emitter.wire.ids import now_ms
from emitter.wire.keys import Owner
from emitter.wire.record import ExecutionRecord
from emitter.wire.webhooks import FOR_ALL, Delivery, Form, Name, Webhook, origin_of, woken

AT_ONCE = 256
"""Webhooks that one edge has at a time."""
BATCH = 64
"""Of them, for what is due: however many are woken."""
WANTED = 10_000
"""Of which one edge remembers that they were woken. More are found at their next check."""
LEASE_MS = 30_000
RENEW_SECONDS = 8.0
TICK_SECONDS = 1.0
FIRST_RETRY, LONGEST_RETRY = 5.0, 300.0
AWAY_MS = 1_000
"""When a webhook is looked at again that this edge could not look at."""

Make = Callable[[Owner, str, Entry], Awaitable[bytes]]
"""Makes the body for an event of an execution, in another protocol's form."""


class _Replaced(Exception):
    """Somebody has replaced or removed the webhook since it was read."""


class Deliveries:
    """Owned by an edge: `async with` it, and give `on_message` what comes on `WEBHOOKS_WAKE`. `url`: where the events
    of every execution go. `forms`: the bodies of other protocols."""

    def __init__(
        self,
        redis: Redis,
        history: History,
        sender: Sender,
        metrics: Metrics,
        edge: str,
        *,
        url: str,
        retry_hours: float,
        forms: Mapping[Form, Make],
        lease_ms: int = LEASE_MS,
    ) -> None:
        self._redis = redis
        self._history = history
        self._sender = sender
        self._metrics = metrics
        self._edge = edge
        self._url = url
        self._retry_ms = int(retry_hours * 3_600_000)
        self._forms = forms
        self._lease_ms = lease_ms
        self._log = get_logger()
        self._lanes = Lanes()
        self._held: dict[str, asyncio.Task[None]] = {}
        self._known: dict[str, bytes] = {}
        """Those that are held, as they were read: what becomes of them is saved for these."""
        self._woken: dict[str, None] = {}
        """Of these something was logged since they were read."""
        self._wanted: dict[str, None] = {}
        """Somebody should take these."""
        self._look = asyncio.Event()

    async def __aenter__(self) -> Deliveries:
        self._tasks = [
            asyncio.create_task(self._take(), name="webhooks"),
            asyncio.create_task(self._renew(), name="webhook-leases"),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        """What is under way stays where it was: another edge takes it at once."""
        await tasks.end(self._tasks)
        held = list(self._held)
        await tasks.end(self._held.values())
        with contextlib.suppress(RedisError, *GONE):
            for name in held:
                await webhooks.release(self._redis, self._edge, name, 0)

    def on_message(self, message: bytes) -> None:
        for name in woken(message):
            if name.member in self._held:
                self._woken[name.member] = None
            elif len(self._wanted) < WANTED:
                self._wanted[name.member] = None
                self._look.set()

    # --- which webhooks ----------------------------------------------------------------------------------------------

    async def _take(self) -> None:
        while True:
            is_more = False
            try:
                is_more = await self._take_some()
            except (RedisError, *GONE) as error:
                self._log.warning("webhooks_not_read", error=type(error).__name__)
                self._look.clear()
            if is_more and len(self._held) < AT_ONCE:
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_SECONDS * random.uniform(0.8, 1.2)):
                    await self._look.wait()

    async def _take_some(self) -> bool:
        """Whether there may be more."""
        self._look.clear()
        wanted = list(itertools.islice(self._wanted, max(0, AT_ONCE - BATCH - len(self._held))))
        if wanted:
            self._start(await webhooks.take(self._redis, self._edge, self._lease_ms, wanted))
            for name in wanted:
                del self._wanted[name]
        room = min(BATCH, AT_ONCE - len(self._held))
        if room <= 0:
            return False
        found = await webhooks.take_due(self._redis, self._edge, self._lease_ms, room)
        self._start(found)
        self._metrics.webhooks_held.set(len(self._held))
        return len(found) == room or (bool(self._wanted) and len(self._held) < AT_ONCE - BATCH)

    def _start(self, names: list[str]) -> None:
        for name in names:
            if name not in self._held:
                task = self._held[name] = asyncio.create_task(self._look_after(name), name="webhook")
                task.add_done_callback(lambda _, name=name: self._done(name))  # type: ignore[misc]

    def _done(self, name: str) -> None:
        del self._held[name]
        self._known.pop(name, None)
        if name in self._woken:  # since it has read its log for the last time
            del self._woken[name]
            self._wanted[name] = None
        self._look.set()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(min(RENEW_SECONDS, self._lease_ms / 4000))
            held = dict(self._held)
            try:
                lost = await webhooks.renew(self._redis, self._edge, self._lease_ms, list(held)) if held else []
            except (RedisError, *GONE) as error:
                self._log.warning("webhooks_not_renewed", error=type(error).__name__)
                continue
            for name in lost:
                if self._held.get(name) is held[name]:  # and not given back, and taken again
                    held[name].cancel()  # another edge has it

    # --- one webhook -------------------------------------------------------------------------------------------------

    async def _look_after(self, member: str) -> None:
        try:
            name = Name.parse(member)
            found = await webhooks.read(self._redis, name.owner, name.execution_id, [name.hook_id])
            hook = self._hook(name, found)
            self._known[member] = found.webhooks.get(name.hook_id, b"*")
            if hook is None or not found.exists:
                await webhooks.forget(self._redis, self._edge, member)
            else:
                await self._deliver(name, hook, _progress(name, found))
        except (RedisError, *GONE, TimeoutError) as error:
            self._log.warning("webhook_not_looked_after", error=type(error).__name__)
            await self._give_back(member, AWAY_MS)
        except _Replaced:
            await self._give_back(member, 0)
        except InvalidEvent:
            await webhooks.forget(self._redis, self._edge, member)
        except Exception:  # the last resort: one record must not end the others' deliveries
            self._log.exception("webhook_crashed")
            await self._give_back(member, webhooks.CHECK_MS)

    async def _give_back(self, member: str, after_ms: int) -> None:
        with contextlib.suppress(RedisError, *GONE):  # then its lease ends
            await webhooks.release(self._redis, self._edge, member, after_ms, waits=True)

    async def _save(self, name: Name, progress: Delivery, kept: Webhook | None = None) -> None:
        """Raises `_Replaced`: nothing was written."""
        if not await webhooks.save(self._redis, name, progress, kept, known=self._known[name.member]):
            raise _Replaced

    def _hook(self, name: Name, found: ExecutionRecord) -> Webhook | None:
        if name.hook_id == FOR_ALL:
            return Webhook(url=self._url) if self._url else None
        try:
            return msgspec.json.decode(found.webhooks[name.hook_id], type=Webhook)
        except (KeyError, msgspec.MsgspecError):
            return None

    async def _deliver(self, name: Name, hook: Webhook, progress: Delivery) -> None:
        """Everything up to the end of the log, or up to the first event that the receiver does not take."""
        if progress.state != "open":
            await webhooks.forget(self._redis, self._edge, name.member)
            return
        execution, start = name.owner.execution(name.execution_id), progress
        types = frozenset(each.encode() for each in hook.events)
        while True:
            self._woken.pop(name.member, None)
            page = await self._history.read(execution.log, progress.after, record=execution.record, shared=False)
            entries = await self._entries(name, page)
            for entry in entries:
                if entry.type in types and entry.seq >= progress.from_seq:
                    taken = await self._try(name, hook, progress, entry)
                    if taken is None:
                        return
                    start = progress = taken
            progress = replace(progress, cursor=str(page.cursor))
            if page.closed or (entries and entries[-1].type in TERMINAL_TYPES):
                await self._finish(name, hook, replace(progress, state="done"))
                return
            if page.end and name.member not in self._woken:
                break
        if progress != start:
            await self._save(name, progress)
        await webhooks.release(self._redis, self._edge, name.member, webhooks.CHECK_MS)

    async def _entries(self, name: Name, page: Page) -> list[Entry]:
        """Of a page; where the log is gone the end, which the record keeps."""
        entries = list(page.entries)
        if page.reset is None:
            return entries
        self._metrics.webhooks[WebhookResult.LOST].inc()
        about = {"execution": name.execution_id, "webhook": name.hook_id, "reason": page.reset.reason}
        self._log.warning("webhook_events_lost", **about)
        execution = name.owner.execution(name.execution_id)
        end = await self._history.terminal_event(execution.log, execution.record)
        return entries if end is None else [*entries, end._replace(type=_type_of(end))]

    async def _try(self, name: Name, hook: Webhook, progress: Delivery, entry: Entry) -> Delivery | None:
        """Post one event. How far the webhook is now; None if it was given back."""
        try:
            target = self._sender.target(hook.url)
        except ForbiddenTarget as error:
            outcome = Outcome(taken=False, error=f"forbidden: {error}")
            return await self._judge(name, hook, progress, entry, outcome, "")
        mine = self._lanes_of(name.owner, target)
        at_receiver = mine[0]  # what hangs for one user is closed for no other: many have addresses at one host
        if wait := at_receiver.closed_for(time.monotonic()):
            waiting = replace(progress, since_ms=progress.since_ms or now_ms(), error="its receiver is away")
            await self._postpone(name, hook, waiting, int(wait * 1000), target.host)
            return None
        if later := await _enter(mine):
            await self._save(name, progress)
            await webhooks.release(self._redis, self._edge, name.member, int(later * 1000), waits=True)
            return None
        started = time.monotonic()
        try:
            outcome = await self._post(name, hook, entry)
        finally:
            for lane in mine:
                lane.leave(time.monotonic() - started)
        at_receiver.note(time.monotonic(), is_away=outcome.is_away)
        self._metrics.webhook_duration.observe(time.monotonic() - started)
        return await self._judge(name, hook, progress, entry, outcome, target.host)

    def _lanes_of(self, owner: Owner, target: Target) -> list[Lane]:
        """All through which a delivery goes; that of the user at the receiver is the first, and the one that all users
        share the last: a place there must not wait for one of the user's own."""
        user = f"{owner.org}:{owner.user}"
        names = {"user at receiver": f"{user}:{target.origin}", "user": user, "receiver": target.origin}
        return [self._lanes.of(kind, name) for kind, name in names.items()]

    async def _post(self, name: Name, hook: Webhook, entry: Entry) -> Outcome:
        try:
            body = await self._body(name, hook, entry)
        except (RuncastError, ValueError, KeyError, msgspec.MsgspecError):  # another program may have written the event
            self._log.exception("webhook_not_made", execution=name.execution_id, event_id=str(entry.id))
            return Outcome(taken=False, error="it cannot be shown")
        return await self._sender.post(hook.url, message_id(name, entry), body, hook.headers)

    async def _body(self, name: Name, hook: Webhook, entry: Entry) -> bytes:
        if hook.form == "runcast":
            return body_of(entry)
        return await self._forms[hook.form](name.owner, name.execution_id, entry)

    async def _judge(
        self, name: Name, hook: Webhook, progress: Delivery, entry: Entry, outcome: Outcome, host: str
    ) -> Delivery | None:
        if outcome.taken:
            self._metrics.webhooks[WebhookResult.DELIVERED].inc()
            self._metrics.webhook_delay.observe(max(0, now_ms() - entry.ms) / 1000)
            taken = Delivery(cursor=str(entry.id), from_seq=progress.from_seq, delivered=progress.delivered + 1)
            await self._save(name, taken)
            return taken
        about = {"execution": name.execution_id, "webhook": name.hook_id, "host": host, "error": outcome.error}
        if outcome.is_gone:
            self._metrics.webhooks[WebhookResult.GONE].inc()
            self._log.warning("webhook_gone", **about)
            await self._finish(name, hook, replace(progress, state="gone", error=outcome.error))
            return None
        self._metrics.webhooks[WebhookResult.RETRIED].inc()
        self._log.info("webhook_refused", event_id=str(entry.id), tries=progress.tries + 1, **about)
        failed = replace(
            progress, since_ms=progress.since_ms or now_ms(), tries=progress.tries + 1, error=outcome.error
        )
        pause = max(outcome.retry_after, min(LONGEST_RETRY, FIRST_RETRY * 2 ** min(progress.tries, 16)))
        await self._postpone(name, hook, failed, int(pause * random.uniform(0.8, 1.2) * 1000), host)
        return None

    async def _postpone(self, name: Name, hook: Webhook, progress: Delivery, ms: int, host: str) -> None:
        """Give the webhook back until later, or up if its receiver has taken nothing for too long."""
        left = progress.since_ms + self._retry_ms - now_ms()
        if left <= 0:
            self._metrics.webhooks[WebhookResult.FAILED].inc()
            self._log.error(
                "webhook_failed",
                execution=name.execution_id,
                user=name.owner.user,
                org=name.owner.org,
                webhook=name.hook_id,
                host=host,
                error=progress.error,
                tries=progress.tries,
                delivered=progress.delivered,
            )
            await self._finish(name, hook, replace(progress, state="failed"))
            return
        await self._save(name, progress)
        await webhooks.release(self._redis, self._edge, name.member, min(ms, left + 1), waits=True)

    async def _finish(self, name: Name, hook: Webhook, progress: Delivery) -> None:
        """Nothing more is delivered: its secrets go."""
        kept = None if name.hook_id == FOR_ALL else replace(hook, headers={}, url=origin_of(hook.url))
        await self._save(name, progress, kept)
        await webhooks.forget(self._redis, self._edge, name.member)


async def _enter(lanes: Sequence[Lane]) -> float:
    """Take a place in each: 0, or after how many seconds to come again, with none taken."""
    entered: list[Lane] = []
    try:
        for lane in lanes:
            if later := await lane.enter(time.monotonic()):
                return later
            entered.append(lane)
        entered = []
        return 0.0
    finally:
        for lane in entered:
            lane.leave()


def _progress(name: Name, found: ExecutionRecord) -> Delivery:
    try:
        progress = msgspec.json.decode(found.deliveries[name.hook_id], type=Delivery)
        progress.after  # noqa: B018 - raises for what is none
    except (KeyError, ValueError):
        return Delivery()
    return progress


def message_id(name: Name, entry: Entry) -> str:
    """The same for each try of one event for one webhook. Without a full stop, which the signature has between its
    parts."""
    text = f"{name.member} {entry.ms}-{entry.seq}"
    return "msg_" + hashlib.sha256(text.encode()).hexdigest()[:32]


class _Head(msgspec.Struct):
    type: str
    ts: int


_heads = msgspec.json.Decoder(_Head)


def body_of(entry: Entry) -> bytes:
    """`{type, timestamp, data}` with the event as in the log."""
    head = _heads.decode(entry.json)
    moment = datetime.fromtimestamp(head.ts / 1000, tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    lead = b'{"type":%b,"timestamp":"%b","data":' % (msgspec.json.encode(head.type), moment.encode())
    return lead + entry.json + b"}"


def _type_of(entry: Entry) -> bytes:
    return _heads.decode(entry.json).type.encode()
