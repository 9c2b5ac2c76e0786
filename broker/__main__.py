"""`python -m broker` is the `runcast` command."""

import sys

from broker.cli.main import main

sys.exit(main())
