"""Whatever schema psql has put in, `processor run` lives, and the events of others are stored."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from processor.devstack.servers.sqs import EmbeddedSqs
from tests.builders import a_body
from tests.fixtures.database import books
from tests.fixtures.servers import QUEUE_NUMBERS
from tests.rig import wait_until

Db = psycopg.Connection[Any]

EACH = 2
TINY = {"kind": "9"} | {f"k{number}": "TINY" for number in range(40_000)}


def a_kind(name: int) -> dict[str, Any]:
    return {
        "properties": {"kind": {"const": str(name)}},
        "required": ["kind"],
        "additionalProperties": {"type": ["integer", "string"]},
    }


def doubling(levels: int) -> dict[str, Any]:
    defs: dict[str, Any] = {"a0": {"type": "string"}}
    for level in range(1, levels + 1):
        defs[f"a{level}"] = {"anyOf": [{"$ref": f"#/$defs/a{level - 1}"}] * 2}
    return {"$defs": defs, "$ref": f"#/$defs/a{levels}"}


SCHEMAS: dict[str, tuple[str | Any, Any]] = {
    "a place that is no schema": ({"$ref": "#/x/a", "x": {"a": {"items": [{}]}}}, [1]),
    "a place that is no schema, below": (
        {"items": {"$ref": "#/x/0"}, "x": [{"type": 3, "required": 1}]},
        [[1]],
    ),
    "draft-07": (
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "items": [{"type": "integer"}],
            "additionalItems": False,
        },
        [1, 2],
    ),
    "draft-04": (
        {"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 0, "exclusiveMinimum": True},
        0,
    ),
    "an id inside": (
        {"$defs": {"m": {"$id": "https://x.example/m", "required": ["a"]}}, "$ref": "https://x.example/m"},
        {},
    ),
    "a draft that nobody knows": ({"$schema": "https://x.example/draft"}, {}),
    "a reference to the web": ({"$ref": "https://x.example/a"}, {}),
    "digits": ('{"const": 1234567890123456789012}', 1234567890123456789013),
    "a key twice": ('{"required": ["a"], "required": ["b"]}', {}),
    "look-ahead": ({"pattern": r"^(?=.*\d).+$"}, "a"),
    "an OpenAPI document": ({"openapi": "3.0.0", "components": {"schemas": {"E": {"type": 1}}}}, {}),
    "a type that is none": ({"type": "nope"}, {}),
    "deeper than anyone reads": ('{"const":' + "[" * 3000 + "]" * 3000 + "}", {}),
    "a deep schema": ('{"not":' * 1500 + "{}" + "}" * 1500, {}),
    "itself": ({"$ref": "#"}, {}),
    "not itself": ({"not": {"$ref": "#"}}, {}),
    "itself, dynamically": ({"$dynamicAnchor": "x", "allOf": [{"$dynamicRef": "#x"}] * 2}, [1]),
    "twice as much at each step": (doubling(40), 3),
    "tiny numbers": ({"oneOf": [a_kind(kind) for kind in range(20)]}, TINY),
    "large numbers": ({"uniqueItems": True}, [10**29 + number for number in range(4900)]),
}


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_processor_lives_with_whatever_schema_is_put_in(
    processes: str, sqs_server: EmbeddedSqs, database_url: str, db: Db, tmp_path: Path
) -> None:
    url = sqs_server.create_queue(f"odd-{next(QUEUE_NUMBERS)}", visibility_timeout_s=5, max_receive_count=8)
    client, sent = sqs_server.client(), 0
    for name, (definition, payload) in SCHEMAS.items():
        text = definition if isinstance(definition, str) else json.dumps(definition)
        db.execute("INSERT INTO event_type (event_type) VALUES (%s)", (name,))
        db.execute(
            "INSERT INTO event_schema (event_type, version, definition) VALUES (%s, 1, %s::jsonb)",
            (name, text),
        )
        for body in (a_body(event_type=name, payload=payload), a_body(), a_body()):
            client.send_message(QueueUrl=url, MessageBody=body.decode().replace('"TINY"', "1.1e-300"))
            sent += 1
    environment = os.environ | {
        "DATABASE_URL": database_url,
        "SQS_QUEUE_URL": url,
        "AWS_ENDPOINT_URL": sqs_server.endpoint_url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "HTTP_PORT": "0",
        "RECEIVE_WAIT_S": "1",
        "JUDGE_TIMEOUT_S": "1",
    }
    command = [sys.executable, "-m", "processor", "run", "--processes", processes]
    log = tmp_path / "log"
    with log.open("wb") as written, subprocess.Popen(command, env=environment, stderr=written) as processor:
        try:
            wait_until(lambda: sum(books(db).values()) == sent, "all is in the books", wait_s=120)
            processor.terminate()
            code = processor.wait(60)
        finally:
            processor.kill()

    assert code == 0
    ordinary = db.execute("SELECT count(*) FROM message WHERE event_type = 'order.created'").fetchone()
    assert ordinary == (2 * len(SCHEMAS),)
    assert b"worker_hung" not in log.read_bytes()
    assert b"worker_died" not in log.read_bytes()
