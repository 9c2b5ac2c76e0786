"""Signal handlers that a forked child must not inherit: `multiprocessing` forks inside agents and hooks."""

from __future__ import annotations

import os
import signal
import threading


def leave_signals_to_this_process() -> None:
    """Give forked children the default handlers of SIGTERM and SIGINT, once for the life of this process.

    An event loop's handler writes into a socket that a child shares with its parent: a SIGTERM to the child would stop
    the parent instead. The signals are blocked during the fork, until the child has its own handlers.
    """
    owner = os.getpid()
    kept = threading.local()

    def hold() -> None:
        if os.getpid() == owner:
            kept.mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))

    def release() -> None:
        if (mask := kept.__dict__.pop("mask", None)) is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def restore() -> None:
        if os.getppid() == owner:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
        release()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=hold, after_in_parent=release, after_in_child=restore)
