"""What a key may send is judged by what an event comes to, however it is spelled."""

import base64
import gzip
import json
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.wire.formats import Envelope, decode
from processor.wire.sender_rights import EventMeaning, Rights
from producers.gateway.items import Caller, Item, Refusal, Why
from producers.gateway.reading import EventReader

LIMITS: Any = {"depth_max": 20, "values_max": 1000}
READING = EventReader(body_bytes_max=10_000, fifo=False, **LIMITS)
GROUND = EventMeaning.of(
    [("created", 1)], [("pulse", None, "/used_amount"), ("order.created", "globex", "/used_amount")]
)

PRODUCERS = ["", "till", "till/2", "/acme/shop", "platform", "created/ada", "created/ada/till"]
PATTERNS = ["", "till", "/acme/*", "till*", "platform", "created/*", "*"]


def spelled(way: str, event_type: str, producer: str, payload: dict[str, Any], *, packed: bool) -> Item:  # noqa: C901 - a list of ways
    """The same event in one of the ways in which it can be said."""
    beside: dict[str, str] = {}
    named: dict[str, Any] = {"producer": producer} if producer else {}
    native = {"id": "e-1", "tenant_id": "acme", "event_type": event_type, "payload": payload}
    event = {"specversion": "1.0", "id": "e-1", "source": producer, "type": event_type, "tenantid": "acme"}
    body: Any = native | named
    match way:
        case "null producer":
            body = native | (named or {"producer": None})
        case "producer beside":
            body, beside = native, named
        case "both":
            beside = {"event_type": event_type} | named
        case "type beside":
            body = {name: value for name, value in body.items() if name != "event_type"}
            beside = {"event_type": event_type}
        case "attributes":
            body = payload
            beside = {"tenant_id": "acme", "event_type": event_type, "message_id": "e-1"} | named
        case "structured":
            body = event | {"data": payload}
        case "base64":
            body = event | {"data_base64": base64.b64encode(json.dumps(payload).encode()).decode()}
        case "binary" | "BINARY":
            prefix = "ce-" if way == "binary" else "cloudEvents_"
            body, beside = payload, {f"{prefix}{name}": value for name, value in event.items()}
        case "half binary":
            body = {name: value for name, value in event.items() if name != "source"} | {"data": payload}
            beside = {
                "ce-source": producer,
                "ce-specversion": "1.0",
                "content-type": "application/cloudevents+json",
            }
        case "pulse":
            body = payload | {"id": "e-1", "tenant_id": "acme", "product_sku": "vm"} | named
    content = json.dumps(body).encode()
    if packed:
        return Item(gzip.compress(content), beside | {"Content-Encoding": "gzip"}, "k-1")
    return Item(content, beside, "k-1")


PLAIN = ["native", "null producer", "producer beside", "both", "type beside", "attributes"]
OF_CLOUDEVENTS = ["structured", "base64", "binary", "BINARY", "half binary"]


def allowed(rights: Rights, event_type: str, producer: str, payload: dict[str, Any]) -> bool:
    """The oracle: it knows what is meant, and nothing of how it was said."""

    def own(name: str) -> bool:
        if rights.producers is None:
            return not any(fnmatchcase(name, pattern) for pattern in rights.reserved)
        return any(fnmatchcase(name, pattern) for pattern in rights.producers)

    only = rights.producers[0] if rights.producers and len(rights.producers) == 1 else ""
    implied = "" if "*" in only else only
    sender = producer or implied
    if not own(sender) or (sender.startswith("created/") and event_type != "created"):
        return False
    if event_type == "void":
        target = payload.get("producer", implied)
        scoped = target.split("/")
        if scoped[0] == "created" and len(scoped) > 1:
            return rights.may_void and len(scoped) in (2, 3) and own("/".join(scoped[2:]))
        return rights.may_void and own(target)
    if rights.event_types is not None and event_type not in rights.event_types:
        return False
    return rights.may_correct or event_type != "pulse" or "-" not in str(payload.get("used_amount"))


def some(names: list[str]) -> st.SearchStrategy[tuple[str, ...] | None]:
    return st.none() | st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True).map(tuple)


only = st.sampled_from(PATTERNS).map(lambda name: (name,))
rights_of = st.builds(
    Rights,
    some(["pulse", "order.created", "created"]).map(lambda names: names and frozenset(names)),
    some(PATTERNS) | only,
    st.booleans(),
    st.booleans(),
    some(PATTERNS).map(lambda names: names or ()),
)


events = st.sampled_from(["pulse", "order.created", "created"])
amounts = st.sampled_from([1, -1, "-2.5", "2", 0])
targets: st.SearchStrategy[dict[str, str]] = st.sampled_from(PRODUCERS).map(
    lambda name: {"producer": name}
) | st.just({})


