"""Tests that a message's origin implies its tenant and event type if the message does not have them."""

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
def test_the_implied_tenant_fills_a_missing_one_in_every_format(name: str) -> None:
    found = envelope(NAMELESS[name], implied=TENANT)

    assert (found.tenant_id, found.message_id, found.producer) == ("acme", "e-1", "/shop")
    assert found.context is None
    assert malformed(NAMELESS[name]).reason is Reason.ENVELOPE_INVALID


def test_the_payload_of_a_pulse_always_has_the_tenant() -> None:
    assert json.loads(envelope(a_pulse(tenant_id=...), implied=TENANT).payload) == a_pulse()


@pytest.mark.parametrize("body", [{"total": 1}, [1], "text", None, a_pulse()])
@pytest.mark.parametrize("beside", [{}, {"tenant_id": "acme"}, {"event_type": "order.created"}])
def test_a_body_is_the_payload_if_attributes_and_origin_give_tenant_and_type(
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
def test_explicit_values_precede_implied_ones(body: dict[str, Any]) -> None:
    beside: dict[str, Any] = {"tenant_id": "acme", "event_type": "order.created"}
    said = {} if "product_sku" in body else beside

    assert envelope(body, said, {"tenant_id": "globex"}).tenant_id == "acme"


@pytest.mark.parametrize("body", [a_cloudevent(), an_event(), {"total": 1}])
def test_an_event_type_that_differs_from_the_implied_one_is_rejected_with_both(
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
def test_a_binding_to_one_tenant_implies_the_tenant(bindings: dict[str, Any]) -> None:
    verdict = the_verdict({"total": 1}, **bindings)

    assert isinstance(verdict, Message), verdict
    assert (verdict.tenant_id, verdict.event_type) == ("acme", "order.created")
    assert isinstance(the_verdict({"total": 1}), Rejection)


def test_a_tenant_outside_the_binding_is_rejected_by_the_binding() -> None:
    verdict = the_verdict(
        {"total": 1}, {"tenant_id": "globex"}, queue=QUEUE, queue_tenants=frozenset({"acme"})
    )

    assert isinstance(verdict, Rejection)
    assert verdict.detail["allowed"] == ["acme"]
    assert verdict.claimed.tenant_id == "globex"
