"""Make boto3's SQS client, with the timeouts and attempts of the caller. No other module makes one."""

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
    """Return a configuration that limits every wait and the number of connections."""
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
    """Make a client from `options` and boto3's own chain of profiles and roles. No call is made.

    `require_endpoint` raises ValueError for an endpoint that contradicts the settings. Raises SettingsError
    if settings and boto3's configuration are incomplete, for example without a region.
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
