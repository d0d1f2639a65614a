"""The sample tenants and event schemas of demo and dev, put into the registry once and never twice.

samples/<event_type>.schema.json             for every tenant
samples/<tenant>/<event_type>.schema.json    one tenant's own, which replaces the shared one for it
"""

import json
from pathlib import Path
from typing import Any

import psycopg

from processor.queries import queries
from processor.registry import add_tenant, publish_schema

SAMPLES = Path(__file__).with_name("samples")
SUFFIX = ".schema.json"
TENANTS = {
    "acme": "Acme Corporation",
    "globex": "Globex Corporation",
    "initech": "Initech",
    "umbrella": "Umbrella Corporation",
    "hooli": "Hooli",
}


def seed(database_url: str) -> None:
    """Make the sample tenants and publish each sample schema whose newest version differs from its file.

    One transaction: all of it is there, or nothing. What else is in the registry stays as it is.
    """
    with psycopg.connect(database_url) as connection:
        for tenant_id, name in TENANTS.items():
            add_tenant(connection, tenant_id, name)
        for path in sorted(SAMPLES.rglob(f"*{SUFFIX}")):
            tenant = None if path.parent == SAMPLES else path.parent.name
            _publish(connection, path, tenant)


def _publish(connection: psycopg.Connection[Any], path: Path, tenant_id: str | None) -> None:
    event_type = path.name.removesuffix(SUFFIX)
    definition = json.loads(path.read_text(encoding="utf-8"))
    latest = connection.execute(
        queries("devstack")["latest_definition"], {"event_type": event_type, "tenant_id": tenant_id}
    ).fetchone()
    if latest is None or latest[0] != definition:
        publish_schema(connection, event_type, definition, tenant_id)
