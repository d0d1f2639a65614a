"""The sample tenants, schemas and meters of demo and dev; seeding is idempotent.

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
"""Event types whose messages are counted by user, and whose ids are unique per user."""


@dataclass(frozen=True, slots=True)
class SampleMeter:
    """A shared meter: it adds the values at `value_pointer`, or counts; hourly, or without windows."""

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
    """List the shared sample schemas."""
    return sorted(path.name.removesuffix(SUFFIX) for path in SAMPLES.glob(f"*{SUFFIX}"))


def sample(name: str) -> Any:  # noqa: ANN401 - a JSON schema
    """Return the definition of a sample schema."""
    return schema_value((SAMPLES / f"{name}{SUFFIX}").read_text(encoding="utf-8"))


def seed(database_url: str) -> None:
    """Create the sample tenants and meters; publish each sample schema whose newest version differs.

    Everything happens in one transaction. Other entries of the registry stay unchanged, and so do event types
    and meters with the same names.
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
