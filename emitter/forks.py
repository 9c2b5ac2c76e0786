"""What a forked child must not have of its parent: `multiprocessing` forks inside agents, hooks and plug-ins."""

from __future__ import annotations

import os
import signal


def leave_signals_to_this_process() -> None:
    """Give forked children the default handlers of SIGTERM and SIGINT, once for the life of this process.

    An event loop's handler writes into a socket that a child shares with its parent: a child that was told to end would
    live on, and its parent would stop in its place.
    """
    owner = os.getpid()

    def restore() -> None:
        if os.getppid() == owner:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=restore)
