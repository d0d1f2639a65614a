"""A fast client for the three SQS calls that every message needs; boto3 makes the others."""

from typing import Any, Protocol


class HotCalls(Protocol):
    """The three calls of boto3's SQS client that every message needs, with their answers and errors."""

    def receive_message(self, **request: Any) -> Any: ...  # noqa: ANN401, D102 - boto3's dictionaries
    def delete_message_batch(self, **request: Any) -> Any: ...  # noqa: ANN401, D102
    def change_message_visibility_batch(self, **request: Any) -> Any: ...  # noqa: ANN401, D102
