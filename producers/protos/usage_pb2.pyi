# Made by `make proto` of usage.proto, SHA-256 88b5baa9084bfa352dd26fd4b43040d239fbfac5326e4070ecea5d2d970b0e2a
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class ConsumeRequest(_message.Message):
    __slots__ = ("tenant_id", "product_sku", "used_amount", "use_unity")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    PRODUCT_SKU_FIELD_NUMBER: _ClassVar[int]
    USED_AMOUNT_FIELD_NUMBER: _ClassVar[int]
    USE_UNITY_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    product_sku: str
    used_amount: float
    use_unity: str
    def __init__(self, tenant_id: _Optional[str] = ..., product_sku: _Optional[str] = ..., used_amount: _Optional[float] = ..., use_unity: _Optional[str] = ...) -> None: ...

class ConsumeReply(_message.Message):
    __slots__ = ("success", "message")
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    success: bool
    message: str
    def __init__(self, success: bool = ..., message: _Optional[str] = ...) -> None: ...
