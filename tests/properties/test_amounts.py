"""What Python lets through a meter can add, and what it refuses it could not: both know the same bounds."""

import itertools
import json
import random
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from processor.model import Message, Rejection
from processor.operations import registry
from processor.validation.meter_amounts import text_amount
from tests.builders import a_delivery
from tests.fixtures.database import Saver
from tests.fixtures.meters import add_meter

Db = psycopg.Connection[Any]

MISSES = {"value_negative", "value_out_of_bounds"}
POINTERS = (
    "", "/amount", "/a~1b/~0",
    "/list/0", "/list/1/amount", "/list/10", "/list/-", "/", "//x", "/0/1", "/é/x y",
)  # fmt: skip
NUMBERS = """
    0 -0 0.0 -0.0 0e0 0e-38 0e-39 -0e-39 0E5 1 -1 1.0 1.5e1
    1e37 1e38 -1e38 1E+38 1e+37 1e+38 -1e+38 9.999999999999999e37 1.0e38
    99999999999999999999999999999999999999 100000000000000000000000000000000000000
    99999999999999999999999999999999999999.5 -99999999999999999999999999999999999999.99
    99999999999999999999999999999999999999.00000000000000000000000000000000000001
    1e-20 1e-21 1.5e-21 1e-37 1e-38 1e-39 1.5e-38 12e-39 -1e-39 123456789012345678e-38 5e-307 1e308 1e-308
    0.00000000000000000000000000000000000001 0.000000000000000000000000000000000000010
    1234567890123456789012345678.12345678901234567890123456789012345678 12345678901234567.89e-5
""".split()  # noqa: SIM905 - numbers are read best so


def a_number(chance: random.Random) -> str:
    if chance.random() < 0.5:
        return chance.choice(NUMBERS)
    digits = str(chance.randrange(1, 10 ** chance.choice([1, 5, 17, 30, 45])))
    point = chance.choice(["", "", "." + str(chance.randrange(10 ** chance.choice([1, 17, 40])))])
    exponent = chance.choice(["", "", f"e{chance.randint(-45, 45)}", f"E+{chance.randint(0, 40)}"])
    return chance.choice(["", "", "-"]) + digits + point + exponent


TEXTS = [
    *NUMBERS,
    *(
        "+1",
        "01",
        "-01",
        "1.",
        ".5",
        "1e",
        "1e+",
        "0x1",
        "1_000",
        "1,5",
        " 1",
        "1 ",
        "1\n",
        "\t1",
        "--1",
        "1e5.0",
    ),
    *(
        "NaN",
        "nan",
        "Infinity",
        "-Infinity",
        "inf",
        "",
        "-",
        "e5",
        "true",
        "null",
        "\u0661",
        "\uff11",
        "\u00b2",
    ),
    *("1e999", "1e-999", "1e1000", "1e0000999", "1e00001000", "1e-0", "-1e-999", "9" * 1000, "9" * 1001),
    *("0." + "0" * 998, "0." + "0" * 999, "-0." + "0" * 998, "1" + "0" * 999, "0e999", "0e-999"),
]
"""What may stand in quotes: numbers as JSON spells them, within the limits and beyond, and what is none."""


def a_text(chance: random.Random) -> str:
    """A text as it stands in JSON, which may spell a number."""
    text = chance.choice([a_number(chance), a_number(chance), chance.choice(TEXTS)])
    return json.dumps(chance.choice(["", "", "", " "]) + text)


def a_value(chance: random.Random, depth: int = 0) -> str:
    """A JSON text with numbers as people write them, where pointers lead and where they don't."""
    kind = chance.choice(["number"] * 4 + ["text"] * 2 + ["odd"] + ["list", "object", "object"] * (depth < 3))
    if kind == "number":
        return a_number(chance)
    if kind == "text":
        return a_text(chance)
    if kind == "odd":
        return chance.choice(['"12"', "true", "false", "null", '""', "[]", "{}"])
    if kind == "list":
        return f"[{', '.join(a_value(chance, depth + 1) for _ in range(chance.choice([0, 2, 12])))}]"
    names = chance.sample(["amount", "a/b", "~", "list", "0", "1", "10", "-", "", "x", "é", "x y"], 6)
    return f"{{{', '.join(f'{json.dumps(name)}: {a_value(chance, depth + 1)}' for name in names)}}}"


def of_sql(db: Db, payload: str) -> dict[str, str | None]:
    """What the meters make of a payload that is stored now: the miss of each, by name."""
    rows = db.execute(
        "SELECT meter.meter, miss FROM metered('acme', 'm', '', 'amount', %s::jsonb, now(), now())"
        " JOIN meter USING (meter_id)",
        [payload],
    )
    return dict(rows.fetchall())


def test_no_message_that_passed_is_missed_for_its_amount_and_what_is_refused_would_be(
    saver: Saver, db: Db
) -> None:
    registry.publish_schema(db, "amount", {})
    for number, pointer in enumerate(POINTERS):
        for corrections, texts in itertools.product((False, True), (None, "-infinity")):
            name = f"m{number}-{'signed' if corrections else 'plain'}{'-texts' if texts else ''}"
            columns = {
                "value_pointer": pointer,
                "allows_corrections": corrections,
                "text_amounts_from": texts,
            }
            add_meter(db, name, event_type="amount", group_names=[], group_pointers=[], **columns)
    db.execute("UPDATE meter SET active_from = '2000-01-01Z'")
    saver.store.load_registry()

    @given(st.integers(0, 2**32))
    @example(0)
    def they_agree(seed: int) -> None:
        chance = random.Random(seed)
        payload = a_value(chance)
        body = f'{{"tenant_id": "acme", "event_type": "amount", "payload": {payload}}}'.encode()

        verdict = saver.schemas.validate(a_delivery(body, sent_now=True))

        missed = {meter for meter, miss in of_sql(db, payload).items() if miss in MISSES}
        if isinstance(verdict, Message):
            assert missed == set(), payload
        elif verdict.reason == "schema_violation":
            (error,) = verdict.detail["errors"]
            assert error["rule"].removeprefix("meter ") in missed, payload
        else:
            # Python's own bounds, which are wider than a meter's.
            assert verdict.reason == "not_json", payload

    they_agree()


