"""Garbage through SQS, as an attacker sends it: each has its row, and the disk is not filled with it."""

import os

import psycopg
import pytest

from tests.rig import Rig, wait_until

COUNT, GARBAGE_BYTES, ROOM = 400, 60_000, 600_000


def test_garbage_from_a_queue_is_cut_and_a_tenants_rejections_stay_whole(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_REJECTED_BYTES", str(ROOM))
    rig.start_processor()
    client = rig.stack.sqs.client()
    for _ in range(COUNT):
        # Text, since SQS takes nothing else, of which nothing can be compressed by much.
        client.send_message(QueueUrl=rig.stack.queue_url, MessageBody=os.urandom(GARBAGE_BYTES // 2).hex())
    rig.wait_until_empty()
    body = f'{{"tenant_id": "acme", "event_type": "no.such.type", "payload": "{"x" * GARBAGE_BYTES}"}}'
    client.send_message(QueueUrl=rig.stack.queue_url, MessageBody=body)
    rig.wait_until_empty()

    with psycopg.connect(rig.stack.database_url, autocommit=True) as db:
        rows = db.execute("SELECT count(*), count(body_bytes) FROM rejection").fetchone()
        size = db.execute("SELECT pg_total_relation_size('rejection')").fetchone()
        acme = db.execute("SELECT octet_length(body) FROM rejection WHERE tenant_id = 'acme'").fetchone()

    assert rows is not None
    assert size is not None
    assert rows[0] == COUNT + 1
    # Writers that save at once may each pass the limit.
    assert COUNT - 50 <= rows[1] < COUNT
    # 24 MB came.
    assert size[0] < 6_000_000
    assert acme == (len(body),)
    assert rig.metric("processor_rejections_cut_total") == rows[1]
    wait_until(lambda: rig.ready()[0] == 200, "nothing is amiss")
