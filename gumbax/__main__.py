"""`python -m gumbax` is the command `gumbax`."""

import sys

from gumbax.search.command.cli import main

if __name__ == "__main__":
    sys.exit(main())
