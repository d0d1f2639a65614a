"""The line for each outcome: who and what became of it, whatever came, and nothing of what it carried."""

import json

import pytest
from structlog.testing import capture_logs

from processor.pipeline.outcome_log import log_outcomes
from tests.builders import a_body, a_delivery
from tests.fixtures.database import Saver

SECRET = "sesame"
NAMES = ("outcome", "reason", "tenant_id", "event_type", "message_id")


def logged(saver: Saver, body: bytes) -> tuple[object, ...]:
    """What the one line says of a delivery of this body, which it may not repeat."""
    delivery = a_delivery(body)
    verdicts = [saver.schemas.validate(delivery)]
    with capture_logs() as lines:
        log_outcomes(verdicts, saver.store.save(verdicts))
    [line] = lines
    assert SECRET not in str(line)
    assert (line["queue"], line["delivery_id"]) == delivery.key
    return tuple(line.get(name) for name in NAMES)


def test_each_outcome_is_named_with_its_event(saver: Saver) -> None:
    payload = {"total": 1, "note": SECRET}
    body = a_body(id="o-1", payload=payload)

    assert logged(saver, body) == ("stored", None, "acme", "order.created", "o-1")
    assert logged(saver, body) == ("duplicate", None, "acme", "order.created", "o-1")
    assert logged(saver, a_body(id="o-1", payload=payload | {"total": 2}))[:2] == ("rejected", "id_conflict")
    assert logged(saver, a_body(id="o-2", tenant_id="nobody", payload=payload)) == (
        "rejected",
        "unknown_tenant",
        "nobody",
        "order.created",
        "o-2",
    )


@pytest.mark.parametrize(
    "body",
    [
        SECRET.encode(),
        json.dumps({"tenant_id": "x" * 5000, "event_type": "\ud800", "payload": SECRET}).encode(),
        json.dumps({"tenant_id": {"a": SECRET}, "event_type": 7, "payload": SECRET}).encode(),
    ],
)
def test_what_can_not_be_read_is_one_short_line_too(saver: Saver, body: bytes) -> None:
    outcome, _, tenant_id, *_ = logged(saver, body)

    assert outcome == "rejected"
    assert len(str(tenant_id)) <= 256
