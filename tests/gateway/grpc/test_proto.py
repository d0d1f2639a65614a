"""The .proto, the code that was made of it, and the code that serves it say the same."""

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

from processor.wire.formats import TRACE_NAMES
from producers import protos
from producers.gateway.grpc.items import STATUS
from producers.gateway.grpc.service import SERVICE, IngestService
from producers.gateway.items import Why
from producers.protos import ingest_pb2 as pb
from producers.protos import usage_pb2 as usage_pb
from tests.gateway.grpc.parts import BOUNDS, PlainIntake, PlainKeys

FOLDER = Path(protos.__file__).parent
PROTO = (FOLDER / "ingest.proto").read_text()


@pytest.mark.parametrize("name", ["ingest", "usage"])
@pytest.mark.parametrize("made", ["pb2.py", "pb2.pyi", "pb2_grpc.py"])
def test_the_code_was_made_of_the_proto_as_it_is(name: str, made: str) -> None:
    """Run `make proto` after a change of the .proto."""
    digest = hashlib.sha256((FOLDER / f"{name}.proto").read_bytes()).hexdigest()

    first = (FOLDER / f"{name}_{made}").read_text().partition("\n")[0]
    assert first == f"# Made by `make proto` of {name}.proto, SHA-256 {digest}"


@pytest.mark.parametrize(("file", "pb"), [("ingest.proto", pb), ("usage.proto", usage_pb)])
def test_the_code_has_every_field_of_the_proto_by_its_number(file: str, pb: Any) -> None:
    written = set()
    proto = (FOLDER / file).read_text()
    for name, body in re.findall(r"^message (\w+) \{(.*?)^\}", proto, re.MULTILINE | re.DOTALL):
        fields = re.findall(r"^ +(?:\w+ )?[\w.]+(?:<.*>)? (\w+) = (\d+);", body, re.MULTILINE)
        written |= {(name, field, int(number)) for field, number in fields}

    messages: Any = pb.DESCRIPTOR.message_types_by_name
    made = {(name, one.name, one.number) for name, kind in messages.items() for one in kind.fields}
    assert written == made


def test_every_method_is_served() -> None:
    service: Any = pb.DESCRIPTOR.services_by_name["Ingest"]
    no_front: Any = None
    handler: Any = IngestService(PlainIntake(), PlainKeys(), BOUNDS, no_front).handler()

    assert set(handler._method_handlers) == {f"/{SERVICE}/{method.name}" for method in service.methods}


def test_every_reason_of_the_intake_has_a_code_and_a_status_and_the_proto_says_its_http_status() -> None:
    codes = {name for name in pb.Code.keys() if name != "CODE_UNSPECIFIED"}  # noqa: SIM118 - no dict

    assert codes == {f"CODE_{why.name}" for why in Why}
    assert set(STATUS) == set(Why)
    for why in Why:
        assert re.search(rf"// {why.status}: [^=]*\n  CODE_{why.name} = ", PROTO), why
        assert re.search(rf"//   {STATUS[why].name} .*?{why.name}", PROTO, re.DOTALL), why


def test_the_proto_names_all_metadata() -> None:
    for name in (*TRACE_NAMES, "authorization", "x-api-key", "idempotency-key"):
        assert f"{name}" in PROTO.partition("syntax =")[0]
