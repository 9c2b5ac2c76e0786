"""`runcast` and `python` for the shell of the pages, without the second that an interpreter takes to import everything.

`python -m tests.docs.interpreters PORT` has imported it, and forks for each command. `SHELL_FUNCTIONS` stand for both
in the shell; their arguments, environment, output and status are those of the real ones.
"""

from __future__ import annotations

import os
import runpy
import signal
import socket
import sys
import warnings
from typing import NoReturn

SHELL_FUNCTIONS = r"""
_ask() {
  local connection answer name
  exec {connection}<>/dev/tcp/127.0.0.1/$INTERPRETERS_PORT
  for name in "${!RUNCAST_@}"; do printf '%s=%s\0' "$name" "${!name}" >&$connection; done
  printf '%s\0' "$@" >&$connection; printf '\0\n' >&$connection
  answer=$(cat <&$connection)
  exec {connection}>&-
  printf '%s' "${answer%?status *}"
  return "${answer##*status }"
}
runcast() { _ask runcast "$@"; }
python() { _ask python "$@"; }
"""
END = b"\0\0\n"


def serve(port: int) -> NoReturn:
    import pytest  # noqa: F401

    import broker.cli.main  # noqa: F401
    import emitter.testing
    from emitter import AgentEmitter, SyncAgentEmitter  # noqa: F401

    assert emitter.testing
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.create_server(("127.0.0.1", port), backlog=16) as server:
        while True:
            connection, _ = server.accept()
            with connection:
                if os.fork() == 0:
                    server.close()
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    _answer(connection)


def _answer(connection: socket.socket) -> NoReturn:
    """Run the command in this process, with the connection as its output."""
    asked = b""
    while not asked.endswith(END):
        asked += connection.recv(65_536)
    words = asked.removesuffix(END).decode().split("\0")
    while words[0].startswith("RUNCAST_"):
        name, _, value = words.pop(0).partition("=")
        os.environ[name] = value
    program, *arguments = words
    for output in (1, 2):
        os.dup2(connection.fileno(), output)
    # Anew: those of the parent take their file for one that can seek.
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, buffering=1)  # noqa: SIM115
    status = 1
    try:
        status = _run(program, arguments)
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(1, f"\nstatus {status}".encode())
        os._exit(0)


def _run(program: str, arguments: list[str]) -> int:
    if program == "runcast":
        from broker.__main__ import main

        sys.argv = ["runcast", *arguments]
        return int(main() or 0)
    warnings.simplefilter("default")
    sys.path.insert(0, str(os.getcwd()))  # noqa: PTH109
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")
    return 0


if __name__ == "__main__":
    serve(int(sys.argv[1]))
