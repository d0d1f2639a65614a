"""One file per event type, under a name that every file system takes, and never half of one.

event type ─▶ file_name        order.created ─▶ order.created.json     a/B ─▶ a%2f%42.json
entries ─▶ a file beside it, flushed to the disk ─▶ all of them are given their names, one after the other
"""

import json
import os
import re
import secrets
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Self

from processor.errors import SettingsError
from processor.runtime.escaping import json_escaped

SUFFIX = ".json"

_STEM_LENGTH_MAX = 200
"""File systems take 255 bytes; the suffix and what a name under way has more of it need some."""

_CUT_LENGTH = 100

# Windows takes these for devices, whatever stands behind the first dot.
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9]|conin%24|conout%24)(\.|$)")
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_-.")


def file_name(event_type: str) -> str:
    """Give the name of an event type's file; no two event types have the same, not even but for case.

    Small letters, digits, '_', '-' and '.' stand as they are, each other byte of UTF-8 as %xx in small
    letters; so does the first character of a name that begins with a dot or is a device's on Windows. Of a
    name that would be too long the beginning is kept, and the SHA-256 of the event type follows.
    """
    raw = event_type.encode("utf-8", "surrogatepass")
    stem = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02x}" for byte in raw)
    if stem.startswith(".") or _DEVICE.match(stem):
        stem = f"%{raw[0]:02x}{stem[1:]}"
    if len(stem) > _STEM_LENGTH_MAX:
        # Nothing else has a % that no digits follow.
        stem = f"{stem[:_CUT_LENGTH]}%~{sha256(raw).hexdigest()}"
    return stem + SUFFIX


def require_writable(directory: Path) -> None:
    """Make the directory if it is missing, and try to write to it. Raises SettingsError."""
    with Replacement(directory) as replacement:
        replacement.write("try", ())


@dataclass
class Replacement:
    """Files that are written first and take the place of the old ones together, at `put_in_place`.

    Raises SettingsError where the directory can't be written to; what was under way is removed then.
    """

    directory: Path
    _staged: dict[Path, Path] = field(default_factory=dict)

    def write(self, name: str, entries: Iterable[tuple[str, int]]) -> int:
        """Write a JSON object, an entry a line, to the disk, under a name of its own; gives their number."""
        under_way = self.directory / f".{secrets.token_hex(8)}.tmp"
        self._staged[self.directory / name] = under_way
        count = 0
        # Not by tempfile, whose files nobody else may read.
        with under_way.open("x", encoding="utf-8", errors="surrogatepass", newline="\n") as file:
            file.write("{")
            for key, value in entries:
                name = json_escaped(json.dumps(key, ensure_ascii=False))
                file.write(f"{',' if count else ''}\n  {name}: {value}")
                count += 1
            file.write("\n}\n" if count else "}\n")
            file.flush()
            os.fsync(file.fileno())
        return count

    def put_in_place(self) -> None:
        """Give all files their names; each was there whole before, or is now."""
        for place, under_way in self._staged.items():
            under_way.replace(place)
        self._staged.clear()
        _flush_names(self.directory)

    def __enter__(self) -> Self:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._fault(error) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for under_way in self._staged.values():
            with suppress(OSError):
                under_way.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise self._fault(error) from None

    def _fault(self, error: OSError) -> SettingsError:
        return SettingsError(
            f"{self.directory} can't take the files: {error.strerror or error}; expected a directory that we "
            "may write to, with room for them"
        )


def _flush_names(directory: Path) -> None:
    with suppress(OSError):  # Windows opens no directory, and some network file systems flush none.
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
