"""Repairs first lines of installed scripts: `python -m processor.devstack.launchers`, run by `make setup`.

awslocal and aws are installed as plain scripts, with the interpreter's path after `#!`. The kernel ends that
path at the first space, so in a checkout below a folder such as `my work` they can't be run at all.
"""

import sys
from pathlib import Path

_LENGTH_MAX = 127  # bytes that Linux reads of the first line


def mend(folder: Path) -> list[str]:
    """Let a shell start those scripts in a venv's `bin` that the kernel can't; returns their names."""
    mended = []
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or not path.is_file():
            continue
        first, _, rest = path.read_bytes().partition(b"\n")
        if first.startswith(f"#!{folder}/python".encode()) and (b" " in first or len(first) > _LENGTH_MAX):
            interpreter = first.removeprefix(b"#!").decode().replace('"', '\\"')
            # For the shell, the second line starts Python on this file; for Python it is an unused string.
            start = f"#!/bin/sh\n'''exec' \"{interpreter}\" \"$0\" \"$@\"\n' '''\n"
            path.write_bytes(start.encode() + rest)
            mended.append(path.name)
    return mended


if __name__ == "__main__":
    mend(Path(sys.executable).parent)
