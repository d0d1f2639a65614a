"""The reference says what the code says: made pages are up to date, and written ones name everything."""

import os
import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

from processor.cli.errors import Exit
from processor.settings import Settings
from producers.gateway.http.problems import STATUSES
from producers.protos import ingest_pb2
from tests.reference import FOLDER
from tests.reference.commands import commands_page, contexts
from tests.reference.readers import readers
from tests.reference.settings import settings_page
from tests.reference.tables import tables_page

PATHS = {context.command_path for context in contexts()}


def _page(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def test_the_page_of_commands_is_up_to_date() -> None:
    assert _page("commands.md") == commands_page(), "run `make docs`"


def test_the_page_of_settings_is_up_to_date() -> None:
    assert _page("settings.md") == settings_page(), "run `make docs`"


@pytest.mark.skipif(
    "DATABASE_URL_TEST" in os.environ, reason="another PostgreSQL may spell constraints otherwise"
)
def test_the_page_of_tables_is_up_to_date(db: psycopg.Connection[Any]) -> None:
    assert _page("tables.md") == tables_page(db), "run `make docs`"


def test_every_setting_and_every_command_has_a_heading() -> None:
    headings = set(re.findall(r"^#+ (.+)$", _page("settings.md") + _page("commands.md"), re.MULTILINE))

    assert {name.upper() for name in Settings.model_fields} <= headings
    assert headings >= PATHS


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_setting_is_read_by_a_command(name: str) -> None:
    assert readers(name)


def test_the_port_of_the_gateway_is_read_by_the_gateway_alone() -> None:
    assert readers("GATEWAY_PORT") == ["producers gateway"]


def test_the_page_of_exit_codes_has_each_code() -> None:
    rows = re.findall(r"^\| (\d+) \|", _page("exit-codes.md"), re.MULTILINE)

    assert [int(code) for code in rows] == [*Exit, 130, 143]


def test_the_page_of_the_gateways_has_each_code_status_method_and_route() -> None:
    page = _page("http-and-grpc.md")
    services = [ingest_pb2.DESCRIPTOR.services_by_name["Ingest"]]
    words = {*STATUSES, *(method.name for service in services for method in service.methods)}

    assert [word for word in words if f"`{word}`" not in page] == []
    assert [
        code
        for code, status in STATUSES.items()
        if not re.search(rf"^\| [^|]*{status}[^|]* \| [^|]*`{code}`", page, re.MULTILINE)
    ] == []


@pytest.mark.parametrize("page", sorted(FOLDER.glob("*.md")), ids=lambda page: page.name)
def test_the_page_is_in_the_table_of_contents(page: Path) -> None:
    assert page.name == "README.md" or f"({page.name})" in _page("README.md")
