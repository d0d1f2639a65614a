# Made by `make proto` of usage.proto, SHA-256 3acb66cb408f6c7e1d50c6ededd16e0a6a257940d8ec50dc7bb42efcea6e8e01
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
