"""Settings in, a gateway's inside out: the one place that knows all of its parts."""

from collections.abc import Callable
from typing import Any

import boto3
import botocore.session
import structlog
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from processor.errors import SettingsError
from processor.lean_sqs.plain_case import lean_sqs, oddity
from processor.settings import Settings
from producers.doors.sqs import SqsDoor
from producers.gateway.intake import QueueIntake
from producers.gateway.keys import DatabaseKeys, OpenDoor
from producers.gateway.quotas import Quotas
from producers.gateway.reading import Reading
from producers.gateway.sending import Senders
from producers.session import CONNECT_TIMEOUT_S, open_client

log = structlog.get_logger(__name__)


def open_intake(settings: Settings) -> QueueIntake:
    """Make an intake over the queue of the settings. Nothing is called yet; `start` it on its event loop.

    Raises SettingsError where the settings make no client.
    """
    queue_url = settings.need_queue_url()
    calls, look = _calls(settings)
    door = SqsDoor(calls, queue_url)
    return QueueIntake(
        Reading(
            body_bytes_max=settings.body_bytes_max,
            depth_max=settings.json_depth_max,
            values_max=settings.json_values_max,
            fifo=door.ordered,
        ),
        Quotas(
            settings.gateway_tenant_rate,
            burst=settings.gateway_tenant_burst,
            rates=settings.gateway_tenant_rates,
        ),
        Senders(door, settings.gateway_senders, look),
        linger_s=settings.gateway_linger_ms / 1000,
        waiting_max=settings.gateway_waiting_max,
        timeout_s=settings.gateway_timeout_s,
    )


def open_keys(settings: Settings) -> DatabaseKeys | OpenDoor:
    """Make what knows API keys. Nothing is read yet; `start` it.

    Raises SettingsError where keys are required and DATABASE_URL is not set.
    """
    if settings.gateway_keys == "off":
        log.warning("api_keys_are_off", consequence="anybody who can reach the gateway sends as any tenant")
        return OpenDoor()
    return DatabaseKeys(settings.need_database_url(), every_s=settings.gateway_keys_every_s)


def _calls(settings: Settings) -> tuple[Any, Callable[[], object]]:
    """Give what makes the calls, and a look at the queue."""
    queue_url = settings.need_queue_url()
    session, client = _session_and_client(settings)

    def look() -> object:
        return client.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])

    if session is None or settings.sqs_client == "boto3":
        return client, look
    why_not = oddity(session, client)
    if why_not is not None:
        log.info("boto3_makes_all_calls", because=why_not)
        return client, look
    return lean_sqs(session, client), look


def _session_and_client(settings: Settings) -> tuple[Any, Any]:
    if settings.localstack_host is not None:
        return None, open_client(settings, settings.gateway_senders)
    config = Config(
        # Tries are counted in one place, Gather, which knows whose time is over.
        retries={"mode": "standard", "total_max_attempts": 1},
        connect_timeout=min(CONNECT_TIMEOUT_S, settings.gateway_timeout_s),
        # A call that nobody waits for any more must not keep its thread.
        read_timeout=settings.gateway_timeout_s,
        max_pool_connections=settings.gateway_senders + 1,
        tcp_keepalive=True,
    )
    options = settings.aws_client_options()
    endpoint_url = options.pop("endpoint_url", None)
    try:
        session = botocore.session.get_session()
        maker = boto3.Session(botocore_session=session, **options)
        return session, maker.client("sqs", config=config, endpoint_url=endpoint_url)
    except (BotoCoreError, ValueError) as error:
        raise SettingsError(
            f"no client for the queue: {error}; see AWS_REGION and AWS_ENDPOINT_URL in .env-template"
        ) from error
