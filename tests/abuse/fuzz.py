"""Fuzzes for as long as you like: `python -m tests.abuse.fuzz [--seconds 600] [--seed N] [NAME …]`.

The fuzzers take turns. What fails is printed with the smallest input that Hypothesis finds, and the round's seed; the
exit status is then 1.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import time
import traceback

from tests.abuse import fuzzers, fuzzers_browser  # noqa: F401 - they add to `FUZZERS`
from tests.abuse.fuzzing import FUZZERS, ROUND, run


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz what reads input of others.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which (default: all of {', '.join(FUZZERS)})")
    parser.add_argument("--seconds", type=float, default=600, help="how long, all together (600)")
    parser.add_argument("--seed", type=int, help="of the first run that is to be repeated")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(FUZZERS):
        parser.error(f"no fuzzer {', '.join(sorted(unknown))}; there are {', '.join(FUZZERS)}")
    seed = random.getrandbits(32) if arguments.seed is None else arguments.seed
    dice, until, rounds = random.Random(seed), time.monotonic() + arguments.seconds, 0
    print(f"seed {seed}", flush=True)
    failed = 0
    with contextlib.ExitStack() as stack:
        fuzzers = {name: stack.enter_context(FUZZERS[name]()) for name in arguments.names or FUZZERS}
        while fuzzers and time.monotonic() < until:
            for name in list(fuzzers):
                round_seed = dice.getrandbits(32)
                rounds += 1
                try:
                    run(fuzzers[name], ROUND, round_seed)
                except Exception:
                    traceback.print_exc()
                    print(f"{name} failed in the round of seed {round_seed}; it goes on without it", flush=True)
                    failed += 1
                    del fuzzers[name]
    print(f"{rounds} rounds of {ROUND} examples, {failed} failures")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
