"""The directory of a stack: only its owner may write to it."""

import contextlib
import os
import stat
from pathlib import Path

from processor.errors import SettingsError


def claim_directory(path: Path) -> None:
    """Create the directory, or take over our own, with mode 0700.

    Raises SettingsError if it is a link, not a directory, another user's, or writable for others: its content
    is executed and trusted. A user who may rename it in its parent directory is not kept out.
    """
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        seen = "is a link or a file"
    elif status.st_uid != os.geteuid():
        seen = f"belongs to another user (uid {status.st_uid}; ours is {os.geteuid()})"
    elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        seen = f"can be written by others (mode {stat.S_IMODE(status.st_mode):04o})"
    else:
        path.chmod(0o700)
        return
    raise SettingsError(
        f"{path} {seen}; expected a directory that is ours alone, since what lies there is run and believed; "
        "remove it, or work in another directory"
    )
