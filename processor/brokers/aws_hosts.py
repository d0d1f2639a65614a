"""Find the region and the endpoint of an SQS URL by its host.

sqs.REGION.amazonaws.com[.cn]     REGION.queue.amazonaws.com[.cn]     queue.amazonaws.com, of us-east-1
sqs-fips.REGION.amazonaws.com     sqs.REGION.api.aws                  ID.sqs.REGION.vpce.amazonaws.com
sqs.REGION.localhost.localstack.cloud:4566     HOST:4566/queue/REGION/ACCOUNT/QUEUE, LocalStack's
"""

import re
from urllib.parse import urlsplit

AWS_DOMAINS = (
    ".amazonaws.com",
    ".amazonaws.com.cn",
    ".amazonaws.eu",
    ".api.aws",
    ".api.amazonwebservices.com.cn",
)

_REGION = r"(?P<region>[a-z]{2,4}(?:-[a-z]+)+-\d+)"
_NAMED = re.compile(
    # With any domain: a region in a host name is meant as one.
    rf"(?:[\w-]+\.)?sqs(?:-fips)?\.{_REGION}\..+"
    rf"|{_REGION.replace('region', 'legacy')}\.queue\.amazonaws\.com(?:\.cn)?"
)
_PATH = re.compile(rf"/queue/{_REGION}/.+")
_USUAL = re.compile(r"sqs\.[^.]+\.amazonaws\.com(\.cn)?|([^.]+\.)?queue\.amazonaws\.com(\.cn)?")
_FIRST_REGION = "us-east-1"


def region_of(url: str) -> str | None:
    """Return the region in the URL of a queue or an endpoint, or None."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if found := _NAMED.fullmatch(host):
        return found["region"] or found["legacy"]
    if host == "queue.amazonaws.com":
        return _FIRST_REGION
    at_path = _PATH.fullmatch(parts.path)
    return at_path["region"] if at_path else None


def endpoint_of(queue_url: str) -> str | None:
    """Return the endpoint of a queue's URL; None for the usual one of its region, which boto3 knows.

    A local queue must not be looked up at AWS, nor a queue inside a VPC at the public endpoint.
    """
    parts = urlsplit(queue_url)
    return None if _USUAL.fullmatch(parts.hostname or "") else f"{parts.scheme}://{parts.netloc}"
