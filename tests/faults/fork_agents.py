"""Agents that fork, as agents with pools and `multiprocessing` do."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

from emitter import Agents, Context, SyncContext

agents = Agents()
fork = multiprocessing.get_context("fork")


@agents.agent("pool")
async def pool(context: Context) -> str:
    """Leaves a pool whose processes are still busy, which ends them by SIGTERM."""

    def work() -> str:
        with fork.Pool(2) as workers:
            try:
                workers.map_async(time.sleep, [60, 60]).get(timeout=0.3)
            except multiprocessing.TimeoutError:
                return "left"
        return "waited"

    return await asyncio.to_thread(work)


@agents.agent("terminate")
def terminate(context: SyncContext) -> int | None:
    """Ends a child of its own."""
    child = fork.Process(target=time.sleep, args=(60,))
    child.start()
    time.sleep(0.2)
    child.terminate()
    child.join(10)
    return child.exitcode


slow = threading.Event()
"""While it is set a child takes long to begin, as on a busy machine."""
os.register_at_fork(after_in_child=lambda: time.sleep(0.5 if slow.is_set() else 0))


@agents.agent("terminate-at-once")
def terminate_at_once(context: SyncContext) -> int | None:
    """Ends a child that has hardly begun."""
    child = fork.Process(target=time.sleep, args=(60,))
    slow.set()
    try:
        child.start()
        child.terminate()
        child.join(5)
        return child.exitcode
    finally:
        slow.clear()
        child.kill()


@agents.agent("child-alive")
async def child_alive(context: Context) -> str:
    """Works for some seconds beside a child that would live longer."""
    child = fork.Process(target=time.sleep, args=(60,), daemon=True)
    child.start()
    await context.emitter.status("working", str(child.pid))
    await asyncio.sleep(3)
    return "done"


@agents.agent("emits-in-child")
def emits_in_child(context: SyncContext) -> Any:
    """A child uses the emitter and the context of its parent; what it gets for that comes back."""
    here, there = fork.Pipe()
    child = fork.Process(target=_use, args=(context, there))
    child.start()
    said = here.recv() if here.poll(20) else ["nothing"]
    child.kill()
    child.join()
    return said


def _use(context: SyncContext, parent: Connection) -> None:
    said = []
    for call in (lambda: context.emitter.status("child", "x"), lambda: context.ask("From the child?")):
        try:
            call()
        except RuntimeError as error:
            said.append(str(error))
    parent.send(said)
