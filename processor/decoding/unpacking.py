"""How a body is packed: compressed, as content-encoding beside it says, or with something before its JSON.

    body ─▶ content-encoding gzip, deflate ─▶ schema registry's prefix ─▶ byte order mark ─▶ plain body
              └─ at most as many bytes as are taken are ever made of it

Nothing here is guessed at but what no JSON begins with. What is kept of a rejection is the body as it came.
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
"""The formats each is read in. The last is kombu's word for zlib's format, and that of others for gzip's own.

By deflate some mean zlib's format, as HTTP does, and some what is inside of it; neither reads as the other.
"""
_AS_IT_IS = {"", "identity", "none", "utf-8", "utf8", "us-ascii", "ascii", "binary", "8bit", "7bit"}
"""Encodings that leave a body as it is. Some clients of AMQP write their charset there."""

_OF_A_PACKING = re.compile(
    r"application/(x-)?(gzip|zlib|bz2|bzip2|lzma|xz|zstd|brotli|compress|zip|lz4|snappy)"
)

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_PREFIX, _PREFIX_LENGTH = b"\0", 5
BEFORE_JSON = (_BYTE_ORDER_MARK, _PREFIX)
"""How a body begins that has something before its JSON."""

_JSON_BEGINS = b'\xef \t\r\n{["-0123456789tfn'
_BASE64 = re.compile(rb"([A-Za-z0-9+/\s]++|[A-Za-z0-9_\-\s]++)={0,2}+\s*+")
_OF_URLS = bytes.maketrans(b"-_", b"+/")
_CHUNK_BYTES = 4096


def unpack(body: bytes, attributes: Mapping[str, Attribute], size_bytes_max: int) -> Unpacked | Malformed:
    """Give the plain body, and what then still stands beside it. Never raises, whatever the bytes are.

    A body that is too large as it came is left to whoever reads it.
    """
    if body and (names := content_encodings(attributes)):
        said = {str(attributes[name]).strip().lower() for name in names} - _AS_IT_IS
        # Some clients write there of which media type the body is.
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
    """Decompress a body, up to one byte more than may be; a text says why that can't be done."""
    encoding = ", ".join(sorted(said))[:64]
    if encoding not in _PACKED:
        return f"{encoding!r} is not supported; expected gzip, deflate or no compression"
    try:
        # Where a queue carries text alone, people write base64, which nothing that is packed looks like.
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
    """Read base64 in the alphabet of URLs too, and without the padding that many leave out there."""
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
            # Members of gzip may follow one another, and zeros the last.
            if packed[at] == 0 and not packed[at:].strip(b"\0"):
                break
            if wbits in (_ZLIB, _RAW):
                raise EOFError("there are more bytes after the end")
            inflater = zlib.decompressobj(wbits)
        # A piece at a time: what follows a member is copied, and there may be thousands of them.
        chunk = packed[at : at + _CHUNK_BYTES]
        pieces.append(inflater.decompress(chunk, room + 1))
        room -= len(pieces[-1])
        at += len(chunk) - len(inflater.unused_data) - len(inflater.unconsumed_tail)
    return b"".join(pieces)
