"""`processor run` with a limit on its memory: `python -m tests.chaos.victims.limited MIB run`."""

import resource
import sys

from processor.cli import main

if __name__ == "__main__":
    size_bytes = int(sys.argv.pop(1)) * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (size_bytes, size_bytes))
    main()
