"""The one place that makes boto3's SQS client, with the time-outs and attempts of its caller."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from processor.brokers.aws_advice import with_advice
from processor.errors import SettingsError

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


def session_and_client(
    options: Mapping[str, Any], require_endpoint: Callable[[str], None], config: Config
) -> "tuple[Session, SQSClient]":
    """Make a client by the settings' `options` and boto3's own chain of profiles and roles; call nothing.

    `require_endpoint` raises ValueError for an endpoint that contradicts the settings. Raises SettingsError
    where the settings, or what boto3 finds beside them, make no client: no region, say.
    """
    of_session = {name: value for name, value in options.items() if name != "endpoint_url"}
    try:
        session = botocore.session.get_session()
        client: SQSClient = boto3.Session(botocore_session=session, **of_session).client(
            "sqs", config=config, endpoint_url=options.get("endpoint_url")
        )
        require_endpoint(client.meta.endpoint_url)
    except (BotoCoreError, ValueError) as error:
        raise SettingsError(with_advice(f"no client for the queue: {error}", type(error).__name__)) from error
    return session, client
