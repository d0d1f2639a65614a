"""What the probes answer, over a real socket."""

import http.client
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from processor.errors import SettingsError
from processor.runtime import metrics
from processor.runtime.probes import Probes


@dataclass
class Process:
    """A process as the probes see it."""

    probes: Probes
    alive: bool = True
    trouble: str = ""

    def get(self, path: str) -> tuple[int, str, bytes]:
        """The status, content type and body that a path answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.probes.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.headers["Content-Type"], answer.read()
        finally:
            connection.close()

    def ask(self, path: str) -> tuple[int, Any]:
        """The status and the JSON object that a path answers."""
        status, content_type, body = self.get(path)
        assert content_type == "application/json"
        return status, json.loads(body)


@pytest.fixture
def process() -> Iterator[Process]:
    probes = Probes("127.0.0.1", 0, alive=lambda: it.alive, trouble=lambda: it.trouble)
    it = Process(probes)
    probes.start()
    yield it
    probes.stop()


def test_a_process_that_works_is_alive_and_ready(process: Process) -> None:
    assert process.ask("/livez") == (200, {"alive": True})
    assert process.ask("/readyz") == (200, {"ready": True, "trouble": ""})


def test_a_process_in_trouble_is_alive_and_says_why_it_is_not_ready(process: Process) -> None:
    process.trouble = "database: the database can't be reached: Connection refused"

    assert process.ask("/readyz") == (503, {"ready": False, "trouble": process.trouble})
    assert process.ask("/livez")[0] == 200


def test_trouble_that_is_over_is_forgotten(process: Process) -> None:
    process.trouble = "starting"
    assert process.ask("/readyz")[0] == 503

    process.trouble = ""

    assert process.ask("/readyz")[0] == 200


def test_a_process_that_can_work_no_more_is_not_alive(process: Process) -> None:
    process.alive = False

    assert process.ask("/livez") == (503, {"alive": False})


def test_any_other_path_names_those_there_are(process: Process) -> None:
    for path in ("/", "/livez/", "/metrics/x", "/../etc/passwd"):
        assert process.ask(path) == (404, {"paths": ["/livez", "/readyz", "/metrics"]})


def test_a_query_does_not_hide_a_probe(process: Process) -> None:
    assert process.ask("/livez?from=orchestrator")[0] == 200


def test_metrics_can_be_read_by_prometheus(process: Process) -> None:
    metrics.held.set(7)

    status, content_type, body = process.get("/metrics")

    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    assert status == 200
    assert content_type.startswith("text/plain")
    assert [sample.value for sample in families["processor_held_deliveries"].samples] == [7]
    assert families["processor_deliveries"].type == "counter"
    assert families["processor_batch_size"].type == "histogram"


def test_several_may_ask_at_once(process: Process) -> None:
    """A connection that says nothing keeps nobody else waiting."""
    with socket.create_connection(("127.0.0.1", process.probes.port)):
        assert process.ask("/livez")[0] == 200


def test_a_busy_port_is_one_clear_line(process: Process) -> None:
    with pytest.raises(SettingsError, match="HTTP_PORT") as caught:
        Probes("127.0.0.1", process.probes.port, alive=lambda: True, trouble=lambda: "")

    assert str(process.probes.port) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_host_that_is_none_is_one_clear_line() -> None:
    with pytest.raises(SettingsError):
        Probes("192.0.2.1", 0, alive=lambda: True, trouble=lambda: "")


def test_a_stop_frees_the_port() -> None:
    first = Probes("127.0.0.1", 0, alive=lambda: True, trouble=lambda: "")
    first.start()
    first.stop()

    second = Probes("127.0.0.1", first.port, alive=lambda: True, trouble=lambda: "")
    second.start()
    second.stop()
