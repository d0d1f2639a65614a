"""Settings in, a gateway's inside out: the one place that knows all of its parts."""

from typing import Any

import boto3
import botocore.session
import structlog
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from botocore.httpsession import where

from processor.brokers.aws_advice import with_advice
from processor.brokers.fast_sqs.plain_case import oddity, signer_of
from processor.errors import SettingsError
from processor.settings import GatewaySettings
from processor.settings.values import producers_of
from producers.gateway.effort import Effort
from producers.gateway.intake import QueueIntake
from producers.gateway.keys import DatabaseKeys, OpenDoor
from producers.gateway.queue.fast_sqs import LeanSenders
from producers.gateway.queue.posting import Endpoint
from producers.gateway.queue.sending import Senders, Sending
from producers.gateway.quotas import Quotas
from producers.gateway.reading import Reading
from producers.publishers.session import CONNECT_TIMEOUT_S, open_client
from producers.publishers.sqs import SqsDoor

log = structlog.get_logger(__name__)


def open_intake(settings: GatewaySettings) -> QueueIntake:
    """Make an intake over the queue of the settings. Nothing is called yet; `start` it on its event loop.

    Raises SettingsError where the settings make no client.
    """
    queue_url = settings.need_queue_url()
    senders = _senders(settings, queue_url)
    return QueueIntake(
        Reading(
            body_bytes_max=settings.body_bytes_max,
            depth_max=settings.json_depth_max,
            values_max=settings.json_values_max,
            fifo=senders.ordered,
        ),
        Quotas(
            settings.gateway_tenant_rate,
            burst=settings.gateway_tenant_burst,
            rates=settings.gateway_tenant_rates,
        ),
        senders,
        Effort(settings.gateway_tenant_cpu),
        Quotas(settings.gateway_tenant_bytes),
        linger_s=settings.gateway_linger_ms / 1000,
        waiting_max=settings.gateway_waiting_max,
        timeout_s=settings.gateway_timeout_s,
    )


def open_keys(settings: GatewaySettings) -> DatabaseKeys | OpenDoor:
    """Make what knows API keys. Nothing is read yet; `start` it.

    Raises SettingsError where keys are required and DATABASE_URL is not set.
    """
    if settings.gateway_keys == "off":
        log.warning("api_keys_are_off", consequence="anybody who can reach the gateway sends as any tenant")
        return OpenDoor()
    return DatabaseKeys(
        settings.need_database_url(),
        every_s=settings.gateway_keys_every_s,
        reserved=producers_of(settings.reserved_producers),
    )


def _senders(settings: GatewaySettings, queue_url: str) -> Sending:
    session, client = _session_and_client(settings)
    door = SqsDoor(client, queue_url)
    by_boto3 = Senders(
        door,
        settings.gateway_senders,
        lambda: client.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"]),
    )
    if session is None or settings.sqs_client == "boto3":
        return by_boto3
    why_not = oddity(session, client)
    if why_not is not None:
        log.info("boto3_makes_all_calls", because=why_not)
        return by_boto3
    config = client.meta.config
    endpoint = Endpoint(
        client.meta.endpoint_url,
        connect_timeout_s=config.connect_timeout,
        read_timeout_s=config.read_timeout,
        ca_file=where(),
    )
    return LeanSenders(door, endpoint, signer_of(session, client), by_boto3, user_agent=config.user_agent)


def _session_and_client(settings: GatewaySettings) -> tuple[Any, Any]:
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
        client = maker.client("sqs", config=config, endpoint_url=endpoint_url)
        settings.require_endpoint(client.meta.endpoint_url)
    except (BotoCoreError, ValueError) as error:
        raise SettingsError(with_advice(f"no client for the queue: {error}", type(error).__name__)) from error
    return session, client
