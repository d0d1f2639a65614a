"""Unpacks a body: decompression by content-encoding, and removal of prefixes before the JSON.

    body ─▶ content-encoding gzip, deflate ─▶ schema registry's prefix ─▶ byte order mark ─▶ plain body
              └─ the output never exceeds the limit for bodies

Nothing is guessed, except prefixes that no JSON starts with. A rejection keeps the body as received.
"""

import binascii
import re
import zlib
from collections.abc import Mapping
from typing import TypeAlias

from processor.errors import Reason
from processor.wire.beside import SCHEMA_ID, Attribute, Beside, add_ours, content_encodings
from processor.wire.envelope import Malformed, claimed_of, invalid

Unpacked: TypeAlias = tuple[bytes, Mapping[str, Attribute]]

_GZIP, _ZLIB, _EITHER, _RAW = 31, 15, 47, -15
_PACKED = {
    "gzip": (_GZIP,),
    "x-gzip": (_GZIP,),
    "deflate": (_ZLIB, _RAW),
    "application/gzip": (_GZIP,),
    "application/x-gzip": (_EITHER,),
}
"""The window bits to try for each encoding. The last name is kombu's for zlib, and others' for gzip.

Deflate means the zlib format for some clients, as in HTTP, and the raw format for others; the two can't be
confused.
"""
_UNCOMPRESSED = {"", "identity", "none", "utf-8", "utf8", "us-ascii", "ascii", "binary", "8bit", "7bit"}
"""Encodings that leave a body unchanged. Some AMQP clients put the charset here."""

_OF_A_PACKING = re.compile(
    r"application/(x-)?(gzip|zlib|bz2|bzip2|lzma|xz|zstd|brotli|compress|zip|lz4|snappy)"
)

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_PREFIX, _PREFIX_LENGTH = b"\0", 5
BEFORE_JSON = (_BYTE_ORDER_MARK, _PREFIX)
"""Prefixes before the JSON of a body."""

_JSON_BEGINS = b'\xef \t\r\n{["-0123456789tfn'
_BASE64 = re.compile(rb"([A-Za-z0-9+/\s]++|[A-Za-z0-9_\-\s]++)={0,2}+\s*+")
_OF_URLS = bytes.maketrans(b"-_", b"+/")
_CHUNK_BYTES = 4096


def unpack(body: bytes, attributes: Mapping[str, Attribute], size_bytes_max: int) -> Unpacked | Malformed:
    """Return the plain body and its remaining attributes. Never raises, whatever the bytes are.

    A body that is too large as received is left to the caller.
    """
    if body and (names := content_encodings(attributes)):
        said = {str(attributes[name]).strip().lower() for name in names} - _UNCOMPRESSED
        # Some clients put the media type here.
        said = {name for name in said if "/" not in name or _OF_A_PACKING.fullmatch(name)}
        if said and len(body) <= size_bytes_max:
            found = _decompressed(body, said, size_bytes_max)
            if isinstance(found, str):
                return invalid(f"content-encoding: {found}", claimed_of(None, Beside(attributes)))
            if len(found) > size_bytes_max:
                words = f"the decompressed body has more than {size_bytes_max} bytes (BODY_BYTES_MAX)"
                return Malformed(Reason.TOO_LARGE, {"message": words}, claimed_of(None, Beside(attributes)))
            body, attributes = found, {name: attributes[name] for name in attributes if name not in names}
    if not body.startswith(BEFORE_JSON):
        return body, attributes
    if body.startswith(_PREFIX) and len(body) > _PREFIX_LENGTH and body[_PREFIX_LENGTH] in _JSON_BEGINS:
        schema_id = str(int.from_bytes(body[1:_PREFIX_LENGTH]))
        body, attributes = body[_PREFIX_LENGTH:], add_ours(attributes, SCHEMA_ID, schema_id)
    return body.removeprefix(_BYTE_ORDER_MARK), attributes


def _decompressed(body: bytes, said: set[str], size_bytes_max: int) -> bytes | str:
    """Decompress a body, up to one byte more than the limit; a string is the error message."""
    encoding = ", ".join(sorted(said))[:64]
    if encoding not in _PACKED:
        return f"{encoding!r} is not supported; expected gzip, deflate or no compression"
    try:
        # For text-only queues clients use base64, which no compressed format looks like.
        packed = _from_base64(body) if _BASE64.fullmatch(body) else body
    except binascii.Error as error:
        return f"the body is not valid {encoding}, neither as it is nor in base64: {error}"
    words = ""
    for wbits in _PACKED[encoding]:
        try:
            return _inflated(packed, wbits, size_bytes_max)
        except (zlib.error, EOFError) as error:
            words = words or f"the body is not valid {encoding}, neither as it is nor in base64: {error}"
    return words


def _from_base64(text: bytes) -> bytes:
    """Decode base64, also with the URL alphabet and without padding."""
    digits = b"".join(text.translate(_OF_URLS).split()).rstrip(b"=")
    return binascii.a2b_base64(digits + b"=" * (-len(digits) % 4))


def _inflated(packed: bytes, wbits: int, size_bytes_max: int) -> bytes:
    pieces: list[bytes] = []
    room, at = size_bytes_max, 0
    inflater = zlib.decompressobj(wbits)
    while room >= 0 and not (inflater.eof and at == len(packed)):
        if at == len(packed):
            raise EOFError("the data ends too early")
        if inflater.eof:
            # Gzip members may follow one another, and zeros the last.
            if packed[at] == 0 and not packed[at:].strip(b"\0"):
                break
            if wbits in (_ZLIB, _RAW):
                raise EOFError("there are more bytes after the end")
            inflater = zlib.decompressobj(wbits)
        # In pieces: the rest after a member is copied, and there may be thousands of members.
        chunk = packed[at : at + _CHUNK_BYTES]
        pieces.append(inflater.decompress(chunk, room + 1))
        room -= len(pieces[-1])
        at += len(chunk) - len(inflater.unused_data) - len(inflater.unconsumed_tail)
    return b"".join(pieces)
