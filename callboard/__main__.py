"""`python -m callboard`: the command line, also for child processes, which are started in this way."""

import sys

from callboard.cli import main

if __name__ == "__main__":
    sys.exit(main())
