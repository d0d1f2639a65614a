"""Decide whether the fast client supports the configuration; else boto3 makes all calls."""

import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from botocore.httpsession import where
from botocore.utils import get_environ_proxies

from processor.brokers.fast_sqs.client import LeanSqs
from processor.brokers.fast_sqs.signature import Signer
from processor.brokers.http_client import HttpEndpoint, host_of

if TYPE_CHECKING:
    from botocore.session import Session
    from mypy_boto3_sqs import SQSClient


def oddity(session: "Session", client: "SQSClient") -> str | None:
    """Return which part of the configuration the fast client does not support, or None."""
    config, url = client.meta.config, client.meta.endpoint_url
    parts = urlsplit(url)
    # A CA bundle has no effect on plain HTTP.
    ca_bundle = parts.scheme == "https" and (
        session.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE")
    )
    oddities = {
        "no credentials": session.get_credentials() is None,
        "a signature version other than 4": config.signature_version != "v4",
        "an endpoint with more than a host and a port": parts.path not in ("", "/") or parts.username,
        "a proxy": config.proxies or get_environ_proxies(url),
        "a CA bundle of its own": ca_bundle,
        "a client certificate": config.client_cert,
    }
    return next((name for name, found in oddities.items() if found), None)


def lean_sqs(session: "Session", client: "SQSClient") -> LeanSqs:
    """Make a fast client with the credentials, endpoint, region and timeouts of `client`."""
    config = client.meta.config
    url = client.meta.endpoint_url
    signer = signer_of(session, client)
    endpoint = HttpEndpoint(
        url,
        connect_timeout_s=config.connect_timeout,
        read_timeout_s=config.read_timeout,
        ca_file=where(),
    )
    return LeanSqs(endpoint, signer, client, user_agent=config.user_agent)


def signer_of(session: "Session", client: "SQSClient") -> Signer:
    """Make a signer with the credentials of `client`, which must have some."""
    return Signer(
        session.get_credentials().get_frozen_credentials,
        host=host_of(client.meta.endpoint_url),
        region=client.meta.region_name,
        service="sqs",
    )
