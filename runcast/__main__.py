"""`python -m runcast` is the command `runcast`."""

import sys

from broker.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
