"""The publisher for the gRPC gateway: IngestBatch, each message as a raw body with attributes."""

import re
from collections.abc import Mapping

import grpc

from processor.errors import SettingsError
from processor.wire.bounds import wait_s_of
from producers.protos import ingest_pb2 as pb
from producers.protos.ingest_pb2_grpc import IngestStub
from producers.publishers import WAIT_S_MAX, Answer, CallFailed
from producers.publishers.outgoing import Outgoing

TIMEOUT_S = 30.0
"""Longer than the gateway waits for its queue, so that the gateway's own error arrives first."""

_OPTIONS = (("grpc.max_reconnect_backoff_ms", 2000),)
"""By default gRPC waits up to two minutes before it reconnects to a gateway that is back."""

_HOPELESS = frozenset(
    (
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
    )
)
_PASSES = frozenset((pb.CODE_OVER_QUOTA, pb.CODE_UNAVAILABLE))
_TARGET = re.compile(r"(?P<scheme>https?://)?(?P<address>(?:[\w.-]+|\[[0-9A-Fa-f:]+\]):[0-9]{1,5})/?")


class GrpcPublisher:
    """One gateway at HOST:PORT, or https://HOST:PORT for TLS; `key` is the API key."""

    def __init__(self, target: str, key: str | None) -> None:
        """Make no call yet. Raises SettingsError if `target` is not an address."""
        matched = _TARGET.fullmatch(target)
        if matched is None:
            raise SettingsError(
                f"{target!r} is not an address of a gRPC gateway; expected HOST:PORT or https://HOST:PORT"
            )
        self._name = target
        if matched["scheme"] == "https://":
            self._channel = grpc.secure_channel(matched["address"], grpc.ssl_channel_credentials(), _OPTIONS)
        else:
            self._channel = grpc.insecure_channel(matched["address"], _OPTIONS)
        self._stub = IngestStub(self._channel)
        self._metadata = () if key is None else (("authorization", f"Bearer {key}"),)

    @property
    def name(self) -> str:
        """The gateway's address."""
        return self._name

    @property
    def ordered(self) -> bool:
        """False: the gateway keeps no order."""
        return False

    def send(self, batch: Mapping[int, Outgoing]) -> Answer:
        """Send these in one call; the state of a message without a result is unknown."""
        request = pb.IngestBatchRequest(items=[_request(message) for message in batch.values()])
        try:
            reply = self._stub.IngestBatch(request, timeout=TIMEOUT_S, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._failed(error) from error
        answer = Answer()
        for index, result in zip(batch, reply.results, strict=False):
            _note(answer, index, result)
        return answer

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def _failed(self, error: grpc.RpcError) -> Exception:
        status, words = error.code(), error.details() or ""
        if status in _HOPELESS:
            return SettingsError(
                f"the gateway {self._name} takes nothing from us: {status.name}: {words}; "
                "see the API key (GATEWAY_KEY) and the address"
            )
        said = _trailing(error)
        code = str(said.get("refusal-code", status.name.lower()))
        wait_s = wait_s_of(said.get("retry-after"), WAIT_S_MAX) or 0.0
        return CallFailed(code, words, outage=not _at_fault(status, code, words), wait_s=wait_s)


def _request(message: Outgoing) -> pb.IngestRequest:
    has_id = message.message_id or message.attributes.get("message_id")
    return pb.IngestRequest(
        raw=pb.Raw(body=message.body.encode("utf-8", "surrogatepass"), attributes=message.attributes),
        # Without a key, a retry of a message without an id would make a second event.
        idempotency_key="" if has_id else message.deduplication_id,
    )


def _note(answer: Answer, index: int, result: pb.Result) -> None:
    match result.WhichOneof("outcome"):
        case "taken":
            answer.accepted[index] = result.taken.delivery_id
        case "refusal":
            refusal = result.refusal
            word = pb.Code.Name(refusal.code).removeprefix("CODE_").lower()
            where = answer.again if refusal.code in _PASSES else answer.refused
            where[index] = (word, refusal.detail)
            answer.wait_s = max(answer.wait_s, float(refusal.retry_after_s))


def _at_fault(status: grpc.StatusCode, code: str, words: str) -> bool:
    """Tell whether some message of the call is at fault, so that a retry can't help."""
    if status == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return code == "too_large" or "larger than max" in words
    return status in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE)


def _trailing(error: grpc.RpcError) -> dict[str, str | bytes]:
    return {pair.key: pair.value for pair in error.trailing_metadata() or ()}
