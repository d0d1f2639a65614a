"""Reads and writes manifests: what producers sent, for the audit to check message by message.

    producer ── intend(lines) ─▶ file ── send ─▶ queue ── accept(lines) ─▶ file ─▶ read_manifest ─▶ audit

An `intended` line reaches the operating system before its message is sent, an `accepted` line after the
queue's confirmation. So a killed producer leaves at worst unaccepted intentions, or an accepted message that
is only `intended`; every message on the queue is in the file.
"""

import json
import os
import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, NoReturn, Self, TypeAlias

from processor.errors import SettingsError

State: TypeAlias = Literal["intended", "accepted"]

LINE_BYTES_MAX = 64 * 1024
"""A longer line is invalid: ids have at most 256 characters."""


@dataclass(frozen=True, slots=True)
class ManifestLine:
    """One line: a message to be sent (`intended`), or one that the queue accepted (with its delivery id).

    `tenant_id`, `message_id` and `digest` are None if the body has none: deliberate garbage, or an event
    without an id of its own.
    """

    state: State
    tenant_id: str | None
    message_id: str | None
    digest: str | None
    delivery_id: str | None = None

    def encode(self) -> bytes:
        """Encode the line with its line feed, in ASCII, so that no id can break the file."""
        fields: dict[str, str | None] = {
            "state": self.state,
            "tenant_id": self.tenant_id,
            "message_id": self.message_id,
            "digest": self.digest,
        }
        if self.delivery_id is not None:
            fields["delivery_id"] = self.delivery_id
        return json.dumps(fields).encode("ascii") + b"\n"


class Number(str):
    """A number in canonical form; a type of its own, to distinguish it from a string."""

    __slots__ = ()


def payload_digest(payload_json: str | bytes) -> str:
    """Return the SHA-256 of a payload's canonical form, in hexadecimal.

    Key order, white space and 1.0 for 1 don't count. The canonical form is compact JSON in UTF-8, with keys
    sorted by code point, minimal escapes, numbers without exponent and trailing zeros, and -0 as 0. So the
    text from a producer and the `payload::text` of jsonb have the same digest. Of equal keys the last wins,
    as in jsonb.

    Raises ValueError for invalid JSON (also NaN), invalid UTF-8, or nesting that is too deep.
    """
    return value_digest(read_exactly(payload_json))


