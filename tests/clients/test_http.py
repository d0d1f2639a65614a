"""The HTTP gateway, by the SDKs of CloudEvents from PyPI and npm."""

import httpx
import pytest
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

from processor.devstack.servers.sqs import EmbeddedSqs
from tests.clients import cloudevent
from tests.clients.flow import PULSE, Flow, of_queue
from tests.clients.npm import RunNode
from tests.gateway.http.rig import a_gateway, settings_of


@pytest.mark.parametrize(
    ("path", "make", "row"),
    [
        ("/v1/events", cloudevent.an_event, cloudevent.row),
        ("/v1/events", cloudevent.a_pulse, cloudevent.pulse_row),
        ("/ingest", cloudevent.a_pulse, cloudevent.pulse_row),
    ],
)
def test_the_sdk_from_pypi_sends_in_both_modes(
    flow: Flow,
    sqs_server: EmbeddedSqs,
    queue_url: str,
    path: str,
    make: cloudevent.Make,
    row: cloudevent.MakeRow,
) -> None:
    with a_gateway(settings_of(sqs_server, queue_url), sqs_server) as gateway:
        url = f"http://127.0.0.1:{gateway.port}{path}"
        for message in (to_binary_event(make("binary")), to_structured_event(make("structured"))):
            answers = [httpx.post(url, content=message.body, headers=message.headers) for _ in range(2)]
            assert [answer.status_code for answer in answers] == [202, 202], answers[0].text
    flow.run(**of_queue(sqs_server, queue_url))

    assert flow.rows() == [row("binary"), row("structured")]
    assert flow.duplicates() == ["binary", "structured"]
    assert {context["partitionkey"] for context in flow.contexts.values()} == {"p-1"}


def test_the_sdk_from_npm_sends_in_both_modes_to_both_paths(
    flow: Flow, sqs_server: EmbeddedSqs, queue_url: str, run_node: RunNode
) -> None:
    event = cloudevent.attributes("e", type="pulse", time="2026-11-29T09:00:00Z") | {"data": PULSE}
    with a_gateway(settings_of(sqs_server, queue_url), sqs_server) as gateway:
        answers = run_node("http.mjs", url=f"http://127.0.0.1:{gateway.port}", event=event)
    flow.run(**of_queue(sqs_server, queue_url))

    ids = ["e-one", "e-two"]
    ids += [f"e{path}-{mode}" for path in ("/ingest", "/v1/events") for mode in ("binary", "structured")]
    assert answers == [202] * 10
    assert flow.rows() == [cloudevent.pulse_row(event_id) for event_id in ids]
    assert flow.duplicates() == ids


def test_an_event_without_data_is_taken(flow: Flow, sqs_server: EmbeddedSqs, queue_url: str) -> None:
    message = to_binary_event(
        CloudEvent(cloudevent.attributes("nothing", datacontenttype="application/json"))
    )
    with a_gateway(settings_of(sqs_server, queue_url), sqs_server) as gateway:
        url = f"http://127.0.0.1:{gateway.port}/v1/events"
        answer = httpx.post(url, content=message.body, headers=message.headers)
    flow.run(**of_queue(sqs_server, queue_url))

    assert answer.status_code == 202, answer.text
    assert flow.rows() == [cloudevent.row("nothing", payload=None)]
