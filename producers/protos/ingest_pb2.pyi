# Made by `make proto` of ingest.proto, SHA-256 e50753c9e65685909158fb3c8668d7b06199171a42bab6269463fbd6471b47d5
import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Code(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CODE_UNSPECIFIED: _ClassVar[Code]
    CODE_MALFORMED: _ClassVar[Code]
    CODE_UNAUTHENTICATED: _ClassVar[Code]
    CODE_FORBIDDEN: _ClassVar[Code]
    CODE_TOO_LARGE: _ClassVar[Code]
    CODE_INVALID: _ClassVar[Code]
    CODE_OVER_QUOTA: _ClassVar[Code]
    CODE_UNAVAILABLE: _ClassVar[Code]
CODE_UNSPECIFIED: Code
CODE_MALFORMED: Code
CODE_UNAUTHENTICATED: Code
CODE_FORBIDDEN: Code
CODE_TOO_LARGE: Code
CODE_INVALID: Code
CODE_OVER_QUOTA: Code
CODE_UNAVAILABLE: Code

class IngestRequest(_message.Message):
    __slots__ = ("event", "raw", "idempotency_key")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    event: Event
    raw: Raw
    idempotency_key: str
    def __init__(self, event: _Optional[_Union[Event, _Mapping]] = ..., raw: _Optional[_Union[Raw, _Mapping]] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("tenant_id", "event_type", "id", "producer", "occurred_at", "occurred_at_text", "schema_version", "payload_json", "payload_json_bytes", "extensions")
    class ExtensionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_FIELD_NUMBER: _ClassVar[int]
    OCCURRED_AT_FIELD_NUMBER: _ClassVar[int]
    OCCURRED_AT_TEXT_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_JSON_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_JSON_BYTES_FIELD_NUMBER: _ClassVar[int]
    EXTENSIONS_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    event_type: str
    id: str
    producer: str
    occurred_at: _timestamp_pb2.Timestamp
    occurred_at_text: str
    schema_version: int
    payload_json: str
    payload_json_bytes: bytes
    extensions: _containers.ScalarMap[str, str]
    def __init__(self, tenant_id: _Optional[str] = ..., event_type: _Optional[str] = ..., id: _Optional[str] = ..., producer: _Optional[str] = ..., occurred_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., occurred_at_text: _Optional[str] = ..., schema_version: _Optional[int] = ..., payload_json: _Optional[str] = ..., payload_json_bytes: _Optional[bytes] = ..., extensions: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Raw(_message.Message):
    __slots__ = ("body", "text", "attributes")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    BODY_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    body: bytes
    text: str
    attributes: _containers.ScalarMap[str, str]
    def __init__(self, body: _Optional[bytes] = ..., text: _Optional[str] = ..., attributes: _Optional[_Mapping[str, str]] = ...) -> None: ...

class IngestReply(_message.Message):
    __slots__ = ("taken",)
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    taken: Taken
    def __init__(self, taken: _Optional[_Union[Taken, _Mapping]] = ...) -> None: ...

class IngestBatchRequest(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[IngestRequest]
    def __init__(self, items: _Optional[_Iterable[_Union[IngestRequest, _Mapping]]] = ...) -> None: ...

class IngestBatchReply(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[Result]
    def __init__(self, results: _Optional[_Iterable[_Union[Result, _Mapping]]] = ...) -> None: ...

class IngestStreamRequest(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[IngestRequest]
    def __init__(self, items: _Optional[_Iterable[_Union[IngestRequest, _Mapping]]] = ...) -> None: ...

class IngestStreamReply(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[SequencedResult]
    def __init__(self, results: _Optional[_Iterable[_Union[SequencedResult, _Mapping]]] = ...) -> None: ...

class IngestUploadReply(_message.Message):
    __slots__ = ("results", "ended_early")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    ENDED_EARLY_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[Result]
    ended_early: bool
    def __init__(self, results: _Optional[_Iterable[_Union[Result, _Mapping]]] = ..., ended_early: bool = ...) -> None: ...

class SequencedResult(_message.Message):
    __slots__ = ("sequence", "result")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    result: Result
    def __init__(self, sequence: _Optional[int] = ..., result: _Optional[_Union[Result, _Mapping]] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("taken", "refusal")
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    taken: Taken
    refusal: Refusal
    def __init__(self, taken: _Optional[_Union[Taken, _Mapping]] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ...) -> None: ...

class Taken(_message.Message):
    __slots__ = ("message_id", "delivery_id", "made_id")
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_ID_FIELD_NUMBER: _ClassVar[int]
    MADE_ID_FIELD_NUMBER: _ClassVar[int]
    message_id: str
    delivery_id: str
    made_id: bool
    def __init__(self, message_id: _Optional[str] = ..., delivery_id: _Optional[str] = ..., made_id: bool = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("code", "detail", "errors", "retry_after_s")
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    code: Code
    detail: str
    errors: _containers.RepeatedCompositeFieldContainer[FieldError]
    retry_after_s: int
    def __init__(self, code: _Optional[_Union[Code, str]] = ..., detail: _Optional[str] = ..., errors: _Optional[_Iterable[_Union[FieldError, _Mapping]]] = ..., retry_after_s: _Optional[int] = ...) -> None: ...

class FieldError(_message.Message):
    __slots__ = ("pointer", "rule", "message")
    POINTER_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    pointer: str
    rule: str
    message: str
    def __init__(self, pointer: _Optional[str] = ..., rule: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...
