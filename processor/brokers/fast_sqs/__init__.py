"""The three SQS calls that every message pays for, without what makes boto3's dear; boto3 does the rest."""

from typing import Any, Protocol


class HotCalls(Protocol):
    """The part of boto3's SQS client that every message passes: the methods, their answers and errors."""

    def receive_message(self, **request: Any) -> Any: ...  # noqa: ANN401, D102 - boto3's dictionaries
    def delete_message_batch(self, **request: Any) -> Any: ...  # noqa: ANN401, D102
    def change_message_visibility_batch(self, **request: Any) -> Any: ...  # noqa: ANN401, D102
