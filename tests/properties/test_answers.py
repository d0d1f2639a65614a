"""Whatever a server answers, head and body, nobody who asked it raises anything but what says so."""

import asyncio
import json
import tracemalloc
from collections.abc import Iterator
from concurrent import futures
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

import boto3
import grpc
import pytest
from botocore.config import Config
from botocore.credentials import ReadOnlyCredentials
from hypothesis import example, given
from hypothesis import strategies as st

from processor.brokers.fast_sqs.client import LeanSqs
from processor.brokers.fast_sqs.signature import Signer
from processor.brokers.http_client import HttpEndpoint, HttpTrouble
from processor.check.queue import check_queue
from processor.errors import SettingsError, SourceFault, SourceUnavailable
from processor.handover.sink import AllAccepted, BatchRefused, HttpSink, PartlyAccepted, SinkUnavailable
from processor.settings import Settings
from processor.sources.sqs.source import SqsSource
from processor.wire.bounds import http_date, wait_s_of
from producers.gateway.queue.posting import AsyncEndpoint
from producers.load.client import Connection, Reply, Target
from producers.protos import ingest_pb2 as pb
from producers.protos.ingest_pb2_grpc import IngestServicer, add_IngestServicer_to_server
from producers.publishers import CallFailed
from producers.publishers.grpc import GrpcPublisher
from producers.publishers.http import HttpPublisher
from producers.publishers.outgoing import Outgoing
from producers.publishers.sqs import SqsPublisher
from tests.scripted_server import ScriptedServer

ABSURD = (
    "Fri, 31 Dec 9999 23:59:59 -2359",
    "Mon, 01 Jan 0001 00:00:00 +2359",
    "Thu, 32 Foo 99999999999 99:99:99 +9999",
    "Mon, 30 Nov 2026 19:00:00",
    "Fri, 31 Dec 99999999999 23:59:59 GMT",
    "Fri, 31 Dec 2026 23:59:59 +99999999999999",
    "9" * 400,
    "1e400",
    "-1e400",
    "nan",
    "inf",
    "-7",
    "soon",
    "",
    "\x00",
    "7, 8",
    "\u0667",
)
DATES = st.one_of(
    st.sampled_from(ABSURD),
    st.text(max_size=40),
    st.builds(
        "{}, {} {} {} {}:{}:{} {}".format,
        st.sampled_from(("Mon", "Sun", "x")),
        st.integers(-1, 99),
        st.sampled_from(("Jan", "Dec", "Foo")),
        st.integers(-1, 100_000),
        *[st.integers(-1, 99)] * 3,
        st.sampled_from(("GMT", "+2359", "-2359", "-9999", "+99999999999999", "PST", "")),
    ),
)
NAMES = st.sampled_from(
    [
        "Retry-After",
        "Date",
        "Content-Length",
        "Transfer-Encoding",
        "Content-Type",
        "Content-Encoding",
        "Upgrade",
        "Connection",
        "Location",
        "x-amzn-query-error",
        "x-amzn-requestid",
        "x-amz-crc32",
        "Set-Cookie",
    ]
)
VALUES = st.one_of(
    DATES.map(lambda text: text.encode("utf-8", "replace")),
    st.sampled_from(
        (b"gzip", b"chunked", b"chunked, chunked", b"-1", b"5", b"99999999999999999999", b"upgrade", b"h2c")
    ),
    st.binary(max_size=30),
).map(lambda value: value.replace(b"\r", b"").replace(b"\n", b""))
HEADERS = st.lists(st.tuples(NAMES.map(str.encode), VALUES), max_size=5)
JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ("items", "results", "problem", "status", "index", "key", "retry_after_s", "Messages")
            )
            | st.sampled_from(("Failed", "Successful", "Attributes", "code", "__type", "Id", "delivery_id")),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
