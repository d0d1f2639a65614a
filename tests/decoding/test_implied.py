"""The way by which a message came may say whose it is and of which type, where the message does not."""

import json
from typing import Any

import pytest

from processor.errors import Reason
from processor.model import Message, QueueRules, Registry, Rejection, Verdict
from processor.validation.tenant_bindings import Bindings
from processor.validation.validator import Schemas
from tests.builders import QUEUE, a_delivery, an_event
from tests.validation.test_validator import a_schema
from tests.wire.reading import a_cloudevent, a_pulse, envelope, malformed

TENANT = {"tenant_id": "acme"}
BOTH = TENANT | {"event_type": "order.created"}

NAMELESS = {
    "cloudevents": a_cloudevent(tenantid=...),
    "cloudevents with null": a_cloudevent(tenantid=None),
    "native": an_event(tenant_id=None, id="e-1", producer="/shop"),
    "native with null": an_event(id="e-1", producer="/shop") | {"tenant_id": None},
    "pulse": a_pulse(tenant_id=..., id="e-1", producer="/shop"),
    "pulse with null": a_pulse(tenant_id=None, id="e-1", producer="/shop"),
    "pulse with both null": a_pulse(tenant_id=None, tenant=None, id="e-1", producer="/shop"),
}


@pytest.mark.parametrize("name", NAMELESS)
def test_in_every_format_the_tenant_that_is_implied_fills_an_open_one(name: str) -> None:
    found = envelope(NAMELESS[name], implied=TENANT)

    assert (found.tenant_id, found.message_id, found.producer) == ("acme", "e-1", "/shop")
    assert found.context is None
    assert malformed(NAMELESS[name]).reason is Reason.ENVELOPE_INVALID


def test_a_pulse_has_the_tenant_in_its_payload_wherever_it_is_said() -> None:
    assert json.loads(envelope(a_pulse(tenant_id=...), implied=TENANT).payload) == a_pulse()


@pytest.mark.parametrize("body", [{"total": 1}, [1], "text", None, a_pulse()])
@pytest.mark.parametrize("beside", [{}, {"tenant_id": "acme"}, {"event_type": "order.created"}])
def test_a_bare_body_is_the_payload_where_attributes_and_way_together_say_whose_and_what(
    body: Any, beside: dict[str, Any]
) -> None:
    implied = {name: value for name, value in BOTH.items() if name not in beside}

    found = envelope(body, beside, implied)

    assert (found.tenant_id, found.event_type, found.payload_value) == ("acme", "order.created", body)
    for name in implied:
        less = {other: value for other, value in implied.items() if other != name}
        if body != a_pulse():
            assert malformed(body, beside, less).reason is Reason.ENVELOPE_INVALID


@pytest.mark.parametrize("body", [a_cloudevent(), an_event(), a_pulse(), {"total": 1}])
def test_what_is_implied_goes_behind_what_is_said(body: dict[str, Any]) -> None:
    beside: dict[str, Any] = {"tenant_id": "acme", "event_type": "order.created"}
    said = {} if "product_sku" in body else beside

    assert envelope(body, said, {"tenant_id": "globex"}).tenant_id == "acme"


@pytest.mark.parametrize("body", [a_cloudevent(), an_event(), {"total": 1}])
def test_another_event_type_than_the_one_that_is_implied_is_refused_by_both_names(
    body: dict[str, Any],
) -> None:
    beside: dict[str, Any] = {} if "total" not in body else {"event_type": "order.created"}

    found = malformed(body, beside, TENANT | {"event_type": "refund"})

    assert found.reason is Reason.ENVELOPE_INVALID
    assert "'order.created'" in found.detail["message"]
    assert "'refund'" in found.detail["message"]


def the_verdict(body: Any, attributes: dict[str, Any] | None = None, **bindings: Any) -> Verdict:
    judge = Schemas(
        body_bytes_max=1024 * 1024,
        json_depth_max=64,
        bindings=Bindings(**bindings),
        said={QUEUE: QueueRules(event_type="order.created")},
    )
    judge.install(Registry(7, {"acme": False, "globex": False}, (a_schema(),)))
    return judge.validate(a_delivery(json.dumps(body).encode(), attributes=attributes, sender_id="AIDA1"))


@pytest.mark.parametrize(
    "bindings",
    [
        {"queue": QUEUE, "queue_tenants": frozenset({"acme"})},
        {"sender_tenants": {"AIDA1": frozenset({"acme"})}},
        {
            "queue": QUEUE,
            "queue_tenants": frozenset({"acme", "globex"}),
            "sender_tenants": {"AIDA1": frozenset({"acme"})},
        },
    ],
)
def test_a_queue_or_sender_bound_to_one_tenant_says_whose_an_event_is(bindings: dict[str, Any]) -> None:
    verdict = the_verdict({"total": 1}, **bindings)

    assert isinstance(verdict, Message), verdict
    assert (verdict.tenant_id, verdict.event_type) == ("acme", "order.created")
    assert isinstance(the_verdict({"total": 1}), Rejection)


def test_another_tenant_than_the_bound_one_stays_the_bindings_refusal() -> None:
    verdict = the_verdict(
        {"total": 1}, {"tenant_id": "globex"}, queue=QUEUE, queue_tenants=frozenset({"acme"})
    )

    assert isinstance(verdict, Rejection)
    assert verdict.detail["allowed"] == ["acme"]
    assert verdict.claimed.tenant_id == "globex"
