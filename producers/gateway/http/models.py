"""The models of events and responses in the OpenAPI document. They validate nothing."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_ORDER: dict[str, Any] = {
    "order_id": "ORD-1001",
    "customer_id": "c-7",
    "currency": "EUR",
    "total": 12.5,
    "placed_at": "2026-11-22T10:00:00Z",
    "items": [{"sku": "CUP-1", "quantity": 1, "unit_price": 12.5}],
}
"""Fits the sample schema of `processor dev`, so that the examples can be tried there."""

PULSE = {"tenant_id": "acme", "product_sku": "storage", "used_amount": 1.5, "use_unity": "GB"}
NATIVE_EVENT = {"id": "o-1", "tenant_id": "acme", "event_type": "order.created", "payload": _ORDER}
CLOUD_EVENT = {
    "specversion": "1.0",
    "id": "o-1",
    "source": "shop",
    "type": "order.created",
    "tenantid": "acme",
    "data": _ORDER,
}

Name = Annotated[str, Field(min_length=1, max_length=256)]


class Pulse(BaseModel):
    """A pulse: an amount used of a product; `tenant` and `use_unit` are also accepted as names."""

    tenant_id: Name | None = None
    tenant: Name | None = None
    product_sku: Name
    used_amount: Annotated[int | float, Field(description="The amount, kept to the last digit.")]
    use_unity: Name | None = None
    use_unit: Name | None = None
    id: Annotated[Name | None, Field(description="Its own id; wins over an Idempotency-Key.")] = None
    producer: str | None = None
    occurred_at: Annotated[str | None, Field(description="RFC 3339, with a zone.")] = None
    schema_version: int | None = None
    event_type: Literal["pulse"] | None = None


class NativeEvent(BaseModel):
    """An event of any type: its payload must fit the tenant's schema of that type."""

    tenant_id: Annotated[Name | None, Field(description="Its tenant; without it the key's.")] = None
    event_type: Name
    payload: Any
    id: Name | None = None
    producer: str | None = None
    occurred_at: str | None = None
    schema_version: Annotated[int | None, Field(ge=1)] = None


class CloudEvent(BaseModel):
    """A CloudEvent 1.0 with JSON data; the extension `tenantid` defaults to the key's tenant."""

    model_config = ConfigDict(extra="allow")

    specversion: Literal["1.0"]
    id: Name
    source: Name
    type: Name
    tenantid: Name | None = None
    time: str | None = None
    datacontenttype: str | None = None
    data: Any = None


class AcceptedEvent(BaseModel):
    """An event that SQS has accepted."""

    message_id: Annotated[str, Field(description="Its id: its own, the Idempotency-Key, or one made here.")]
    delivery_id: Annotated[str, Field(description="The id that SQS gave.")]
    tenant_id: str
    made_id: Annotated[
        bool, Field(description="The id was made here, so that sending the event again counts again.")
    ]


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: Annotated[str, Field(description="/docs# and the code.")]
    title: str
    status: int
    code: str
    detail: Annotated[str, Field(description="What was seen, and what was expected.")]
    instance: Annotated[str, Field(description="The name of this one answer.")]
    errors: Annotated[
        list["Fault"] | None, Field(description="Each fault of an invalid event, with its place.")
    ] = None
    retry_after_s: int | None = None


class Fault(BaseModel):
    """One fault of an event."""

    pointer: Annotated[str, Field(description="RFC 6901, into the event.")]
    rule: str
    message: str


class AcceptedItem(AcceptedEvent):
    """An event of an array that SQS has accepted."""

    index: int
    status: Literal[202]


class RefusedItem(BaseModel):
    """An event of an array that was not taken."""

    index: int
    status: int
    problem: Problem


class Items(BaseModel):
    """A word on each event of an array, in its order."""

    items: list[AcceptedItem | RefusedItem]


class NoneTaken(Problem):
    """No event of an array was taken."""

    items: list[RefusedItem]


class Ready(BaseModel):
    """Whether events would be taken now, and if not, what is in the way."""

    ready: bool
    trouble: str


class Alive(BaseModel):
    """The process answers."""

    alive: bool
