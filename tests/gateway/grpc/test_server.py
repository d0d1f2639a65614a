"""The gRPC door as those see it who run it: health, reflection, its end, its command."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import grpc
import pytest
from click.testing import CliRunner
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from processor.devstack.servers.sqs import CREDENTIAL, REGION, EmbeddedSqs
from processor.errors import SettingsError
from producers.cli import main
from producers.gateway.grpc import listener
from producers.gateway.grpc.listener import GrpcListener
from producers.gateway.grpc.service import SERVICE
from producers.protos import ingest_pb2 as pb
from producers.publishers.grpc import GrpcPublisher as Sender
from producers.publishers.outgoing import Outgoing
from tests.gateway.grpc.parts import (
    BOUNDS,
    WAIT_S,
    Door,
    Loop,
    PlainIntake,
    PlainKeys,
    a_door,
    an_event,
    answer_of,
    refusal_of,
    streamed,
)
from tests.rig import wait_until


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as loop:
        yield loop


def test_health_follows_the_queue_and_the_keys(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "HEALTH_EVERY_S", 0.02)
    intake, keys = PlainIntake(), PlainKeys()

    with a_door(loop, intake, keys) as door:
        wait_until(lambda: door.health() == "SERVING", "it is ready", wait_s=WAIT_S)
        assert door.health(SERVICE) == "SERVING"
        intake.trouble = "the queue is away"
        wait_until(lambda: door.health() == "NOT_SERVING", "the queue is missed", wait_s=WAIT_S)
        said = door.server.trouble
        intake.trouble, keys.trouble = "", "the keys are away"
        wait_until(lambda: door.server.trouble == keys.trouble, "the keys are missed", wait_s=WAIT_S)
        assert door.health(SERVICE) == "NOT_SERVING"
        keys.trouble = ""
        wait_until(lambda: door.health(SERVICE) == "SERVING", "it is ready again", wait_s=WAIT_S)

    assert said == "the queue is away"


def test_an_intake_that_does_not_say_whether_it_is_ready_is_not(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "HEALTH_TIMEOUT_S", 0.02)
    intake = PlainIntake()
    monkeypatch.setattr(intake, "ready", asyncio.Event().wait)

    with a_door(loop, intake) as door:
        wait_until(lambda: "no answer" in door.server.trouble, "it is missed", wait_s=WAIT_S)

        assert door.health() == "NOT_SERVING"


def test_reflection_tells_the_services_and_the_whole_proto(loop: Loop) -> None:
    with a_door(loop, PlainIntake()) as door:
        database = ProtoReflectionDescriptorDatabase(door.channel)
        services = database.get_services()
        service = DescriptorPool(database).FindServiceByName(SERVICE)

    assert {SERVICE, "grpc.health.v1.Health"} <= set(services)
    assert [method.name for method in service.methods] == [
        "Ingest",
        "IngestBatch",
        "IngestStream",
        "IngestUpload",
    ]


# ── the end ───────────────────────────────────────────────────────────────────────────────────────────


def collect(replies: Any, into: list[int]) -> None:
    for reply in replies:
        into += [one.sequence for one in reply.results]


def begin_to_stop(door: Door, grace_s: float = WAIT_S) -> "Future[None]":
    stopping = asyncio.run_coroutine_threadsafe(door.server.stop(grace_s), door.loop._loop)
    wait_until(lambda: door.server.service._stopping, "it stops", wait_s=WAIT_S)
    return stopping


@pytest.mark.parametrize("method", ["Ingest", "IngestBatch"])
def test_a_stop_gives_calls_that_are_here_their_word_and_takes_no_other(
    loop: Loop, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "LAST_WORDS_S", 0.05)
    intake = PlainIntake()
    loop.call(intake.open.clear)

    with a_door(loop, intake) as door:
        sent = pb.IngestBatchRequest(items=[an_event()]) if method == "IngestBatch" else an_event()
        here: Any = getattr(door.stub, method).future(sent, timeout=WAIT_S)
        wait_until(lambda: bool(intake.waiting), "it is in the intake", wait_s=WAIT_S)
        stopping = begin_to_stop(door)
        with pytest.raises(grpc.RpcError) as refused:
            answer_of(door, method, [an_event()])
        with pytest.raises(TimeoutError):
            stopping.result(0.3)
        loop.call(intake.open.set)

        assert here.result(WAIT_S)
        stopping.result(WAIT_S)
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    assert len(intake.items) == 1


def test_a_stop_answers_what_it_has_read_of_a_stream_and_says_that_it_ends(loop: Loop) -> None:
    intake, sent_all = PlainIntake(), Future[None]()
    loop.call(intake.open.clear)

    def events() -> Iterator[pb.IngestRequest]:
        yield from (an_event(n) for n in range(15))
        sent_all.result(WAIT_S)

    with a_door(loop, intake) as door:
        replies = door.stub.IngestStream(streamed(events()), timeout=WAIT_S)
        wait_until(lambda: intake.waiting == 15, "all are read", wait_s=WAIT_S)
        stopping = begin_to_stop(door)
        loop.call(intake.open.set)
        found: list[int] = []
        with pytest.raises(grpc.RpcError) as ended:
            collect(replies, found)
        stopping.result(WAIT_S)
        sent_all.set_result(None)

    assert sorted(found) == list(range(15))
    assert refusal_of(ended.value).code == pb.CODE_UNAVAILABLE
    assert ended.value.code() == grpc.StatusCode.UNAVAILABLE


def test_a_stop_ends_an_upload_early_with_all_that_was_read(loop: Loop) -> None:
    intake, sent_all = PlainIntake(), Future[None]()

    def events() -> Iterator[pb.IngestRequest]:
        yield from (an_event(n) for n in range(15))
        sent_all.result(WAIT_S)

    with a_door(loop, intake) as door:
        upload: Any = door.stub.IngestUpload
        reply = upload.future(streamed(events()), timeout=WAIT_S)
        wait_until(lambda: len(intake.items) == 15, "all are read", wait_s=WAIT_S)
        stopping = begin_to_stop(door)

        assert len(reply.result(WAIT_S).results) == 15
        assert reply.result().ended_early
        stopping.result(WAIT_S)
        sent_all.set_result(None)


def test_who_watches_the_health_is_told_of_a_stop_and_does_not_hold_it(loop: Loop) -> None:
    with a_door(loop, PlainIntake()) as door:
        wait_until(lambda: door.health() == "SERVING", "it is ready", wait_s=WAIT_S)
        stub: Any = HealthStub(door.channel)
        watching = stub.Watch(HealthCheckRequest(), timeout=WAIT_S)
        first = next(watching).status
        # A watcher that held the stop would hold it for all of its grace.
        begin_to_stop(door, grace_s=10 * WAIT_S).result(WAIT_S)

        assert (first, next(watching).status) == (1, 2)


def test_a_stop_ends_when_its_time_is_over_whoever_still_waits(loop: Loop) -> None:
    intake = PlainIntake()
    loop.call(intake.open.clear)

    with a_door(loop, intake) as door:
        here: Any = door.stub.Ingest.future(an_event(), timeout=WAIT_S)
        wait_until(lambda: bool(intake.waiting), "it is in the intake", wait_s=WAIT_S)

        begin_to_stop(door, grace_s=0.1).result(WAIT_S)

        assert here.exception(WAIT_S).code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        wait_until(lambda: not intake.waiting, "nobody waits", wait_s=WAIT_S)


# ── the command ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def environment(sqs_server: EmbeddedSqs, queue_url: str) -> dict[str, str]:
    named = {
        "SQS_QUEUE_URL": queue_url,
        "AWS_ENDPOINT_URL": sqs_server.endpoint_url,
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": CREDENTIAL,
        "AWS_SECRET_ACCESS_KEY": CREDENTIAL,
        "GATEWAY_KEYS": "off",
        "GATEWAY_GRPC_PORT": "0",
        "GATEWAY_PROBES_PORT": "0",
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "INFO",
    }
    return os.environ | named


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_it_is_told_to_stop_and_ends_with_zero(
    environment: dict[str, str], number: signal.Signals
) -> None:
    command = [sys.executable, "-m", "producers", "gateway", "grpc"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            lines = (json.loads(line) for line in process.stderr)
            started = next(line for line in lines if line["event"] == "gateway_started")
            sender = Sender(f"127.0.0.1:{started['port']}", None)
            body = '{"id": "o-1", "tenant_id": "acme", "event_type": "t", "payload": {}}'
            answer = sender.send({7: Outgoing(body)})
            sender.close()
            wait_until(
                lambda: probed(started["http_port"], "/readyz")[0] == 200, "it is ready", wait_s=WAIT_S
            )
            metrics = probed(started["http_port"], "/metrics")[1]

            process.send_signal(number)

            assert process.wait(WAIT_S) == 0
        finally:
            process.kill()
    assert list(answer.accepted) == [7]
    assert 'gateway_items_total{word="taken"} 1.0' in metrics
    assert 'gateway_grpc_calls_total{method="IngestBatch",status="OK"} 1.0' in metrics


def probed(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize("setting", ["GATEWAY_GRPC_PORT", "GATEWAY_PROBES_PORT"])
def test_a_port_that_is_taken_is_named_and_ends_with_two(environment: dict[str, str], setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        done = subprocess.run(
            [sys.executable, "-m", "producers", "gateway", "grpc"],
            env=environment | {setting: str(other.getsockname()[1])},
            capture_output=True,
            text=True,
            check=False,
            timeout=WAIT_S,
        )

    assert done.returncode == 2
    assert f"{setting}: 127.0.0.1:" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_servers_never_share_a_port_in_silence(loop: Loop) -> None:
    async def opened(port: int) -> None:
        GrpcListener(PlainIntake(), PlainKeys(), BOUNDS, host="127.0.0.1", port=port)

    with a_door(loop, PlainIntake()) as door, pytest.raises(SettingsError, match="GATEWAY_GRPC_PORT"):
        loop.run(opened(door.server.port))


def test_an_address_that_is_no_address_is_told(loop: Loop) -> None:
    async def opened() -> None:
        GrpcListener(PlainIntake(), PlainKeys(), BOUNDS, host="no.such.host.invalid", port=0)

    with pytest.raises(SettingsError, match="GATEWAY_HOST"):
        loop.run(opened())


def test_without_its_packages_the_command_says_which_extra_brings_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.startswith("producers.gateway.grpc_")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "grpc", None)

    done = CliRunner().invoke(main, ["gateway", "grpc"])

    assert done.exit_code == 2
    assert "sqs-event-processor[gateway]" in done.output
