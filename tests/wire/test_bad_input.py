"""Tests that any body becomes one readable row, without effect on its stored neighbours."""

from typing import Any

import psycopg
import pytest

from processor.operations import registry
from processor.wire.formats import Attribute
from tests.builders import a_body, a_delivery
from tests.fixtures.database import Saver, books
from tests.fixtures.readers import ReadBack

Db = psycopg.Connection[Any]

MIB = 1024 * 1024
EMOJI = "\U0001f980"


def payload(text: bytes) -> bytes:
    """A body whose payload's note is this JSON text."""
    return a_body(payload={"total": 1, "note": "TEXT"}).replace(b'"TEXT"', text)


def total(digits: bytes) -> bytes:
    """A body whose total is this number."""
    return a_body(payload={"total": "DIGITS"}).replace(b'"DIGITS"', digits)


def field(text: bytes) -> bytes:
    """A body whose envelope has one more field."""
    return a_body().replace(b"{", b"{" + text + b", ", 1)


BODIES: list[tuple[str, bytes, str]] = [
    ("nothing", b"", "not_json"),
    ("plain text", b"Hello World", "not_json"),
    ("latin-1", b'{"a": "caf\xe9"}', "not_utf8"),
    ("utf-16", '{"a": 1}'.encode("utf-16"), "not_utf8"),
    ("gzip", b"\x1f\x8b\x08\x00\x00", "not_utf8"),
    ("all bytes", bytes(range(256)), "not_utf8"),
    ("surrogates in utf-8", b'"\xed\xa0\x80"', "not_utf8"),
    ("nul bytes", b"\0\0\0", "not_json"),
    ("a byte order mark", b"\xef\xbb\xbf" + a_body(), "stored"),
    ("NaN", total(b"NaN"), "not_json"),
    ("duplicate keys", field(b'"x": 1, "x": 2'), "not_json"),
    ("duplicate ids", field(b'"id": "a"'), "not_json"),
    ("a scalar", b"42", "envelope_invalid"),
    ("a text", b'"\\ud800\\u0000"', "envelope_invalid"),
    ("an array", b"[" + a_body() + b"]", "envelope_invalid"),
    ("an empty object", b"{}", "envelope_invalid"),
    ("nested", b"[" * 64 + b"]" * 64, "envelope_invalid"),
    ("nested too deeply", b"[" * 65 + b"]" * 65, "not_json"),
    ("nested beyond sense", b'{"a":' * 200_000, "not_json"),
    ("escaped quotes", b'"' + b'\\"' * 500_000 + b"[" * 65, "not_json"),
    ("as large as can be", a_body(payload={"total": 1, "note": "x" * (MIB - 200)}), "stored"),
    ("too large", b" " * (MIB + 1), "too_large"),
    ("much too large", b"\xff" * (3 * MIB), "too_large"),
    ("a large number", total(b"1e308"), "stored"),
    ("a small number", total(b"1e-308"), "stored"),
    ("thirty digits", total(b"123456789012345678901234567890.123456789012345678901234567890"), "stored"),
    ("minus zero", total(b"-0"), "stored"),
    ("minus zero point zero", total(b"-0.0"), "stored"),
    ("an exponent", total(b"1E5"), "stored"),
    ("zero with an exponent", total(b"0e-300"), "stored"),
    ("beyond a double", total(b"9e308"), "not_json"),
    ("an absurd exponent", total(b"1e999999"), "not_json"),
    ("an absurd zero", total(b"0e-999999"), "not_json"),
    ("ten thousand digits", total(b"9" * 10_000), "not_json"),
    ("nul in a value", payload(b'"a\\u0000b"'), "unstorable"),
    ("nul in a key", a_body(payload={"total": 1, "a\0b": 1}), "unstorable"),
    ("a high surrogate", payload(b'"\\ud83d"'), "unstorable"),
    ("a low surrogate", payload(b'"\\udc00"'), "unstorable"),
    ("surrogates in disorder", payload(b'"\\udc00\\ud83d"'), "unstorable"),
    ("a surrogate in a key", a_body(payload={"total": 1, "\ud800": 1}), "unstorable"),
    ("a surrogate where a number should be", total(b'"\\ud800"'), "unstorable"),
    ("a surrogate pair", payload(b'"\\ud83e\\udd80"'), "stored"),
    ("emoji", payload(f'"{EMOJI}"'.encode()), "stored"),
    ("right to left", payload('"\u202e\u0645\u0631\u202c"'.encode()), "stored"),
    ("noncharacters", payload('"\uffff\ufffe\ufdd0"'.encode()), "stored"),
    ("a byte order mark inside", payload('"\ufeff"'.encode()), "stored"),
    ("escaped controls", payload(b'"\\u0001\\u001b[31m\\u007f\\r\\n"'), "stored"),
    ("nul in the context", field(b'"x": "\\u0000"'), "unstorable"),
    ("nul in a key of the context", field(b'"\\u0000": 1'), "unstorable"),
    ("a surrogate in the context", field(b'"x": ["\\ud800"]'), "unstorable"),
    ("a surrogate in a key of the context", field(b'"\\udfff": 1'), "unstorable"),
    ("numbers in the context", field(b'"x": [1e308, 123456789012345678901234567890, -0, 1.10]'), "stored"),
    ("depth in the context", field(b'"x": ' + b"[" * 60 + b"]" * 60), "stored"),
    ("nul in the id", a_body(id="a\0b"), "envelope_invalid"),
    ("a surrogate in the id", a_body(id="\ud800"), "envelope_invalid"),
    ("controls in the tenant", a_body(tenant_id="acme\r\n\x1b[2J"), "envelope_invalid"),
    ("a surrogate in the tenant", a_body(tenant_id="\ud800"), "envelope_invalid"),
    ("nul in the event type", a_body(event_type="\0"), "envelope_invalid"),
    ("an oversized id", a_body(id="x" * 257), "envelope_invalid"),
    ("an enormous id", a_body(id=EMOJI * 80_000), "envelope_invalid"),
    ("an enormous tenant", a_body(tenant_id="\0" * 100_000), "envelope_invalid"),
    ("the longest ids", a_body(id=EMOJI * 256, producer=EMOJI * 256), "stored"),
    ("an odd time", a_body(occurred_at="2016-12-31T23:58:60Z"), "envelope_invalid"),
    ("a leap second", a_body(occurred_at="2016-12-31T23:59:60Z"), "stored"),
    ("a time without a zone", a_body(occurred_at="2026-11-22T10:00:00"), "envelope_invalid"),
    ("year 0", a_body(occurred_at="0000-01-01T00:00:00Z"), "envelope_invalid"),
    ("year 10000", a_body(occurred_at="9999-12-31T23:59:59-12:00"), "envelope_invalid"),
    ("the first time", a_body(occurred_at="0001-01-02T00:00:00Z"), "stored"),
    ("the last time", a_body(occurred_at="9999-12-30T00:00:00Z"), "stored"),
    ("wrong types", a_body(id=[], tenant_id={}, event_type=1, producer=False), "envelope_invalid"),
    ("an unknown tenant", a_body(tenant_id="nobody"), "unknown_tenant"),
    ("an odd unknown tenant", a_body(tenant_id=f"'; DROP TABLE message; -- {EMOJI}"), "unknown_tenant"),
    ("a suspended tenant", a_body(tenant_id="globex"), "tenant_suspended"),
    ("an unknown event type", a_body(event_type="%s"), "unknown_event_type"),
    ("an unknown version", a_body(schema_version=99), "unknown_schema_version"),
    ("a payload of the wrong type", a_body(payload="text"), "schema_violation"),
    ("a payload of wrong types", a_body(payload={"total": [], "note": {}}), "schema_violation"),
    ("nul in what is wrong", a_body(payload={"total": "\0", "note": 1}), "schema_violation"),
    ("a long list of wrong things", a_body(payload=[EMOJI * 1000] * 50), "schema_violation"),
    ("data in base64", b'{"specversion": "1.0", "data_base64": "AA=="}', "envelope_invalid"),
    ("a pulse nobody can place", b'{"product_sku": null, "used_amount": {}}', "envelope_invalid"),
]


