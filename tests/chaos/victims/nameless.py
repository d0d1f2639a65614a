"""`processor run` without DNS while a file exists: `python -m tests.chaos.victims.nameless FILE run`.

Otherwise every name under `.test` is this machine's.
"""

import socket
import sys
from pathlib import Path
from typing import Any

from processor.cli import main

resolve = socket.getaddrinfo


def forget_names_while(file: Path) -> None:
    """Answer as a resolver that knows no `.test` while the file exists."""

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        if not str(host).endswith(".test"):
            return resolve(host, *args, **kwargs)
        if file.exists():
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return resolve("127.0.0.1", *args, **kwargs)

    socket.getaddrinfo = getaddrinfo


if __name__ == "__main__":
    forget_names_while(Path(sys.argv.pop(1)))
    main()
