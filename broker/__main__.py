"""`runcast`, also as `python -m broker`: a worker needs the base package only, everything else an extra that may be
missing."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from emitter.__main__ import main as worker_main

WORKER = "worker"
MISSING = """runcast: this command needs the broker's libraries (there is no {name}): pip install 'runcast[broker]'
`runcast worker MODULE:AGENTS`, which runs agents, works without them.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. 0 is success, 1 that something failed, 2 that the command or a setting was wrong."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == [WORKER]:
        return worker_main(arguments[1:])
    try:
        from broker.cli.main import main as command
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("broker", "emitter"):
            raise
        sys.stderr.write(MISSING.format(name=error.name))
        return 2
    return command(arguments)


if __name__ == "__main__":
    sys.exit(main())
