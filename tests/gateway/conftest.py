"""What tests of the gateway watch."""

import pytest

from processor.devstack.servers.sqs import EmbeddedSqs
from processor.settings import Settings
from producers.gateway import metrics


@pytest.fixture
def queue_settings(sqs_server: EmbeddedSqs, queue_url: str) -> Settings:
    """Settings of this test's own queue; there is no database."""
    return Settings.load(
        _env_file=None,
        sqs_queue_url=queue_url,
        aws_endpoint_url=sqs_server.endpoint_url,
        aws_region="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


@pytest.fixture
def call_sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many events each call to the queue had."""
    sizes: list[int] = []

    class Histogram:
        def observe(self, amount: float) -> None:
            sizes.append(int(amount))

    monkeypatch.setattr(metrics, "batch_size", Histogram())
    return sizes