@settings(max_examples=300, deadline=None)
@given(rights_of, events, st.sampled_from(PRODUCERS), amounts, st.booleans(), st.data())
def test_every_way_to_say_an_event_is_judged_alike(
    rights: Rights, event_type: str, producer: str, amount: object, packed: bool, data: st.DataObject
) -> None:
    ways = [*PLAIN, *(OF_CLOUDEVENTS if producer else ()), *(["pulse"] if event_type == "pulse" else ())]
    payload = {"used_amount": amount, "user_id": "ada"}

    is_judged(rights, data.draw(st.sampled_from(ways)), event_type, producer, payload, packed=packed)


@settings(max_examples=300, deadline=None)
@given(rights_of, st.sampled_from(["", "", *PRODUCERS]), targets, st.booleans(), st.data())
def test_every_way_to_say_a_void_is_judged_alike(
    rights: Rights, producer: str, target: dict[str, str], packed: bool, data: st.DataObject
) -> None:
    ways = [*PLAIN, *(OF_CLOUDEVENTS if producer else ())]
    payload = {"message_id": "e-0"} | target

    passed_on = is_judged(rights, data.draw(st.sampled_from(ways)), "void", producer, payload, packed=packed)

    if passed_on is not None:
        assert passed_on.payload_value.get("producer", "") == target.get("producer", rights.implied)


def is_judged(
    rights: Rights, way: str, event_type: str, producer: str, payload: dict[str, Any], *, packed: bool
) -> Envelope | None:
    """Hold the gateway to the oracle; gives what it passed on, as the processor reads it."""
    item = spelled(way, event_type, producer, payload, packed=packed)

    found = READING.read(item, Caller("acme", rights=rights, ground=GROUND), {})

    if not allowed(rights, event_type, producer, payload):
        assert isinstance(found, Refusal)
        assert found.why is Why.FORBIDDEN
        assert "processor key add acme --" in found.detail
        return None
    assert not isinstance(found, Refusal), found
    passed_on = decode(found.outgoing.body.encode(), {}, size_bytes_max=10_000, **LIMITS)
    assert isinstance(passed_on, Envelope)
    assert (passed_on.event_type, passed_on.producer) == (event_type, producer or rights.implied)
    return passed_on


@pytest.mark.parametrize(
    ("rights", "event", "words", "option"),
    [
        (
            Rights(event_types=frozenset({"pulse", "order.created"})),
            {"event_type": "order.deleted"},
            "event_type: expected order.created or pulse (right event_types); saw 'order.deleted'",
            "--event-types order.deleted",
        ),
        (
            Rights(producers=("till", "/acme/*")),
            {"producer": "platform"},
            "producer: expected till or /acme/* (right producers); saw platform",
            "--producer platform",
        ),
        (
            Rights(producers=("till", "shop")),
            {},
            "producer: expected till or shop (right producers); saw none",
            "--producer '\"\"'",
        ),
        (
            Rights(frozenset({"pulse"})),
            {"event_type": "$(reboot); x"},
            "event_type: expected pulse (right event_types); saw '$(reboot); x'",
            "--event-types '$(reboot); x'",
        ),
        (
            Rights(reserved=("",)),
            {},
            "producer: expected a producer that is not reserved; saw none",
            "--producer '\"\"'",
        ),
        (
            Rights(may_void=False),
            {"event_type": "void"},
            "event_type: 'void' cancels another message; that needs the right may_void",
            "--may-void",
        ),
        (
            Rights(producers=("till",)),
            {"event_type": "void", "payload": {"message_id": "e-0", "producer": ""}},
            "a void of a message of another producer: expected till (right producers); saw none",
            "--producer '\"\"'",
        ),
        (
            Rights(may_correct=False),
            {"event_type": "pulse", "payload": {"used_amount": -1}},
            "payload/used_amount: a negative amount reverses counted usage; that needs the right may_correct",
            "--may-correct",
        ),
    ],
)
def test_a_refusal_says_the_right_what_was_seen_and_how_to_get_it(
    rights: Rights, event: dict[str, Any], words: str, option: str
) -> None:
    body = {"tenant_id": "acme", "event_type": "order.created", "payload": {}} | event

    found = READING.read(Item(json.dumps(body).encode()), Caller("acme", rights=rights, ground=GROUND), {})

    assert isinstance(found, Refusal)
    how = f"a key stays what it is, so ask for another: processor key add acme {option}"
    assert (found.why, found.detail) == (Why.FORBIDDEN, f"{words}; {how}")


def test_a_negative_amount_that_no_meter_of_the_tenant_takes_is_no_correction() -> None:
    body = {"event_type": "order.created", "payload": {"used_amount": -1}}
    rights = Rights(may_correct=False)

    found = [
        READING.read(Item(json.dumps(body).encode()), Caller(tenant, rights=rights, ground=GROUND), {})
        for tenant in ("acme", "globex")
    ]

    assert [isinstance(one, Refusal) for one in found] == [False, True]
