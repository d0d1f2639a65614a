"""What the host of an SQS URL says: its region, and whether it is AWS that answers there.

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
    # Any domain behind it: whoever writes a region into the name of a host means it.
    rf"(?:[\w-]+\.)?sqs(?:-fips)?\.{_REGION}\..+"
    rf"|{_REGION.replace('region', 'legacy')}\.queue\.amazonaws\.com(?:\.cn)?"
)
_PATH = re.compile(rf"/queue/{_REGION}/.+")
_USUAL = re.compile(r"sqs\.[^.]+\.amazonaws\.com(\.cn)?|([^.]+\.)?queue\.amazonaws\.com(\.cn)?")
_FIRST_REGION = "us-east-1"


def region_of(url: str) -> str | None:
    """Give the region that a queue's URL, or the URL of an endpoint, names; None: none."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if found := _NAMED.fullmatch(host):
        return found["region"] or found["legacy"]
    if host == "queue.amazonaws.com":
        return _FIRST_REGION
    at_path = _PATH.fullmatch(parts.path)
    return at_path["region"] if at_path else None


def endpoint_of(queue_url: str) -> str | None:
    """Give the endpoint that a queue's URL calls for; None: the usual one of its region, which boto3 knows.

    A host of this machine must not be asked for at AWS, nor one inside a VPC at the public endpoint.
    """
    parts = urlsplit(queue_url)
    return None if _USUAL.fullmatch(parts.hostname or "") else f"{parts.scheme}://{parts.netloc}"
