"""One CloudEvent, as the SDK from PyPI makes it, and the row that it has to become by every door."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeAlias

from cloudevents.core.v1.event import CloudEvent

from tests.clients.flow import FREE, PULSE, Row

Make: TypeAlias = Callable[[str], CloudEvent]
MakeRow: TypeAlias = Callable[[str], Row]

NINE = datetime(2026, 11, 29, 9, tzinfo=UTC)


def attributes(event_id: str, **changes: Any) -> dict[str, Any]:
    """What its documentation shows, with the tenant as an extension."""
    return {
        "id": event_id,
        "source": "/shop",
        "type": FREE,
        "time": NINE,
        "datacontenttype": "application/json",
        "tenantid": "acme",
        "partitionkey": "p-1",
        **changes,
    }


def an_event(event_id: str, **changes: Any) -> CloudEvent:
    """An event of acme's shop with the payload {"n": 1}."""
    return CloudEvent(attributes(event_id, **changes), {"n": 1})


def a_pulse(event_id: str) -> CloudEvent:
    """A pulse in the same envelope."""
    return CloudEvent(attributes(event_id, type="pulse"), PULSE)


def row(event_id: str, **changes: Any) -> Row:
    """What `an_event` becomes."""
    return Row("acme", event_id, "/shop", FREE, NINE, {"n": 1})._replace(**changes)


def pulse_row(event_id: str) -> Row:
    """What `a_pulse` becomes."""
    return row(event_id, event_type="pulse", payload=PULSE)
