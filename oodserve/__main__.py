"""`python -m oodserve`: the command `oodserve` without its entry point installed."""

import sys

from oodserve.cli import main

sys.exit(main())
