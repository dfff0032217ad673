"""``python -m selfheal_cli.serve.healer``: what a server starts, and starts again."""

import sys

from selfheal_cli.serve.healer.process import main

if __name__ == "__main__":
    sys.exit(main())
