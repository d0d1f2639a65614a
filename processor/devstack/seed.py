"""The sample tenants, event schemas and meters of demo and dev, put into the registry once and never twice.

samples/<event_type>.schema.json             for every tenant
samples/<tenant>/<event_type>.schema.json    one tenant's own, which replaces the shared one for it
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg

from processor.database.queries import queries
from processor.operations.registry import add_tenant, publish_schema
from processor.schemas.schema_text import schema_text, schema_value

SAMPLES = Path(__file__).with_name("samples")
SUFFIX = ".schema.json"
TENANTS = {
    "acme": "Acme Corporation",
    "globex": "Globex Corporation",
    "initech": "Initech",
    "umbrella": "Umbrella Corporation",
    "hooli": "Hooli",
}
COUNTED = ("created", "updated", "deleted")
"""Event types whose messages are counted by user, and whose ids are unique for a user alone."""


@dataclass(frozen=True, slots=True)
class SampleMeter:
    """A shared meter: it adds what `value_pointer` leads to, or counts; by the hour, or for ever."""

    meter: str
    event_type: str
    value_pointer: str | None
    group_names: list[str]
    group_pointers: list[str]
    window_size: str


METERS = (
    SampleMeter(
        "pulse", "pulse", "/used_amount", ["product_sku", "use_unity"], ["/product_sku", "/use_unity"], "hour"
    ),
    *(SampleMeter(event_type, event_type, None, ["user_id"], ["/user_id"], "none") for event_type in COUNTED),
)


def samples() -> list[str]:
    """Name the sample schemas that are for every tenant."""
    return sorted(path.name.removesuffix(SUFFIX) for path in SAMPLES.glob(f"*{SUFFIX}"))


def sample(name: str) -> Any:  # noqa: ANN401 - a JSON schema
    """Give the definition of one of them."""
    return schema_value((SAMPLES / f"{name}{SUFFIX}").read_text(encoding="utf-8"))


def seed(database_url: str) -> None:
    """Make the sample tenants and meters; publish each sample schema whose newest version differs.

    One transaction: all of it is there, or nothing. What else is in the registry stays as it is, and so does
    an event type or a meter that has the name of one of ours.
    """
    sql = queries("devstack")
    with psycopg.connect(database_url) as connection:
        for tenant_id, name in TENANTS.items():
            add_tenant(connection, tenant_id, name)
        for event_type in COUNTED:
            scoped = {"event_type": event_type, "id_scope": ["/user_id"]}
            connection.execute(sql["add_scoped_event_type"], scoped)
        for path in sorted(SAMPLES.rglob(f"*{SUFFIX}")):
            tenant = None if path.parent == SAMPLES else path.parent.name
            _publish(connection, path, tenant)
        for meter in METERS:
            connection.execute(sql["add_sample_meter"], asdict(meter))


def _publish(connection: psycopg.Connection[Any], path: Path, tenant_id: str | None) -> None:
    event_type = path.name.removesuffix(SUFFIX)
    definition = schema_value(path.read_text(encoding="utf-8"))
    latest = connection.execute(
        queries("devstack")["latest_definition"],
        {"event_type": event_type, "tenant_id": tenant_id, "definition": schema_text(definition)},
    ).fetchone()
    if latest is None or not latest[0]:
        publish_schema(connection, event_type, definition, tenant_id)
