"""`python -m broker` is the `runcast` command."""

import sys

from broker.cli import main

sys.exit(main())