def test_a_text_spells_the_same_number_for_python_and_sql(db: Db) -> None:
    """Or none for both, whatever it is."""

    storable = st.characters(exclude_categories=["Cs"], exclude_characters="\0")

    @given(st.integers(0, 2**32), st.text(storable, max_size=12))
    def they_agree(seed: int, anything: str) -> None:
        chance = random.Random(seed)
        for text in (anything, json.loads(a_text(chance)), chance.choice(TEXTS)):
            row = db.execute("SELECT text_amount(%s)", [text]).fetchone()

            assert row == (text_amount(text),), text

    they_agree()
    for text in TEXTS:
        assert db.execute("SELECT text_amount(%s)", [text]).fetchone() == (text_amount(text),), text


def test_each_number_is_judged_alike(saver: Saver, db: Db) -> None:
    """One by one, as each is written and by itself, so that none hides behind another of its payload."""
    registry.publish_schema(db, "amount", {})
    for name, corrections, texts in (
        ("plain", False, None),
        ("signed", True, None),
        ("plain-texts", False, "-infinity"),
        ("signed-texts", True, "-infinity"),
    ):
        columns = {"value_pointer": "/amount", "allows_corrections": corrections, "text_amounts_from": texts}
        add_meter(db, name, event_type="amount", group_names=[], group_pointers=[], **columns)
        saver.store.load_registry()
        for number in [*NUMBERS, *map(json.dumps, TEXTS)]:
            for spaces in ("", " "):
                # With a space it is read by another reader, which gives another type.
                payload = f'{{"amount":{spaces}{number}}}'
                body = f'{{"tenant_id":"acme","event_type":"amount","payload":{payload}}}'.encode()

                verdict = saver.schemas.validate(a_delivery(body, sent_now=True))

                if isinstance(verdict, Rejection) and verdict.reason == "not_json":
                    continue
                refused = isinstance(verdict, Rejection)
                assert refused == bool(set(of_sql(db, payload).values()) & MISSES), (number, corrections)
        db.execute("UPDATE meter SET status = 'retired'")


@pytest.mark.parametrize(
    ("pointer", "payload", "found"),
    [
        ("", "-1", True),
        ("/0", "-1", False),
        ("/list/10", f'{{"list": [{"0, " * 10}-1]}}', True),
        ("/list/10", '{"list": [0, -1]}', False),
        ("/list/10", '{"list": {"10": -1}}', True),
        ("/list/-", '{"list": [-1]}', False),
        ("/list/4294967296", '{"list": [-1]}', False),
        ("/list/99999999999999999999", '{"list": [-1]}', False),
        ("/list/1.0", '{"list": [0, -1]}', False),
        ("/list/\u0660", '{"list": [-1]}', False),
        ("/a~1b/~0~01", '{"a/b": {"~~1": -1}}', True),
        ("//", '{"": {"": -1}}', True),
        ("/a", '{"A": -1}', False),
        ("/é", '{"\\u00e9": -1}', True),
    ],
)
def test_a_pointer_leads_both_to_the_same_place(
    saver: Saver, db: Db, pointer: str, payload: str, found: bool
) -> None:
    registry.publish_schema(db, "amount", {})
    add_meter(db, event_type="amount", value_pointer=pointer, group_names=[], group_pointers=[])
    saver.store.load_registry()
    body = f'{{"tenant_id": "acme", "event_type": "amount", "payload": {payload}}}'.encode()

    verdict = saver.schemas.validate(a_delivery(body, sent_now=True))

    assert isinstance(verdict, Rejection) == found
    assert (of_sql(db, payload) == {"pulse": "value_negative"}) == found


def test_the_bounds_are_where_they_are_said_to_be(saver: Saver, db: Db) -> None:
    registry.publish_schema(db, "pulse", {})
    add_meter(db)
    add_meter(db, "acme-only", tenant_id="acme", value_pointer="/detail/amount")
    saver.store.load_registry()

    def said(tenant_id: str, **payload: Any) -> str | None:
        delivery = a_delivery(tenant_id=tenant_id, event_type="pulse", payload=payload)
        verdict = saver.schemas.validate(delivery)
        return None if isinstance(verdict, Message) else verdict.detail["message"]

    assert said("acme", used_amount=0) is None
    assert said("acme", used_amount=-1) == "/used_amount: a negative amount; expected 0 or more (meter pulse)"
    assert said("acme", used_amount=10**38) == (
        "/used_amount: the amount is too large; expected an absolute value below 1e38 (meter pulse)"
    )
    assert said("acme", used_amount=float(Decimal("1e-39"))) == (
        "/used_amount: an amount with 39 decimal places; expected at most 38 (meter pulse)"
    )
    assert said("acme", used_amount="-1") is None
    db.execute("UPDATE meter SET text_amounts_from = 'infinity' WHERE meter = 'pulse'")
    saver.store.load_registry()
    assert said("acme", used_amount="one") is None
    assert said("acme", used_amount="-1") == (
        "/used_amount: a negative amount; expected 0 or more (meter pulse)"
    )
    assert said("acme") is None
    assert said("acme", used_amount=1, detail={"amount": -1}) == (
        "/detail/amount: a negative amount; expected 0 or more (meter acme-only)"
    )
    assert said("globex", used_amount=1, detail={"amount": -1}) is None
