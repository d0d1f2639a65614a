"""Lines to a file instead of to a sink: one JSON object a line, marked as handed over once they are safe.

The file appears whole or not at all, and an old one is never written over. Whoever dies between the two finds
the lines again, under the same keys, in the next file.
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
    """Write all lines that wait to a new file, or to standard output (None), then mark them; gives how many.

    Where none wait, no file is made. Raises SettingsError if the file is there already or can't be written;
    nothing is marked then.
    """
    found = batches.find_all(connection)
    with connection.transaction():
        claimed = batches.claim(connection, found)
        lines = [line.json(amounts) for batch in claimed for line in batch.lines]
        if lines:
            _write(to, (line + b"\n" for line in lines))
        # Only now, when they are on the disk.
        for batch in claimed:
            batches.accept(connection, batch)
    return len(lines)


def require_new(path: Path) -> None:
    """Raise SettingsError if the file is there already, or its directory is not."""
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
        # Its value is what a sink gets; its bytes are none that a terminal obeys.
        sys.stdout.buffer.write(json_bytes_escaped(line))
    sys.stdout.buffer.flush()
    with suppress(OSError, ValueError):
        # A pipe has no disk to be safe on.
        os.fsync(sys.stdout.fileno())


def _to_new_file(path: Path, lines: Iterator[bytes]) -> None:
    require_new(path)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        # Unlike a rename, this fails where somebody has made the file meanwhile.
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
