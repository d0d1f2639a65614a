"""Builds the intake and the keys of a gateway from its settings."""

from typing import Any

import structlog
from botocore.httpsession import where

from processor.brokers.boto3_client import CONNECT_TIMEOUT_S, client_config, session_and_client
from processor.brokers.fast_sqs.plain_case import oddity, signer_of
from processor.settings import GatewaySettings
from processor.settings.values import producers_of
from producers.gateway.effort import Effort
from producers.gateway.intake import QueueIntake
from producers.gateway.keys import DatabaseKeys, NoKeys
from producers.gateway.queue.fast_sqs import LeanSenders
from producers.gateway.queue.posting import AsyncEndpoint
from producers.gateway.queue.sending import Senders, Sending
from producers.gateway.quotas import Quotas
from producers.gateway.reading import EventReader
from producers.publishers.session import open_client
from producers.publishers.sqs import SqsPublisher

log = structlog.get_logger(__name__)


def open_intake(settings: GatewaySettings) -> QueueIntake:
    """Make an intake over the configured queue. No call is made yet; `start` it on its event loop.

    Raises SettingsError if the settings are no use for an SQS client.
    """
    queue_url = settings.need_queue_url()
    senders = _senders(settings, queue_url)
    return QueueIntake(
        EventReader(
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


def open_keys(settings: GatewaySettings) -> DatabaseKeys | NoKeys:
    """Make the source of API keys. No key is read yet; `start` it.

    Raises SettingsError where keys are required and DATABASE_URL is not set.
    """
    if settings.gateway_keys == "off":
        log.warning("api_keys_are_off", consequence="anybody who can reach the gateway sends as any tenant")
        return NoKeys()
    return DatabaseKeys(
        settings.need_database_url(),
        every_s=settings.gateway_keys_every_s,
        reserved=producers_of(settings.reserved_producers),
    )


def _senders(settings: GatewaySettings, queue_url: str) -> Sending:
    session, client = _session_and_client(settings)
    publisher = SqsPublisher(client, queue_url)
    by_boto3 = Senders(
        publisher,
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
    endpoint = AsyncEndpoint(
        client.meta.endpoint_url,
        connect_timeout_s=config.connect_timeout,
        read_timeout_s=config.read_timeout,
        ca_file=where(),
    )
    return LeanSenders(
        publisher, endpoint, signer_of(session, client), by_boto3, user_agent=config.user_agent
    )


def _session_and_client(settings: GatewaySettings) -> tuple[Any, Any]:
    if settings.localstack_host is not None:
        return None, open_client(settings, settings.gateway_senders)
    config = client_config(
        # Retries are counted in one place, Gather, which knows each event's timeout.
        attempts=1,
        connect_timeout_s=min(CONNECT_TIMEOUT_S, settings.gateway_timeout_s),
        # A call whose callers have timed out must not occupy its thread.
        read_timeout_s=settings.gateway_timeout_s,
        connections=settings.gateway_senders + 1,
    )
    return session_and_client(settings.aws_client_options(), settings.require_endpoint, config)