@pytest.mark.parametrize(("body", "outcome"), [case[1:] for case in BODIES], ids=[case[0] for case in BODIES])
def test_any_body_becomes_one_row_between_stored_neighbours(
    saver: Saver, db: Db, body: bytes, outcome: str
) -> None:
    registry.set_tenant_status(db, "globex", "suspended")
    delivery = a_delivery(body)

    outcomes = saver.outcomes(a_delivery(), delivery, a_delivery())

    assert outcomes == ["stored", outcome, "stored"]
    if outcome == "stored":
        assert books(db) == {"message": 3, "duplicate": 0, "rejection": 0}
    else:
        kept = db.execute("SELECT body, reason, delivery_id, detail ->> 'message' FROM rejection").fetchall()
        assert [row[:3] for row in kept] == [(body, outcome, delivery.delivery_id)]
        assert kept[0][3]


def test_one_batch_of_all_bodies_gives_the_same_rows_and_can_be_read_back(
    saver: Saver, db: Db, read_back: ReadBack
) -> None:
    registry.set_tenant_status(db, "globex", "suspended")
    deliveries = [a_delivery(body) for _, body, _ in BODIES]

    outcomes = saver.outcomes(*deliveries)

    assert outcomes == [outcome for *_, outcome in BODIES]
    assert sum(books(db).values()) == len(BODIES)
    read_back()
    assert saver.outcomes(*deliveries) == ["redelivered"] * len(BODIES)


def test_numbers_are_stored_to_the_last_digit(saver: Saver, db: Db) -> None:
    digits = ["1.10", "123456789012345678901234567890.5", "0.1000000000000000000001", "12e3", "1e-5"]

    saver.save(*[a_delivery(total(text.encode())) for text in digits])

    rows = db.execute("SELECT payload ->> 'total' FROM message ORDER BY delivery_id").fetchall()
    assert sorted(row[0] for row in rows) == sorted(
        ["1.10", "123456789012345678901234567890.5", "0.1000000000000000000001", "12000", "0.00001"]
    )


