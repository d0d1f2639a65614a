"""Opens the SQS client, and classifies its errors."""

from dataclasses import dataclass
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)

from processor.brokers.aws_advice import with_advice
from processor.brokers.boto3_client import client_config, session_and_client
from processor.errors import SettingsError
from processor.settings import SqsSettings

READ_TIMEOUT_S = 20

CALL_FAILED = (BotoCoreError, ClientError)
"""The exceptions of boto3 for a failed call."""

_QUEUE_MISSING = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "InvalidAddress"})
_MESSAGE_AT_FAULT = frozenset(
    {
        "AWS.SimpleQueueService.BatchRequestTooLong",
        "BatchRequestTooLong",
        "InvalidMessageContents",
        "InvalidParameterCombination",
        "InvalidParameterValue",
        "MissingParameter",
    }
)
_THROTTLED = frozenset(
    {"RequestThrottled", "ThrottlingException", "Throttling", "TooManyRequestsException", "KmsThrottled"}
)
_CLIENT_ERROR, _TOO_MANY, _SERVER_ERROR = 400, 429, 500


@dataclass(frozen=True, slots=True)
class SendFailed:
    """A failed call: an outage, or a faulty message in it. No message is known to be on the queue."""

    code: str
    reason: str
    outage: bool


def open_client(settings: SqsSettings, senders: int) -> Any:  # noqa: ANN401 - boto3 makes its clients' classes as it runs
    """Return an SQS client with a connection pool for `senders` concurrent calls.

    `localstack_client` makes it only if LOCALSTACK_HOST is set, since its default is localhost. Raises
    SettingsError if there is no region or the settings contradict each other.
    """
    # Retries are counted in one place, the run, which knows the accepted messages.
    config = client_config(attempts=1, read_timeout_s=READ_TIMEOUT_S, connections=senders)
    options = settings.aws_client_options()
    if settings.localstack_host is None:
        return session_and_client(options, settings.require_endpoint, config)[1]
    try:
        from localstack_client.session import Session  # noqa: PLC0415 - of the extra `devstack`
    except ModuleNotFoundError as error:
        raise SettingsError(
            "LOCALSTACK_HOST needs the package localstack-client, which is not installed; run: "
            "pip install 'sqs-event-processor[devstack]', or set AWS_ENDPOINT_URL instead"
        ) from error
    names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token", "region_name")
    options = {name: value for name, value in options.items() if name in names}
    try:
        return Session(localstack_host=settings.localstack_host, **options).client("sqs", config=config)
    except (BotoCoreError, ValueError, RuntimeError) as error:
        raise SettingsError(with_advice(f"no client for the queue: {error}", type(error).__name__)) from error


def blame(error: Exception, queue_url: str) -> SendFailed:
    """Classify an exception of the client (one of CALL_FAILED): an outage, or a faulty message.

    Raises SettingsError if a retry can't help: no such queue, no right to send, no credentials.
    """
    if isinstance(error, ClientError):
        return _blame_answer(error, queue_url)
    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        raise SettingsError(with_advice(str(error), type(error).__name__)) from error
    if isinstance(error, ParamValidationError):
        # Invalid parameters are a bug of ours, which must not look like an outage.
        raise error
    return SendFailed(type(error).__name__, str(error), outage=True)


def _blame_answer(error: Any, queue_url: str) -> SendFailed:  # noqa: ANN401 - a ClientError, whose answer is a dict
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    fault = error.response.get("Error", {})
    code, reason = str(fault.get("Code", status)), str(fault.get("Message", ""))
    if code in _QUEUE_MISSING:
        raise SettingsError(with_advice(f"there is no queue {queue_url} ({code}: {reason})", code)) from error
    if code in _MESSAGE_AT_FAULT:
        return SendFailed(code, reason, outage=False)
    if code in _THROTTLED or status == _TOO_MANY or not _CLIENT_ERROR <= status < _SERVER_ERROR:
        return SendFailed(code, reason, outage=True)
    told = "see the AWS_* settings and the queue's policy"
    raise SettingsError(
        with_advice(f"the queue {queue_url} denies access ({code}: {reason})", code, otherwise=told)
    ) from error
