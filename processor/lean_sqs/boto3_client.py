"""The one place that makes boto3's SQS client, with the time-outs and attempts of its caller."""

from typing import TYPE_CHECKING

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from processor.brokers.aws_advice import with_advice
from processor.errors import SettingsError
from processor.settings import Settings

if TYPE_CHECKING:
    from botocore.session import Session
    from mypy_boto3_sqs import SQSClient

CONNECT_TIMEOUT_S = 5.0


def client_config(
    *, attempts: int, read_timeout_s: float, connections: int, connect_timeout_s: float = CONNECT_TIMEOUT_S
) -> Config:
    """Bound every wait of a client, and the number of its connections."""
    return Config(
        connect_timeout=connect_timeout_s,
        read_timeout=read_timeout_s,
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=connections,
        tcp_keepalive=True,
    )


def session_and_client(settings: Settings, config: Config) -> "tuple[Session, SQSClient]":
    """Make a client by the settings and boto3's own chain of profiles and roles. Nothing is called yet.

    Raises SettingsError where the settings, or what boto3 finds beside them, make none: no region, say.
    """
    options = settings.aws_client_options()
    endpoint_url = options.pop("endpoint_url", None)
    try:
        session = botocore.session.get_session()
        client: SQSClient = boto3.Session(botocore_session=session, **options).client(
            "sqs", config=config, endpoint_url=endpoint_url
        )
        settings.require_endpoint(client.meta.endpoint_url)
    except (BotoCoreError, ValueError) as error:
        raise SettingsError(with_advice(f"no client for the queue: {error}", type(error).__name__)) from error
    return session, client
