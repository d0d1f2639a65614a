"""Export: lines go to a file instead of a sink, one JSON object per line, and are marked once durable.

The file appears whole or not at all, and an existing file is never overwritten. After a crash between the
file and the marks, the next file has the same lines again, under the same keys.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg

from processor.errors import SettingsError
from processor.handover import batches
from processor.handover.lines import Amounts
from processor.runtime.escaping import json_bytes_escaped


def export(connection: psycopg.Connection[Any], to: Path | None, amounts: Amounts) -> int:
    """Write all waiting lines to a new file, or to standard output (None), then mark and count them.

    Without waiting lines no file is made. Raises SettingsError if the file exists or can't be written;
    no line is marked then.
    """
    found = batches.find_all(connection)
    with connection.transaction():
        claimed = batches.claim(connection, found)
        lines = [line.json(amounts) for batch in claimed for line in batch.lines]
        if lines:
            _write(to, (line + b"\n" for line in lines))
        # Only now: the lines are on disk.
        for batch in claimed:
            batches.accept(connection, batch)
    return len(lines)


def require_new(path: Path) -> None:
    """Raise SettingsError if the file exists already, or its directory does not."""
    if os.path.lexists(path):
        raise SettingsError(
            f"{path} is there already; expected a new file, since what was handed over is kept"
        )
    if not path.parent.is_dir():
        raise SettingsError(f"the directory of {path} does not exist; expected one to write the lines into")


def _write(to: Path | None, lines: Iterator[bytes]) -> None:
    try:
        if to is None:
            _to_standard_output(lines)
        else:
            _to_new_file(to, lines)
    except OSError as error:
        where = "standard output" if to is None else to
        raise SettingsError(
            f"{where} can't be written to ({error.strerror}); no line is marked as handed over"
        ) from None


def _to_standard_output(lines: Iterator[bytes]) -> None:
    for line in lines:
        # The JSON value is the sink's; control characters are escaped, so that a terminal obeys none.
        sys.stdout.buffer.write(json_bytes_escaped(line))
    sys.stdout.buffer.flush()
    with suppress(OSError, ValueError):
        # A pipe can't be synced to disk.
        os.fsync(sys.stdout.fileno())


def _to_new_file(path: Path, lines: Iterator[bytes]) -> None:
    require_new(path)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        # Unlike a rename, a link fails if another process has made the file meanwhile.
        os.link(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