def read_exactly(text_json: str | bytes) -> Any:  # noqa: ANN401 - any JSON
    """Parse JSON with each number as a `Number`, for `value_digest` of the value or a part.

    Raises ValueError like `payload_digest`.
    """
    text = text_json if isinstance(text_json, str) else text_json.decode("utf-8")
    try:
        return json.loads(text, parse_int=_number, parse_float=_number, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def value_digest(value: Any) -> str:  # noqa: ANN401 - any JSON
    """Return the digest of a value from `read_exactly`, or of a part of it."""
    pieces: list[str] = []
    try:
        _write(value, pieces)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    # JSON can name a lone surrogate, but UTF-8 can't encode it; it gets the bytes that it would have.
    return sha256("".join(pieces).encode("utf-8", "surrogatepass")).hexdigest()


class ManifestWriter:
    """Appends to a manifest; a line is with the operating system when the call returns.

    Threads may share a writer, processes must not share a file. Written lines survive the death of the
    process, but not of the machine. Raises SettingsError if the file can't be written.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        try:
            self._file: BinaryIO = self.path.open("a+b", buffering=0)
        except OSError as error:
            raise self._fault(error.strerror) from error
        try:
            _repair_last_line(self._file)
        except (OSError, ValueError) as error:
            self._file.close()
            raise self._fault(error) from error

    def intend(self, lines: Iterable[ManifestLine]) -> None:
        """Write `intended` lines; call it before the send."""
        self._append(lines, "intended")

    def accept(self, lines: Iterable[ManifestLine]) -> None:
        """Write `accepted` lines; call it after the queue's confirmation."""
        self._append(lines, "accepted")

    def _append(self, lines: Iterable[ManifestLine], state: State) -> None:
        encoded = []
        for line in lines:
            if line.state != state or (state == "accepted") != (line.delivery_id is not None):
                raise ValueError(f"a line to write as {state}, with a delivery id only if accepted: {line}")
            encoded.append(line.encode())
        data = memoryview(b"".join(encoded))
        with self._lock:
            try:
                while data:
                    data = data[self._file.write(data) :]
            except OSError as error:
                raise self._fault(error.strerror) from error

    def _fault(self, why: object) -> SettingsError:
        return SettingsError(f"the manifest {self.path} can't be written: {why}")

    def close(self) -> None:
        """Close the file; no more lines can be written."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ManifestReader(Iterator[ManifestLine]):
    """Iterates over the lines of a file, in order; `torn`, set at the end: half a line was skipped."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.torn = False
        self.line_number = 0
        self._lines = self._read()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ManifestLine:
        return next(self._lines)

    def _read(self) -> Iterator[ManifestLine]:
        try:
            with self.path.open("rb") as file:
                while raw := file.readline(LINE_BYTES_MAX):
                    self.line_number += 1
                    if raw.strip():
                        yield from self._parse_line(raw)
        except OSError as error:
            raise SettingsError(
                f"the manifest {self.path} can't be read: {error.strerror or error}"
            ) from error

    def _parse_line(self, raw: bytes) -> Iterator[ManifestLine]:
        try:
            yield _decode(raw)
        except ValueError as error:
            # Only the last line can lack its line feed, because its writer was killed: its message was not
            # sent yet, or is already `intended`. Skipping it loses nothing.
            if not raw.endswith(b"\n") and len(raw) < LINE_BYTES_MAX:
                self.torn = True
                return
            raise SettingsError(
                f"the manifest {self.path}, line {self.line_number}: {error}; expected "
                '{"state": "intended" or "accepted", "tenant_id", "message_id", "digest"}, '
                'and "delivery_id" if accepted'
            ) from None


def read_manifest(path: Path | str) -> ManifestReader:
    """Iterate over the lines of a manifest, without holding the file in memory.

    Raises SettingsError, while iterating, for an unreadable file and for a bad line, with its number.
    """
    return ManifestReader(path)


def _decode(raw: bytes) -> ManifestLine:
    try:
        fields = json.loads(raw)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(fields, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - a fault of the file, not of the caller
    state, texts = fields.get("state"), {}
    if state not in ("intended", "accepted"):
        raise ValueError(f"unknown state {str(state)[:40]!r}")
    for name in ("tenant_id", "message_id", "digest", "delivery_id"):
        value = fields.get(name)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{name} is neither text nor null")
        texts[name] = value
    if texts["digest"] is not None and not re.fullmatch("[0-9a-f]{64}", texts["digest"]):
        raise ValueError("the digest is not 64 hexadecimal digits")
    if (state == "accepted") != (texts["delivery_id"] is not None):
        raise ValueError("an accepted line needs a delivery_id, an intended line must have none")
    return ManifestLine(state, **texts)


def _repair_last_line(file: BinaryIO) -> None:
    """End the file with a whole line: complete or truncate the last one of a killed writer."""
    size = file.seek(0, os.SEEK_END)
    start = max(0, size - LINE_BYTES_MAX)
    file.seek(start)
    tail = file.read(LINE_BYTES_MAX)
    last = tail[tail.rfind(b"\n") + 1 :]
    if not last:
        return
    try:
        _decode(last)
    except ValueError:
        # Truncate only the start of a manifest line: the path may be of another file.
        if not (last.startswith(_LINE_START) or _LINE_START.startswith(last)):
            raise ValueError("the file does not end with a line of a manifest; name another file") from None
        file.truncate(size - len(last))
    else:
        file.seek(0, os.SEEK_END)
        file.write(b"\n")


_LINE_START = b'{"state":'


_NUMBER = re.compile(r"(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?)0*(\d+))?")

_POSITION_MAX = 200_000
"""Maximum zeros next to the point; PostgreSQL's numeric holds fewer, and rejects the rest."""


def _number(text: str) -> Number:
    """Return the canonical form of a JSON number; as text, because float and Decimal round."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError("not a JSON number")
    sign, whole, fraction, exponent_sign, exponent = match.groups(default="")
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return Number("0")
    if len(exponent) > len(str(_POSITION_MAX)):
        return Number(text)
    point = len(digits) - len(fraction) + int(f"{exponent_sign}{exponent or 0}")
    digits = digits.rstrip("0")
    if abs(point) > len(digits) + _POSITION_MAX:
        return Number(f"{sign}0.{digits}e{point}")
    if point <= 0:
        return Number(f"{sign}0.{'0' * -point}{digits}")
    whole, fraction = digits[:point].ljust(point, "0"), digits[point:]
    return Number(f"{sign}{whole}.{fraction}" if fraction else f"{sign}{whole}")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_quote = json.JSONEncoder(ensure_ascii=False).encode


def _write(value: Any, pieces: list[str]) -> None:  # noqa: ANN401 - any JSON
    """Append the pieces of a value's canonical text."""
    if isinstance(value, Number):
        pieces.append(value)
    elif isinstance(value, dict):
        pieces.append("{")
        for position, name in enumerate(sorted(value)):
            pieces.append(f"{',' if position else ''}{_quote(name)}:")
            _write(value[name], pieces)
        pieces.append("}")
    elif isinstance(value, list):
        pieces.append("[")
        for position, item in enumerate(value):
            if position:
                pieces.append(",")
            _write(item, pieces)
        pieces.append("]")
    else:
        pieces.append(_quote(value))
