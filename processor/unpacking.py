"""Unpacks what came compressed, and never into more than may be."""

import zlib

_GZIP = 16 + zlib.MAX_WBITS
_MEMBERS_MAX = 64
"""Files of gzip one after the other. Each costs a reader of its own, however little is in it."""


class UnpackFault(ValueError):
    """The bytes are not what they are said to be; the message says what was seen."""


class UnpackedTooLarge(UnpackFault):
    """Unpacked they are larger than they may be. They were not unpacked any further."""


def gunzip(packed: bytes, size_bytes_max: int) -> bytes:
    """Unpack gzip, one member or several. Raises UnpackFault, UnpackedTooLarge."""
    parts: list[bytes] = []
    size, rest = 0, packed
    while rest or not parts:
        if len(parts) == _MEMBERS_MAX:
            raise UnpackFault(f"more than {_MEMBERS_MAX} members")
        unpacker = zlib.decompressobj(_GZIP)
        try:
            # One byte more tells that there is more.
            part = unpacker.decompress(rest, size_bytes_max - size + 1)
        except zlib.error as error:
            raise UnpackFault(str(error)) from None
        size += len(part)
        if size > size_bytes_max:
            raise UnpackedTooLarge(f"more than {size_bytes_max} bytes")
        if not unpacker.eof:
            raise UnpackFault("the end is missing")
        parts.append(part)
        rest = unpacker.unused_data
    return b"".join(parts)
