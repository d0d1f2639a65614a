"""Tests published schemas of other drafts and of several documents, and the verdicts on their events."""

import json
from pathlib import Path

from tests.builders import a_delivery
from tests.cli.test_cli import FINE, USAGE, Command
from tests.cli.test_cli import run as run  # noqa: PLC0414 - a fixture
from tests.fixtures.database import Saver

SEVEN = "http://json-schema.org/draft-07/schema#"


def test_a_bundle_is_stored_complete_and_validates_its_events(
    run: Command, saver: Saver, tmp_path: Path
) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "money.json").write_text(
        '{"definitions": {"amount": {"maximum": 99999999999999999.99}}}'
    )
    root = tmp_path / "order.json"
    root.write_text(json.dumps({"properties": {"total": {"$ref": "parts/money.json#/definitions/amount"}}}))

    assert run("schema", "publish", "order.lost", root).code == USAGE
    assert run("schema", "publish", "order.lost", root, "--with", tmp_path / "parts").code == FINE

    shown = run("schema", "show", "order.lost").out
    assert "99999999999999999.99" in shown
    assert saver.outcomes(
        a_delivery(event_type="order.lost", payload={"total": 12}),
        a_delivery(event_type="order.lost", payload={"total": 100000000000000000}),
    ) == ["stored", "schema_violation"]


def test_a_given_draft_is_stored_and_applied(run: Command, saver: Saver, tmp_path: Path) -> None:
    root = tmp_path / "order.json"
    root.write_text('{"items": [{"type": "integer"}], "additionalItems": false}')

    assert run("schema", "publish", "order.lost", root, "--draft", "latest").code == USAGE
    assert run("schema", "publish", "order.lost", root, "--draft", "7").code == FINE

    assert json.loads(run("schema", "show", "order.lost").out)["$schema"] == SEVEN
    assert saver.outcomes(
        a_delivery(event_type="order.lost", payload=[1]), a_delivery(event_type="order.lost", payload=[1, 2])
    ) == ["stored", "schema_violation"]
