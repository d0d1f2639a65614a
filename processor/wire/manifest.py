"""What producers say they sent, so that the audit can prove message by message what became of it.

    producer ── intend(lines) ─▶ file ── send ─▶ queue ── accept(lines) ─▶ file ─▶ read_manifest ─▶ audit

A line `intended` is with the operating system before its message is sent, a line `accepted` follows the
queue's yes. So a producer that is killed leaves at worst intentions that nobody accepted, or an accepted
message that is only known as intended; it never leaves a message on the queue that the file doesn't know.
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
"""A longer line is no line of ours: ids have at most 256 characters."""


@dataclass(frozen=True, slots=True)
class ManifestLine:
    """One line: what was to be sent (`intended`) or what the queue took (`accepted`, with its delivery id).

    `tenant_id`, `message_id` and `digest` are None where the body names none: deliberate garbage, or an
    event that has no id of its own.
    """

    state: State
    tenant_id: str | None
    message_id: str | None
    digest: str | None
    delivery_id: str | None = None

    def encode(self) -> bytes:
        """Give the line with its line feed, in ASCII, so that no id can break the file."""
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
    """A number in its one normal spelling; a type of its own, to be told from a text."""

    __slots__ = ()


def payload_digest(payload_json: str | bytes) -> str:
    """Give the SHA-256, in hexadecimal, of what a payload means, however it is written.

    Key order, white space and 1.0 for 1 don't count: the payload is written again as compact JSON in UTF-8,
    keys sorted by code point, nothing escaped that JSON doesn't oblige to, numbers without exponent and
    trailing zeros, and -0 as 0. So what a producer sent and the `payload::text` that jsonb gives back have
    one digest. Of equal keys the last wins, as in jsonb.

    Raises ValueError if this is not JSON (NaN isn't), is not UTF-8, or is nested too deeply to be read.
    """
    return value_digest(read_exactly(payload_json))


def read_exactly(text_json: str | bytes) -> Any:  # noqa: ANN401 - any JSON
    """Read JSON with each number as a `Number`, so that a part of it can be given to `value_digest`.

    Raises ValueError as `payload_digest` does.
    """
    text = text_json if isinstance(text_json, str) else text_json.decode("utf-8")
    try:
        return json.loads(text, parse_int=_number, parse_float=_number, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def value_digest(value: Any) -> str:  # noqa: ANN401 - any JSON
    """Give the digest of what `read_exactly` has read, or of a part of it."""
    pieces: list[str] = []
    try:
        _write(value, pieces)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    # A lone surrogate can be named in JSON but not encoded: it gets the bytes that it would have.
    return sha256("".join(pieces).encode("utf-8", "surrogatepass")).hexdigest()


class ManifestWriter:
    """Appends to a manifest; a line is with the operating system when the call that wrote it returns.

    Several threads may share one writer, several processes must not share one file. What the process has
    written survives its death, though not the machine's. Raises SettingsError if the file can't be written.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        try:
            self._file: BinaryIO = self.path.open("a+b", buffering=0)
        except OSError as error:
            raise self._fault(error.strerror) from error
        try:
            _mend_the_end(self._file)
        except (OSError, ValueError) as error:
            self._file.close()
            raise self._fault(error) from error

    def intend(self, lines: Iterable[ManifestLine]) -> None:
        """Write lines of state `intended`; call it before the send."""
        self._append(lines, "intended")

    def accept(self, lines: Iterable[ManifestLine]) -> None:
        """Write lines of state `accepted`; call it once the queue has said yes."""
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
    """The lines of one file, in order; `torn` says, after the last, that half a line was left out."""

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
                        yield from self._one(raw)
        except OSError as error:
            raise SettingsError(
                f"the manifest {self.path} can't be read: {error.strerror or error}"
            ) from error

    def _one(self, raw: bytes) -> Iterator[ManifestLine]:
        try:
            yield _decode(raw)
        except ValueError as error:
            # Only the last line can be short of its line feed, and only because its writer was killed: its
            # message was not sent yet, or is already known as intended. Nothing is lost by skipping it.
            if not raw.endswith(b"\n") and len(raw) < LINE_BYTES_MAX:
                self.torn = True
                return
            raise SettingsError(
                f"the manifest {self.path}, line {self.line_number}: {error}; expected "
                '{"state": "intended" or "accepted", "tenant_id", "message_id", "digest"}, '
                'and "delivery_id" if accepted'
            ) from None


def read_manifest(path: Path | str) -> ManifestReader:
    """Iterate over a manifest's lines in the order of the file, without holding it in memory.

    Raises SettingsError, while iterating, for a file that can't be read and for a bad line, with its number.
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


def _mend_the_end(file: BinaryIO) -> None:
    """Make the file end with a whole line, so that ours don't continue what a killed writer began."""
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
        # Cut off only what can be the start of a line of ours: somebody may have named the wrong file.
        if not (last.startswith(_LINE_START) or _LINE_START.startswith(last)):
            raise ValueError("the file does not end with a line of a manifest; name another file") from None
        file.truncate(size - len(last))
    else:
        file.seek(0, os.SEEK_END)
        file.write(b"\n")


_LINE_START = b'{"state":'


_NUMBER = re.compile(r"(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?)0*(\d+))?")

_POSITION_MAX = 200_000
"""Zeros that we write out beside the point; PostgreSQL's numeric holds fewer, so it refuses the rest."""


def _number(text: str) -> Number:
    """Write a JSON number without exponent and idle zeros; as text, since float and Decimal round."""
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
    """Append a value's one normal text, in pieces."""
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
