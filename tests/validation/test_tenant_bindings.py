"""Tests which tenants a delivery may name: by queue and sender, never by its body."""

import json
from typing import Any

import pytest

from processor.errors import Reason
from processor.model import Delivery, Message, Registry, Rejection, Verdict
from processor.validation.tenant_bindings import UNBOUND, Bindings
from processor.validation.validator import Schemas
from tests.builders import QUEUE, a_delivery
from tests.validation.test_validator import a_schema
from tests.wire.reading import a_cloudevent, a_pulse

ACME, GLOBEX = frozenset({"acme"}), frozenset({"globex"})
BOTH = ACME | GLOBEX


def a_judge(bindings: Bindings) -> Schemas:
    judge = Schemas(body_bytes_max=1024 * 1024, json_depth_max=64, bindings=bindings)
    schemas = (a_schema(), a_schema("{}", schema_id=2, event_type="pulse"))
    judge.install(Registry(7, {"acme": False, "globex": False}, schemas))
    return judge


def the_verdict(delivery: Delivery, **bindings: Any) -> Verdict:
    return a_judge(Bindings(**bindings)).validate(delivery)


def is_refused(verdict: Verdict) -> bool:
    if isinstance(verdict, Message):
        return False
    assert verdict.reason is Reason.ENVELOPE_INVALID, verdict
    return True


FORMATS = {
    "attributes": lambda tenant: a_delivery(
        b'{"total": 1}', attributes={"tenant_id": tenant, "event_type": "order.created"}
    ),
    "cloudevents": lambda tenant: a_delivery(json.dumps(a_cloudevent(tenantid=tenant)).encode()),
    "native": lambda tenant: a_delivery(tenant_id=tenant),
    "pulse": lambda tenant: a_delivery(json.dumps(a_pulse(tenant_id=tenant)).encode()),
}


@pytest.mark.parametrize("format_name", FORMATS)
def test_in_every_format_a_body_that_names_another_tenant_is_rejected(format_name: str) -> None:
    bound = {"queue": QUEUE, "queue_tenants": ACME}

    assert isinstance(the_verdict(FORMATS[format_name]("acme"), **bound), Message)
    verdict = the_verdict(FORMATS[format_name]("globex"), **bound)

    assert is_refused(verdict)
    assert isinstance(verdict, Rejection)
    assert verdict.claimed.tenant_id == "globex"
    assert verdict.detail["allowed"] == ["acme"]
    assert "QUEUE_TENANTS" in verdict.detail["message"]


def test_the_binding_is_checked_before_the_registry() -> None:
    verdict = the_verdict(a_delivery(tenant_id="nobody"), queue=QUEUE, queue_tenants=ACME)

    assert is_refused(verdict)


def test_a_bound_tenant_still_has_to_be_registered() -> None:
    verdict = the_verdict(
        a_delivery(tenant_id="new_tenant"), queue=QUEUE, queue_tenants=frozenset({"new_tenant"})
    )

    assert isinstance(verdict, Rejection)
    assert verdict.reason is Reason.UNKNOWN_TENANT


def test_without_a_binding_a_body_may_name_any_tenant() -> None:
    assert isinstance(the_verdict(a_delivery(tenant_id="globex", sender_id="AIDA1")), Message)
    assert UNBOUND.proven(a_delivery(sender_id="AIDA1")) is None


def test_a_binding_does_not_restrict_other_queues() -> None:
    bound = {"queue": QUEUE, "queue_tenants": ACME}

    assert not is_refused(the_verdict(a_delivery(tenant_id="globex", queue="other"), **bound))


@pytest.mark.parametrize(
    ("sender_id", "tenant_id", "refused"),
    [
        ("AIDA1", "acme", False),
        ("AIDA1", "globex", True),
        ("AROA1:i-123", "globex", False),
        ("AROA1:i-123", "acme", True),
        ("AROA1:ci", "acme", False),
        ("AROA1:ci", "globex", True),
        ("AIDA1x", "acme", True),
        ("OPS", "globex", False),
        (None, "acme", True),
        ("", "acme", True),
    ],
)
def test_a_sender_may_name_its_own_tenants(sender_id: str | None, tenant_id: str, refused: bool) -> None:
    senders = {"AIDA1": ACME, "AROA1": GLOBEX, "AROA1:ci": ACME, "OPS": None}

    verdict = the_verdict(a_delivery(tenant_id=tenant_id, sender_id=sender_id), sender_tenants=senders)

    assert is_refused(verdict) is refused


def test_a_default_entry_applies_to_senders_without_their_own() -> None:
    senders = {"AIDA1": ACME, "*": GLOBEX}

    for sender_id in ("AIDA2", None):
        delivery = a_delivery(tenant_id="globex", sender_id=sender_id)
        assert not is_refused(the_verdict(delivery, sender_tenants=senders))
    assert is_refused(the_verdict(a_delivery(tenant_id="globex", sender_id="AIDA1"), sender_tenants=senders))


def test_a_sender_without_any_tenant_gets_its_own_message() -> None:
    verdict = the_verdict(a_delivery(sender_id="AIDA2"), sender_tenants={"AIDA1": ACME})

    assert isinstance(verdict, Rejection)
    assert "this sender may not" in verdict.detail["message"]
    assert "AIDA" not in json.dumps(verdict.detail)


def test_queue_and_sender_must_both_allow_a_tenant() -> None:
    bound = {"queue": QUEUE, "queue_tenants": BOTH, "sender_tenants": {"AIDA1": ACME | {"initech"}}}

    for tenant_id, refused in (("acme", False), ("globex", True), ("initech", True)):
        delivery = a_delivery(tenant_id=tenant_id, sender_id="AIDA1")
        assert is_refused(the_verdict(delivery, **bound)) is refused


@pytest.mark.parametrize(
    ("bindings", "proven"),
    [
        (Bindings(QUEUE, ACME), "acme"),
        (Bindings(QUEUE, BOTH), None),
        (Bindings("other", ACME), None),
        (Bindings(QUEUE, BOTH, {"AIDA1": ACME}), "acme"),
        (Bindings(QUEUE, GLOBEX, {"AIDA1": ACME}), None),
        (Bindings(sender_tenants={"AIDA1": GLOBEX}), "globex"),
        (Bindings(sender_tenants={"AIDA1": None}), None),
        (Bindings(sender_tenants={"AIDA2": ACME}), None),
    ],
)
def test_the_only_possible_tenant_is_proven(bindings: Bindings, proven: str | None) -> None:
    """Whatever the body has, even if it is invalid."""
    delivery = a_delivery(b"nonsense", sender_id="AIDA1")

    assert a_judge(bindings).validate(delivery).proven_tenant == proven


def test_a_replay_keeps_the_proven_tenant_unless_settings_have_a_binding() -> None:
    came_for_acme = Delivery(
        **{name: getattr(a_delivery(tenant_id="globex"), name) for name in Delivery.__struct_fields__}
        | {"rejection_id": 1, "bound_tenant_id": "acme"}
    )

    assert is_refused(the_verdict(came_for_acme))
    assert is_refused(the_verdict(came_for_acme, queue="other", queue_tenants=GLOBEX))
    assert is_refused(the_verdict(came_for_acme, sender_tenants={"*": None}))
    # The operator has corrected a wrong binding.
    assert not is_refused(the_verdict(came_for_acme, queue=QUEUE, queue_tenants=GLOBEX))
