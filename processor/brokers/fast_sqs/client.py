"""Receive, delete and extend as boto3's client does them, for a quarter of its price or less.

    call ─▶ sign ─▶ POST ─▶ 200? ─▶ the answer
                     └─ anything else ─▶ boto3's client makes the same call again

Each of the three may be made twice without harm, so whatever is not a plain answer is left to boto3: it
knows what to try again, after which pause, and what every error means. There is one place that judges them.
"""

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

import orjson
import structlog
from botocore.exceptions import ReadTimeoutError

from processor.brokers.fast_sqs import HotCalls
from processor.brokers.fast_sqs.signature import Signer
from processor.brokers.http_client import HttpEndpoint, HttpTimeout, HttpTrouble

log = structlog.get_logger(__name__)

_OK = 200

_NOT_PLAIN = (HttpTrouble, ValueError, AttributeError, TypeError)
"""No answer, a refusal, or an answer in a shape that is not SQS's."""

STRIKES_MAX = 10
"""Calls in a row that boto3 could do and we could not; from then on boto3 does them all."""


class LeanSqs:
    """HotCalls over one endpoint, with boto3's client behind it. Safe to share between threads."""

    def __init__(
        self, endpoint: HttpEndpoint, signer: Signer, boto3_client: HotCalls, *, user_agent: str
    ) -> None:
        self._endpoint = endpoint
        self._signer = signer
        self._user_agent = ("user-agent", user_agent)
        self._boto3 = boto3_client
        self._strikes = 0

    def receive_message(self, **request: Any) -> Any:  # noqa: ANN401 - as boto3 answers
        """Receive; binary attributes come as bytes."""
        return self._call("ReceiveMessage", request, _received, self._boto3.receive_message)

    def delete_message_batch(self, **request: Any) -> Any:  # noqa: ANN401 - as boto3 answers
        """Delete up to ten."""
        return self._call("DeleteMessageBatch", request, _failed, self._boto3.delete_message_batch)

    def change_message_visibility_batch(self, **request: Any) -> Any:  # noqa: ANN401 - as boto3 answers
        """Extend or release up to ten."""
        return self._call(
            "ChangeMessageVisibilityBatch", request, _failed, self._boto3.change_message_visibility_batch
        )

    def _call(
        self,
        operation: str,
        request: Mapping[str, Any],
        read: Callable[[Mapping[str, Any]], Any],
        by_boto3: Callable[..., Any],
    ) -> Any:  # noqa: ANN401 - as boto3 answers
        if self._strikes < STRIKES_MAX:
            try:
                answer = read(self._ask(operation, request))
            except HttpTimeout as error:
                # Waiting all over again would hide an outage from whoever waits for us.
                raise ReadTimeoutError(endpoint_url=self._endpoint.url, error=error) from error
            except _NOT_PLAIN as error:
                log.debug("lean_call_failed", operation=operation, trouble=str(error))
            else:
                self._strikes = 0
                return answer
        answer = by_boto3(**request)
        self._strike(operation)
        return answer

    def _ask(self, operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
        body = orjson.dumps(request)
        headers = self._signer.headers(f"AmazonSQS.{operation}", body)
        answer = self._endpoint.post([*headers, self._user_agent], body)
        if answer.status != _OK:
            raise HttpTrouble(f"status {answer.status}")
        if not answer.body:
            # Nothing to say, as boto3 takes it, too; to ask again would be to wait a whole poll again.
            return {}
        try:
            document: dict[str, Any] = orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            # Read as boto3 reads it, and not asked for again: what was received is in this answer, and one
            # body with half of a surrogate pair, which orjson refuses, must not burn the receives of all.
            document = json.loads(answer.body)
        return document

    def _strike(self, operation: str) -> None:
        """Note that boto3 could do what we could not."""
        self._strikes += 1
        if self._strikes == STRIKES_MAX:
            log.warning("lean_calls_given_up", operation=operation, consequence="boto3 makes all calls now")


def _received(answer: Mapping[str, Any]) -> dict[str, Any]:
    messages = answer.get("Messages") or []
    for message in messages:
        for attribute in (message.get("MessageAttributes") or {}).values():
            if attribute.get("BinaryValue") is not None:
                attribute["BinaryValue"] = base64.b64decode(attribute["BinaryValue"])
    return {"Messages": messages}


def _failed(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {"Failed": answer.get("Failed") or []}
