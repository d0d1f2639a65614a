"""The judge process: compiles schemas and validates payloads in isolation from the worker.

    stdin: Compile, Judge ─▶ under the kernel's CPU timer and memory limit ─▶ stdout: replies

Exceeding the CPU limit kills the process at once; the worker sees the signal. The process imports little, so
that it starts fast, and ends with its worker, when stdin closes.
"""

import os
import resource
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import jsonschema_rs

from processor.errors import SettingsError
from processor.schemas.compiling import compile_schema
from processor.schemas.judge.frames import (
    LENGTH,
    Broken,
    Compile,
    Found,
    Hello,
    Invalid,
    JudgeRequest,
    NotUnicode,
    Reply,
    Unusable,
    Usable,
    Valid,
    decode_request,
    frame,
)
from processor.schemas.judge.prices import errors_of, price_of
from processor.schemas.schema_text import schema_value
from processor.wire import strict_json
from processor.wire.json_pointer import pointer

JUDGE_CPU_S = 1.0
"""CPU seconds for one payload: parsing, validation, and the search for its errors."""

COMPILE_CPU_S = 5.0
"""CPU seconds for one schema. Two megabytes of FHIR or GitHub take 0.2."""

COMPILE_INLINE_CPU_S = 0.05
"""Schemas above this limit are compiled here only: the library holds the GIL, and uses much memory."""

MEMORY_BYTES_MAX = 1024 * 1024 * 1024

ERRORS_MAX = 50
ERRORS_PAYLOAD_MAX = 8 * 1024
"""All errors of a payload are searched for up to this many characters.

The library gives all errors or one, at some 7 KB and 50 µs each, and one item may break many rules.
"""

_MESSAGE_LENGTH_MAX = 1_000
"""Characters of an error message, which may quote megabytes of the schema."""

_PROBES: tuple[Any, ...] = (None, True, 0, 0.5, "", [], {}, [[]], [{}], {"a": {}})
"""A usable schema must validate these: the library resolves some parts only at first use."""


def main() -> None:
    """Answer requests until stdin closes."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # A signal to the process group also stops our worker, which needs answers until it has finished.
        signal.signal(number, signal.SIG_IGN)
    _limit_resources()
    validators: dict[int, jsonschema_rs.Validator] = {}
    _send(Hello())
    while (head := _read(LENGTH.size)) and (body := _read(LENGTH.unpack(head)[0])):
        request = decode_request(body)
        signal.setitimer(signal.ITIMER_PROF, COMPILE_CPU_S if isinstance(request, Compile) else JUDGE_CPU_S)
        try:
            if isinstance(request, Compile):
                reply = _compile(request, validators)
            else:
                reply = _judge(request, validators[request.key])
        except MemoryError:
            reply = Broken(f"the limit of {MEMORY_BYTES_MAX >> 20} MiB of memory is exceeded")
        except BaseException as error:  # noqa: BLE001 - a panic in Rust is no Exception
            # The state of the library is unknown: the worker ends this process when it reads the reply.
            reply = Broken(f"{type(error).__name__}: {str(error)[:200]}")
        signal.setitimer(signal.ITIMER_PROF, 0)
        _send(reply)


def _compile(request: Compile, validators: dict[int, jsonschema_rs.Validator]) -> Reply:
    began = time.process_time()
    try:
        definition = schema_value(request.definition)
        validator = compile_schema(definition, formats=request.formats)
    except SettingsError as error:
        return Unusable(str(error))
    is_large = time.process_time() - began > COMPILE_INLINE_CPU_S
    for probe in _PROBES:
        validator.is_valid(probe)
    validators[request.key] = validator
    if is_large:
        return Usable(None, None, None)
    return Usable(price_of(definition), price_of(definition, unusual=True), errors_of(definition))


def _judge(request: JudgeRequest, validator: jsonschema_rs.Validator) -> Reply:
    # The worker has checked the limits.
    value = strict_json.read(request.payload, sys.maxsize, sys.maxsize).value
    try:
        if validator.is_valid(value):
            return Valid()
        _send(Invalid())
        return find_errors(validator, value, len(request.payload))
    except ValueError as error:
        # Lone surrogates are legal JSON, but UTF-8, validators and tables can't hold them.
        return NotUnicode(str(error))


def find_errors(validator: jsonschema_rs.Validator, value: Any, characters: int) -> Found:  # noqa: ANN401 - any JSON value
    """Find the errors of an invalid payload of so many characters."""
    if characters <= ERRORS_PAYLOAD_MAX:
        errors = list(validator.iter_errors(value))
        return Found([_error_details(error) for error in errors[:ERRORS_MAX]], len(errors))
    try:
        validator.validate(value)
    except jsonschema_rs.ValidationError as error:
        return Found([_error_details(error)], None)
    return Found([], None)


def _error_details(error: jsonschema_rs.ValidationError) -> tuple[str, str, str]:
    told = pointer(error.instance_path), pointer(error.schema_path), error.message
    at, rule, message = (
        words if len(words) <= _MESSAGE_LENGTH_MAX else words[:_MESSAGE_LENGTH_MAX] + "…" for words in told
    )
    return at, rule, message


def _limit_resources() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, ValueError):
        # Not supported everywhere.
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    with suppress(OSError):
        # Under memory pressure this process should be killed first.
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _read(size: int) -> bytes:
    """Read `size` bytes; fewer: the worker is gone."""
    parts = []
    while size and (part := os.read(0, min(size, 1 << 20))):
        parts.append(part)
        size -= len(part)
    return b"" if size else b"".join(parts)


def _send(reply: Reply) -> None:
    data = memoryview(frame(reply))
    while data:
        data = data[os.write(1, data) :]


if __name__ == "__main__":
    main()
