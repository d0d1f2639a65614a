"""The counter's files: one per event type, with portable names, replaced atomically.

event type ─▶ file_name        order.created ─▶ order.created.json     a/B ─▶ a%2f%42.json
entries ─▶ a temporary file beside it, flushed to disk ─▶ all files are renamed, one after the other
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
"""File systems allow 255 bytes; the suffixes of final and temporary names need some of them."""

_CUT_LENGTH = 100

# Windows treats these names as devices, whatever follows the first dot.
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9]|conin%24|conout%24)(\.|$)")
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_-.")


def file_name(event_type: str) -> str:
    """Return the file name of an event type; names are unique, even on case-insensitive file systems.

    Small letters, digits, '_', '-' and '.' stay; each other byte of UTF-8 becomes %xx in small letters, and
    so does the first character of a name that begins with a dot or is a Windows device. A name that would be
    too long is cut, followed by the SHA-256 of the event type.
    """
    raw = event_type.encode("utf-8", "surrogatepass")
    stem = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02x}" for byte in raw)
    if stem.startswith(".") or _DEVICE.match(stem):
        stem = f"%{raw[0]:02x}{stem[1:]}"
    if len(stem) > _STEM_LENGTH_MAX:
        # No other name has a % without two digits after it.
        stem = f"{stem[:_CUT_LENGTH]}%~{sha256(raw).hexdigest()}"
    return stem + SUFFIX


def require_writable(directory: Path) -> None:
    """Create the directory if it is missing, and test that it is writable. Raises SettingsError."""
    with Replacement(directory) as replacement:
        replacement.write("try", ())


@dataclass
class Replacement:
    """New files that replace the old ones together, at `put_in_place`.

    Raises SettingsError if the directory is not writable, and removes the temporary files.
    """

    directory: Path
    _staged: dict[Path, Path] = field(default_factory=dict)

    def write(self, name: str, entries: Iterable[tuple[str, int]]) -> int:
        """Write a JSON object, one entry per line, to a temporary file; returns the number of entries."""
        under_way = self.directory / f".{secrets.token_hex(8)}.tmp"
        self._staged[self.directory / name] = under_way
        count = 0
        # Not by tempfile: its files are readable for their owner only.
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
        """Rename all files to their final names; each name has a complete file at any time."""
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
    with suppress(OSError):  # Windows can't open a directory, and some network file systems can't flush one.
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
