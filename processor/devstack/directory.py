"""The directory of a stack, into which nobody but us may have put anything."""

import contextlib
import os
import stat
from pathlib import Path

from processor.errors import SettingsError


def claim_directory(path: Path) -> None:
    """Make the directory, or take over one of ours, with mode 0700.

    Raises SettingsError if it is a link, no directory, somebody else's, or could be written by others: what
    lies there would be run and believed. Whoever may rename it in the directory above can do that still.
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
