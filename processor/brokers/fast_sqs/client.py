"""Receive, delete and extend like boto3's client, with a quarter of its CPU time or less.

    call ─▶ sign ─▶ POST ─▶ 200? ─▶ the answer
                     └─ anything else ─▶ boto3's client makes the same call again

Each of the three calls is safe to repeat. So boto3 repeats every call without a plain answer, and only boto3
decides on retries, backoff and the meaning of errors.
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
"""No answer, a refusal, or an answer that is not in the format of SQS."""

STRIKES_MAX = 10
"""Consecutive calls that only boto3 could do, after which boto3 makes all calls."""


class LeanSqs:
    """HotCalls over one endpoint, with boto3's client as the fallback. Thread-safe."""

    def __init__(
        self, endpoint: HttpEndpoint, signer: Signer, boto3_client: HotCalls, *, user_agent: str
    ) -> None:
        self._endpoint = endpoint
        self._signer = signer
        self._user_agent = ("user-agent", user_agent)
        self._boto3 = boto3_client
        self._strikes = 0

    def receive_message(self, **request: Any) -> Any:  # noqa: ANN401 - as boto3 answers
        """Receive messages. Binary attributes are bytes."""
        return self._call("ReceiveMessage", request, _received, self._boto3.receive_message)

    def delete_message_batch(self, **request: Any) -> Any:  # noqa: ANN401 - as boto3 answers
        """Delete up to ten messages."""
        return self._call("DeleteMessageBatch", request, _failed, self._boto3.delete_message_batch)

    def change_message_visibility_batch(self, **request: Any) -> Any:  # noqa: ANN401 - as boto3 answers
        """Extend or release up to ten messages."""
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
                # A second wait would hide the outage from the caller.
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
            # No messages, as boto3 reads it too. A repeated call would wait for a whole poll again.
            return {}
        try:
            document: dict[str, Any] = orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            # Parsed like boto3, and not repeated: the received messages are in this answer. One body with an
            # unpaired surrogate, which orjson refuses, must not raise the receive count of all.
            document = json.loads(answer.body)
        return document

    def _strike(self, operation: str) -> None:
        """Count a call that only boto3 could do."""
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
