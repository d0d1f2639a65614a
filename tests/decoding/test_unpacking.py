"""Tests decompression within the limit, and the removal of prefixes before JSON."""

import base64
import gzip
import json
import random
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from processor.decoding.decoder import NO_RULES, Decoder
from processor.decoding.unpacking import unpack
from processor.errors import Reason
from processor.wire.formats import Attribute, Envelope, Malformed
from tests.builders import a_body, a_delivery

LIMIT = 10_000
gzipped = partial(gzip.compress, mtime=0)
"""Deterministic bytes: the names of tests contain them."""

BODY = a_body(id="o-1")

PACKINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzipped),
    "x-gzip": ("X-GZIP", gzipped),
    "deflate": ("deflate", zlib.compress),
    "gzip in two members": ("gzip", lambda body: gzipped(body[:9]) + gzipped(body[9:])),
    "gzip with an empty member": ("gzip", lambda body: gzipped(b"") + gzipped(body)),
    "gzip padded with zeros": ("gzip", lambda body: gzipped(body) + b"\0" * 700),
    "gzip in base64": (" gzip ", lambda body: base64.b64encode(gzipped(body))),
    "gzip in lines of base64": ("gzip", lambda body: base64.encodebytes(gzipped(body))),
    "deflate in base64": ("deflate", lambda body: base64.b64encode(zlib.compress(body))),
    "raw deflate": ("deflate", lambda body: zlib.compress(body)[2:-4]),
    "gzip in base64 of URLs": ("gzip", lambda body: base64.urlsafe_b64encode(gzipped(body))),
    "gzip in base64 without padding": ("gzip", lambda body: base64.b64encode(gzipped(body)).rstrip(b"=")),
}
NAMES = [
    "content-encoding",
    "Content-Encoding",
    "content_encoding",
    "contentEncoding",
    "amqp.content_encoding",
]


def read(body: bytes, attributes: dict[str, Attribute] | None = None) -> Envelope | Malformed:
    return Decoder(LIMIT, 64).read(a_delivery(body, attributes=attributes), NO_RULES)


def malformed(body: bytes, attributes: dict[str, Attribute] | None = None) -> Malformed:
    found = read(body, attributes)
    assert isinstance(found, Malformed), found
    return found


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("name", NAMES)
def test_a_compressed_body_is_decompressed(packing: str, name: str) -> None:
    encoding, pack = PACKINGS[packing]

    assert read(pack(BODY), {name: encoding}) == read(BODY)


@pytest.mark.parametrize("encoding", ["", "identity", "utf-8", "UTF-8", "binary", "us-ascii"])
def test_an_encoding_without_compression_is_context(encoding: str) -> None:
    found = read(BODY, {"content_encoding": encoding})

    assert isinstance(found, Envelope)
    assert json.loads(found.context or "") == {"content_encoding": encoding}


@pytest.mark.parametrize("encoding", ["zstd", "br", "compress", "gzip, gzip", "x" * 999])
def test_an_unknown_encoding_is_rejected_with_the_supported_ones(encoding: str) -> None:
    found = malformed(BODY, {"content-encoding": encoding, "tenant_id": "acme"})

    assert found.reason is Reason.ENVELOPE_INVALID
    assert "gzip, deflate" in found.detail["message"]
    assert found.claimed.tenant_id == "acme"


def test_a_compressed_body_without_content_encoding_is_rejected_with_advice() -> None:
    for body in (
        gzipped(BODY),
        base64.b64encode(gzipped(BODY)),
        *(zlib.compress(BODY, n) for n in (1, 5, 6, 9)),
    ):
        assert "set the attribute content-encoding" in malformed(body).detail["message"]


def test_conflicting_encodings_are_rejected() -> None:
    found = malformed(gzipped(BODY), {"content-encoding": "gzip", "content_encoding": "deflate"})

    assert found.reason is Reason.ENVELOPE_INVALID


@pytest.mark.parametrize(
    "body",
    [
        BODY,
        gzipped(BODY)[:-1],
        gzipped(BODY)[:20],
        gzipped(BODY)[:1],
        gzipped(BODY) + b"more",
        gzipped(BODY) + b"\0\0more",
        base64.b64encode(gzipped(BODY))[:-5],
        base64.b64encode(BODY),
        gzipped(BODY)[:-8] + b"\0" * 8,
    ],
)
def test_corrupt_compression_is_rejected(body: bytes) -> None:
    found = malformed(body, {"content-encoding": "gzip"})

    assert found.reason is Reason.ENVELOPE_INVALID
    assert found.detail["message"].startswith("content-encoding: the body is not valid gzip")