BODIES = st.one_of(
    JSON.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=40),
    st.sampled_from(
        (b"-1\r\n" + b"x" * 64, b"ffffffffffffffffff\r\nx", b"zz\r\n", b"5;\x00\r\nhello\r\n0\r\n")
    ),
)
STATUSES = st.sampled_from((b"200", b"202", b"207", b"400", b"409", b"429", b"503")) | st.sampled_from(
    (b"101", b"100", b"302", b"999999", b"-1", b"0200", b"\xff", b"")
)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """An answer of any head and body, and seldom no HTTP at all; the connection is closed behind it."""
    status, headers, body = draw(STATUSES), draw(HEADERS), draw(BODIES)
    lines = [b"HTTP/1.1 " + status + b" Said", *[name + b": " + value for name, value in headers]]
    whole = b"\r\n".join([*lines, b"Connection: close", b"", body])
    return draw(st.sampled_from((whole, whole, whole, whole[: len(whole) // 2], body))) or b"\n"


def said(status: int, *headers: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join([b"HTTP/1.1 %d Said" % status, *headers, b"Connection: close", b"", body])


FAR = said(503, b"Retry-After: Fri, 31 Dec 99999999999 23:59:59 GMT")
UPGRADE = said(101, b"Upgrade: h2c", b"Connection: upgrade")
ODD_ITEMS = said(200, body=b'{"items": [null, 1, {"index": 0, "status": "no"}, {"index": 0, "problem": []}]}')


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(b"", close=True) as server:
        yield server


@given(text=DATES, at_most_s=st.floats(0, 1e6))
def test_any_retry_after_is_a_wait_within_bounds_or_none(text: str, at_most_s: float) -> None:
    for given_value in (text, text.encode("utf-8", "replace")):
        wait_s = wait_s_of(given_value, at_most_s)
        assert wait_s is None or 0 <= wait_s <= at_most_s
    moment = http_date(text)
    assert moment is None or moment.astimezone(UTC) <= datetime.max.replace(tzinfo=UTC)


@given(said=answers())
@example(said=FAR)
@example(said=UPGRADE)
def test_a_sink_says_what_it_likes_and_gets_an_answer(server: ScriptedServer, said: bytes) -> None:
    server.say(said)

    answer = HttpSink(server.url, token=None, timeout_s=5).send(b"[]", key="k", line_keys=["one"])

    assert isinstance(answer, AllAccepted | PartlyAccepted | BatchRefused | SinkUnavailable)


LENGTHS = (b"abc", b"-5", b"+2", b"2_0", b"2.0", b"9" * 5000, b"\xb2", b"\xd9\xa2", b"", b"2, 3", b"0x2")
NO_WHOLE_ANSWERS = [
    *(said(200, b"Content-Length: " + length, body=b"OK") for length in LENGTHS),
    said(200, b"Content-Length: 2", b"Content-Length: 3", body=b"OK"),
    said(200, b"Content-Length: 3", body=b"OK"),
    said(200, b"Transfer-Encoding: chunked, chunked", body=b"OK"),
    said(200, b"Transfer-Encoding: gzip", body=b"OK"),
    said(200, b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=b"OK"),
]


@pytest.mark.parametrize("answer", NO_WHOLE_ANSWERS)
def test_an_answer_whose_end_is_not_known_is_none(server: ScriptedServer, answer: bytes) -> None:
    """To nobody who asks: nothing of it counts."""
    server.say(answer)

    sink = HttpSink(server.url, token=None, timeout_s=5).send(b"[]", key="k", line_keys=["one"])
    assert isinstance(sink, SinkUnavailable)
    assert sink.status is None

    publisher = HttpPublisher(server.url)
    with pytest.raises(CallFailed) as failed:
        publisher.send({0: Outgoing("{}")})
    publisher.close()
    assert failed.value.outage

    endpoint = HttpEndpoint(server.url, connect_timeout_s=5, read_timeout_s=5, ca_file="")
    with pytest.raises(HttpTrouble):
        endpoint.post([], b"")
    endpoint.close()
    assert asyncio.run(whether_posted(server.url)) is False
    assert isinstance(asyncio.run(what_load_heard(server.url)), str)


def test_a_chunk_of_less_than_nothing_is_not_read(server: ScriptedServer) -> None:
    server.say(said(200, b"Transfer-Encoding: chunked", body=b"-1\r\n" + b"x" * 32_000_000))

    tracemalloc.start()
    answer = HttpSink(server.url, token=None, timeout_s=5).send(b"[]", key="k", line_keys=["one"])
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert answer == SinkUnavailable("the response is not HTTP", reached=True)
    assert peak_bytes < 4_000_000


@given(said=answers())
@example(said=FAR)
@example(said=ODD_ITEMS)
@example(said=UPGRADE)
@example(said=said(200, b"Content-Encoding: gzip", body=b"x"))
def test_a_gateway_says_what_it_likes_to_a_publisher(server: ScriptedServer, said: bytes) -> None:
    server.say(said)
    publisher = HttpPublisher(server.url)
    try:
        publisher.send({0: Outgoing("{}"), 1: Outgoing("no json")})
    except (CallFailed, SettingsError):
        pass
    finally:
        publisher.close()


@given(said=answers())
@example(said=FAR)
@example(said=UPGRADE)
def test_what_answers_as_sqs_says_what_it_likes(server: ScriptedServer, said: bytes) -> None:
    server.say(said)
    client: Any = a_client(server.url)
    url = f"{server.url}/1/events"
    signer = Signer(
        lambda: ReadOnlyCredentials("i", "s", None), host="localhost", region="eu-west-1", service="sqs"
    )
    endpoint = HttpEndpoint(server.url, connect_timeout_s=5, read_timeout_s=5, ca_file="")
    for calls in (client, LeanSqs(endpoint, signer, client, user_agent="test")):
        source = SqsSource(client, url, "events", visibility_timeout_s=30, hot_calls=calls)
        asked: list[Any] = [
            partial(source.receive, 1, 0),
            source.depth,
            source.moved_from,
            source.dead_letter_queue_url,
        ]
        for ask in asked:
            with suppress(SourceUnavailable, SourceFault, SettingsError):
                ask()
    with suppress(CallFailed, SettingsError):
        SqsPublisher(client, url).send({0: Outgoing("{}")})
    endpoint.close()
    client.close()
    # Else every example keeps its sockets.
    server.hang_up()
    assert asyncio.run(whether_posted(server.url)) in (True, False)


async def whether_posted(url: str) -> bool:
    endpoint = AsyncEndpoint(url, connect_timeout_s=5, read_timeout_s=5, ca_file="")
    try:
        await endpoint.post([], b"")
    except HttpTrouble:
        return False
    finally:
        endpoint.close()
    return True


def a_client(url: str) -> Any:
    return boto3.client(
        "sqs",
        endpoint_url=url,
        region_name="eu-west-1",
        aws_access_key_id="i",
        aws_secret_access_key="s",
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=5),
    )


@given(date=DATES)
@example(date="Fri, 31 Dec 9999 23:59:59 -2359")
def test_check_reads_any_date_of_the_queue(server: ScriptedServer, date: str) -> None:
    attributes = {
        "Attributes": {
            "ApproximateNumberOfMessages": "0",
            "ApproximateNumberOfMessagesNotVisible": "0",
            "ApproximateNumberOfMessagesDelayed": "0",
            "MessageRetentionPeriod": "345600",
            "VisibilityTimeout": "30",
            "MaximumMessageSize": "262144",
        }
    }
    line = ("Date: " + date).encode("utf-8", "replace").replace(b"\r", b"").replace(b"\n", b"")
    server.say(said(200, line, body=json.dumps(attributes).encode()))

    client = a_client(server.url)
    findings = check_queue(client, Settings(sqs_queue_url=f"{server.url}/1/events"))
    client.close()
    server.hang_up()

    assert findings


async def what_load_heard(url: str) -> object:
    faults: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    heard = Heard()
    connection = await Target.of(url, "/ingest", None).connect(heard)
    connection.ask("m", b"{}")
    ended = await asyncio.wait_for(heard.ended, 10)
    assert faults == []
    return ended


class Heard:
    """Notes how a request ended."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    def answered(self, _connection: Connection, reply: Reply) -> None:
        assert reply.wait_s >= 0
        self.ended.set_result(reply)

    def lost(self, _connection: Connection, why: str) -> None:
        if not self.ended.done():
            self.ended.set_result(why)


@given(said=answers())
@example(said=FAR)
@example(said=UPGRADE)
def test_a_gateway_says_what_it_likes_to_the_load_producer(server: ScriptedServer, said: bytes) -> None:
    server.say(said)

    assert asyncio.run(what_load_heard(server.url))


class Refusing(IngestServicer):
    """Refuses with the trailing metadata that a test wants."""

    metadata: tuple[tuple[str, str | bytes], ...] = ()

    def IngestBatch(self, _request: Any, context: grpc.ServicerContext) -> pb.IngestBatchReply:  # noqa: N802
        context.set_trailing_metadata(self.metadata)
        context.abort(grpc.StatusCode.UNAVAILABLE, "no")
        raise AssertionError


@pytest.fixture(scope="module")
def refusing() -> Iterator[tuple[Refusing, GrpcPublisher]]:
    servicer, server = Refusing(), grpc.server(futures.ThreadPoolExecutor(1))
    add_IngestServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    publisher = GrpcPublisher(f"127.0.0.1:{port}", None)
    yield servicer, publisher
    publisher.close()
    server.stop(None)


@given(value=DATES)
@example(value="soon")
@example(value="nan")
def test_a_grpc_gateway_names_any_wait(refusing: tuple[Refusing, GrpcPublisher], value: str) -> None:
    servicer, publisher = refusing
    # What HTTP/2 carries: ASCII that can be printed.
    printable = "".join(each for each in value if " " <= each <= "~").strip()
    servicer.metadata = (("retry-after", printable), ("refusal-code", "unavailable"))

    with pytest.raises(CallFailed) as failed:
        publisher.send({0: Outgoing("{}")})

    assert 0 <= failed.value.wait_s <= 86_400