def test_ids_too_long_for_an_index_entry_are_unstorable_and_affect_no_others(saver: Saver, db: Db) -> None:
    # Each id is within its limit, and together they are 3 KB of incompressible text: a B-tree takes 2.7 KB.
    ids = [
        "".join(chr(0x10000 + (place * 7919 + seed) % 0xEFFFF) for place in range(256)) for seed in (1, 2, 3)
    ]
    registry.add_tenant(db, ids[0])
    delivery = a_delivery(tenant_id=ids[0], id=ids[1], producer=ids[2])

    assert saver.outcomes(a_delivery(), delivery, a_delivery()) == ["stored", "unstorable", "stored"]
    assert saver.outcomes(delivery) == ["redelivered"]


def test_poison_of_a_newly_added_tenant_is_unstorable(saver: Saver, db: Db) -> None:
    # Its verdict by the older registry was a rejection; within the transaction it became a message.
    registry.add_tenant(db, "newcomer")
    poison = a_delivery(tenant_id="newcomer", payload={"total": 1, "note": "\0"})

    assert saver.outcomes(a_delivery(), poison, a_delivery()) == ["stored", "unstorable", "stored"]


# ── attributes ────────────────────────────────────────────────────────────────────────────────────────

OF_AN_EVENT: dict[str, Attribute] = {"tenant_id": "acme", "event_type": "order.created"}

ATTRIBUTES: list[tuple[str, dict[str, Attribute], str]] = [
    ("none", {}, "envelope_invalid"),
    ("enough", OF_AN_EVENT, "stored"),
    ("a binary tenant", OF_AN_EVENT | {"tenant_id": b"acme"}, "envelope_invalid"),
    ("a binary event type", OF_AN_EVENT | {"event_type": b"\0\xff"}, "envelope_invalid"),
    ("a binary id", OF_AN_EVENT | {"message_id": b"\xff"}, "envelope_invalid"),
    ("an empty tenant", OF_AN_EVENT | {"tenant_id": ""}, "envelope_invalid"),
    ("nul in the tenant", OF_AN_EVENT | {"tenant_id": "\0"}, "envelope_invalid"),
    ("a surrogate in the producer", OF_AN_EVENT | {"producer": "\ud800"}, "envelope_invalid"),
    ("a number as id", OF_AN_EVENT | {"message_id": "42"}, "stored"),
    ("an odd version", OF_AN_EVENT | {"schema_version": "1.0"}, "envelope_invalid"),
    ("an odd time", OF_AN_EVENT | {"occurred_at": "1700000000"}, "envelope_invalid"),
    ("an unknown tenant", OF_AN_EVENT | {"tenant_id": "nobody"}, "unknown_tenant"),
    ("strangers", OF_AN_EVENT | {"x": "1", "y": b"\0\xff", EMOJI: EMOJI}, "stored"),
    ("nul in a stranger", OF_AN_EVENT | {"x": "a\0b"}, "unstorable"),
    ("nul in a stranger's name", OF_AN_EVENT | {"a\0b": "x"}, "unstorable"),
    ("a surrogate in a stranger", OF_AN_EVENT | {"x": "\ud800"}, "unstorable"),
    ("an enormous stranger", OF_AN_EVENT | {"x": "y" * 200_000}, "stored"),
    ("only binary", {"a": b"\0" * 1000}, "envelope_invalid"),
    ("odd names", {"": "", "\0": "\0", "\ud800": "\ud800", "a\ufffd": b""}, "envelope_invalid"),
]


@pytest.mark.parametrize(
    ("attributes", "outcome"), [case[1:] for case in ATTRIBUTES], ids=[case[0] for case in ATTRIBUTES]
)
def test_any_attributes_become_one_row_between_stored_neighbours(
    saver: Saver, db: Db, attributes: dict[str, Attribute], outcome: str, read_back: ReadBack
) -> None:
    delivery = a_delivery(b'{"total": 1}', attributes=attributes)

    assert saver.outcomes(a_delivery(), delivery, a_delivery()) == ["stored", outcome, "stored"]
    assert sum(books(db).values()) == 3
    read_back()


def test_a_rejection_keeps_attributes_of_both_kinds(saver: Saver, db: Db) -> None:
    saver.save(a_delivery(b"nonsense", attributes={"text": "a\0b", "binary": b"\0\xff", "number": "1.5"}))

    row = db.execute("SELECT attributes FROM rejection").fetchone()
    assert row == ({"text": "a\ufffdb", "binary": {"base64": "AP8="}, "number": "1.5"},)


def test_claims_are_truncated_and_made_storable(saver: Saver, db: Db) -> None:
    saver.save(a_delivery(tenant_id="t" * 300, id="a\0b", event_type="\ud800x", producer=EMOJI * 300))

    row = db.execute("SELECT tenant_id, message_id, event_type, producer FROM rejection").fetchone()
    assert row == ("t" * 255 + "…", "a\ufffdb", "\ufffdx", EMOJI * 255 + "…")