@pytest.mark.parametrize("packing", PACKINGS)
def test_the_size_limit_applies_to_the_decompressed_body(packing: str) -> None:
    encoding, pack = PACKINGS[packing]
    full = b'"' + b"x" * (LIMIT - 2) + b'"'
    named: dict[str, Attribute] = {"content-encoding": encoding}

    assert unpack(pack(full), named, LIMIT) == (full, {})
    assert isinstance(read(pack(full), named | {"tenant_id": "acme", "event_type": "t"}), Envelope)
    found = malformed(pack(full + b" "), named)
    assert found.reason is Reason.TOO_LARGE
    assert "BODY_BYTES_MAX" in found.detail["message"]


def test_no_more_is_ever_made_of_a_body_than_one_byte_beyond_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A decompression bomb costs no more than the limit, measured by the calls of zlib."""
    bomb = gzipped(b"[" + b" " * 50_000_000 + b"]")
    bombs = [bomb[:9_000], base64.b64encode(bomb[:6_000]), gzipped(b" " * 9_999) * 200]
    made: list[int] = []

    class Watched:
        def __init__(self, wbits: int) -> None:
            self._inflater: Any = original(wbits)

        def decompress(self, data: bytes, max_length: int) -> bytes:
            piece: bytes = self._inflater.decompress(data, max_length)
            made.append(len(piece))
            return piece

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inflater, name)

    original = zlib.decompressobj
    monkeypatch.setattr(zlib, "decompressobj", Watched)
    for packed in bombs:
        made.clear()

        found = unpack(packed[:LIMIT], {"content-encoding": "gzip"}, LIMIT)

        assert isinstance(found, Malformed)
        assert found.reason is Reason.TOO_LARGE
        assert sum(made) == LIMIT + 1


def test_a_compressed_body_beyond_the_limit_is_not_decompressed() -> None:
    noise = random.Random(7).randbytes(LIMIT + 100)

    found = malformed(gzipped(noise), {"content-encoding": "gzip"})

    assert found.reason is Reason.TOO_LARGE


def test_thousands_of_gzip_members_are_decompressed_in_pieces() -> None:
    """Each member copies the rest, which as a whole would be quadratic."""
    members = gzipped(b"") * 40_000 + gzipped(BODY)

    assert unpack(members, {"content-encoding": "gzip"}, 1024 * 1024) == (BODY, {})


# ── what stands before JSON ───────────────────────────────────────────────────────────────────────────


def test_a_byte_order_mark_is_removed_once() -> None:
    assert read(b"\xef\xbb\xbf" + BODY) == read(BODY)
    assert read(gzipped(b"\xef\xbb\xbf" + BODY), {"content-encoding": "gzip"}) == read(BODY)
    assert malformed(b"\xef\xbb\xbf" * 2 + BODY).reason is Reason.NOT_JSON


@pytest.mark.parametrize("schema_id", [0, 1, 7, 200, 2**32 - 1])
@pytest.mark.parametrize("between", [b"", b" ", b"\xef\xbb\xbf"])
def test_a_schema_registry_prefix_is_removed_and_becomes_context(schema_id: int, between: bytes) -> None:
    found = read(b"\0" + schema_id.to_bytes(4) + between + BODY, {"schema_registry_id": "theirs"})

    assert isinstance(found, Envelope)
    assert json.loads(found.context or "") == {
        "schema_registry_id": "theirs",
        "schema_registry_id#2": str(schema_id),
    }
    assert found.message_id == "o-1"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (gzipped(BODY), "content-encoding"),
        (base64.b64encode(gzipped(BODY)), "content-encoding"),
        (b"\0\0\0\0\1\x02\x06abc", "schema registry"),
        (b"\0\0\0\0\xff\x02", "schema registry"),
        (b"\0", "schema registry"),
    ],
)
def test_a_body_that_looks_compressed_is_rejected_with_advice(body: bytes, words: str) -> None:
    found = malformed(body)

    assert found.reason in (Reason.NOT_UTF8, Reason.NOT_JSON)
    assert words in found.detail["message"]
