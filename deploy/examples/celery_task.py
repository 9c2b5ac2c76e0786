"""Progress from a Celery task, or any other code that blocks: `SyncAgentEmitter` inside the task.

    pip install runcast 'celery[redis]'
    export RUNCAST_REDIS_URL=redis://localhost:6379/0
    celery -A celery_task worker                # in this folder
    python celery_task.py alice ex_42 ~/src     # queues the task; `runcast tail ex_42` watches it

Celery starts the work, retries it and ends it; Runcast only carries what it says. The execution of a process that dies
ends after `RUNCAST_UNHELD_LEASE_SECONDS`, so let Celery retry it sooner (`acks_late`, `reject_on_worker_lost`, and
shorter pauses than that). The emitter runs an event loop in a thread of its own; it is made inside the task, since a
thread does not survive Celery's fork.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from celery import Celery, Task

from emitter import SyncAgentEmitter

REDIS_URL = os.environ.get("RUNCAST_REDIS_URL", "redis://localhost:6379/0")

app = Celery("celery_task", broker=os.environ.get("CELERY_BROKER_URL", REDIS_URL))


@contextlib.contextmanager
def execution(user: str, execution_id: str, what: str, attempt: int) -> Iterator[SyncAgentEmitter]:
    """An emitter for one try of a task. The execution ends when the last try has ended: with the result that the block
    emits, or with the error that leaves it."""
    with SyncAgentEmitter(user, execution_id, attempt=attempt, end_on_error=False) as emitter:
        if attempt > 1:  # what the try before said is void, and it can say nothing more
            emitter.execution_superseded(from_seq=0, attempt=attempt)
        emitter.execution_started(what)
        try:
            yield emitter
        except OSError:
            raise  # the task tries again: see `autoretry_for`
        except Exception as error:
            emitter.execution_error(f"{type(error).__name__}: {error}")
            raise


@app.task(bind=True, autoretry_for=(OSError,), retry_backoff=1, retry_jitter=False, max_retries=3)
def count_lines(self: Task, user: str, execution_id: str, folder: str) -> dict[str, int]:
    """Count the lines of all Python files below a folder."""
    with execution(user, execution_id, f"Count lines in {folder}", attempt=1 + self.request.retries) as emitter:
        files = sorted(Path(folder).expanduser().rglob("*.py"))
        lines = 0
        with emitter.phase("count", "Count"):
            for number, file in enumerate(files, 1):
                with emitter.tool("read_file", {"path": str(file)}) as call:
                    call.result = {"lines": len(file.read_bytes().splitlines())}
                lines += call.result["lines"]
                emitter.progress(100 * number / len(files), current_action=file.name)
        result = {"files": len(files), "lines": lines}
        emitter.execution_complete(result)
        return result


if __name__ == "__main__":
    count_lines.delay(*sys.argv[1:4])
