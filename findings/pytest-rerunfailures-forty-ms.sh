#!/usr/bin/env bash
# With pytest-rerunfailures and pytest-xdist each test takes 40 ms more, also if none fails.
#
# Seen with pytest-rerunfailures 16.7, pytest 9.0.2, pytest-xdist 3.8.0 and Python 3.11 on Linux. As soon as there are
# several processes and `--reruns`, a process tells the first one of each test over TCP: a message that wants no answer,
# and at once another that does. Nagle's algorithm holds the second back until the first is acknowledged, which the
# kernel puts off for 40 ms, on the loopback as well. The tests' durations do not show it. With TCP_NODELAY on that
# socket (a conftest.py can set it: it is `config.failures_db.sock`) the delay is gone. A hundred tests that do nothing:
# 133 ms, with `--reruns` 4395 ms, with that option too 153 ms. A good guess would have been that second tries cost
# nothing where nothing fails, as it is with one process.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/home"
"$folder/home/bin/pip" install --quiet --disable-pip-version-check \
  pytest==9.0.2 pytest-xdist==3.8.0 pytest-rerunfailures==16.7
mkdir "$folder/tests"
cat >"$folder/tests/test_many.py" <<'PY'
import time
from pathlib import Path

import pytest


@pytest.mark.parametrize("number", range(100))
def test_nothing(number):
    with (Path(__file__).parents[1] / "times").open("a" if number else "w") as file:
        print(time.monotonic(), file=file)
PY
cat >"$folder/tests/conftest.py" <<'PY'
import os
import socket

import pytest


@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    if os.environ.get("NODELAY") and hasattr(config, "workerinput"):
        config.failures_db.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
PY
cd "$folder/tests"
milliseconds() { # of the hundred tests: from the start of the first to the end of the last
  "$folder/home/bin/python" -m pytest -q -p no:cacheprovider "$@" >/dev/null
  "$folder/home/bin/python" -c 'import sys; t = [float(s) for s in open(sys.argv[1])]; print(round(1000 * (t[-1] - t[0])))' \
    "$folder/times"
}
plain=$(milliseconds -n 1)
alone=$(milliseconds -n 0 --reruns 1)
reruns=$(milliseconds -n 1 --reruns 1)
nodelay=$(NODELAY=1 milliseconds -n 1 --reruns 1)
echo "a hundred tests: $plain ms; --reruns, one process: $alone ms; --reruns, -n 1: $reruns ms; with TCP_NODELAY: $nodelay ms"
[ "$plain" -lt 2000 ] && [ "$alone" -lt 2000 ] && [ "$reruns" -gt 3500 ] && [ "$nodelay" -lt 2000 ]
