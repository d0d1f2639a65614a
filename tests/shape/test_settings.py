"""Settings and `.env-template` say the same."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from dotenv import dotenv_values

from processor.cli import cli
from processor.settings import Settings

TEMPLATE = Path(__file__).parents[2] / ".env-template"
FOR_TESTS_ALONE = "DATABASE_URL_TEST"
CONTRACT = [
    "DATABASE_URL",
    "SQS_QUEUE_URL",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "LOCALSTACK_HOST",
    FOR_TESTS_ALONE,
]
UNITS = {"_DAYS": "Days", "_S": "Seconds", "_S_MAX": "Seconds", "_MS": "Milliseconds", "_BYTES_MAX": "bytes"}


@dataclass(frozen=True)
class Entry:
    name: str
    value: str
    words: str


def _entries() -> list[Entry]:
    """What the template says: a paragraph of comment whose last line is the variable, commented out."""
    found = []
    for paragraph in TEMPLATE.read_text(encoding="utf-8").split("\n\n"):
        *words, last = paragraph.strip().splitlines()
        if matched := re.fullmatch(r"#([A-Z][A-Z0-9_]*)=(.*)", last):
            found.append(Entry(matched[1], matched[2], " ".join(line.lstrip("# ") for line in words)))
    return found


def _default(name: str) -> Any:
    return Settings.model_fields[name.lower()].default


def test_each_setting_stands_in_the_template_once_and_nothing_else_does() -> None:
    names = [entry.name for entry in _entries()]

    assert sorted(names) == sorted([*(name.upper() for name in Settings.model_fields), FOR_TESTS_ALONE])


def test_every_variable_in_the_template_is_an_entry() -> None:
    """So that no variable hides in the middle of a paragraph, where the other tests would not see it."""
    variables = re.findall(r"^#?\s*([A-Z][A-Z0-9_]*)=", TEMPLATE.read_text(encoding="utf-8"), re.MULTILINE)

    assert variables == [entry.name for entry in _entries()]


def test_an_installation_brings_the_template_and_prints_it() -> None:
    project = tomllib.loads((TEMPLATE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    taken_along = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]

    assert taken_along[TEMPLATE.name] == f"processor/{TEMPLATE.name}"
    assert f"!{TEMPLATE.name}\n" in (TEMPLATE.parent / ".dockerignore").read_text(encoding="utf-8")
    printed = CliRunner().invoke(cli, ["settings", "--template"])
    assert printed.stdout == TEMPLATE.read_text(encoding="utf-8")


def test_every_line_of_the_template_is_a_comment() -> None:
    lines = TEMPLATE.read_text(encoding="utf-8").splitlines()

    assert [line for line in lines if line and not line.startswith("#")] == []


def test_the_contract_comes_first() -> None:
    assert [entry.name for entry in _entries()][: len(CONTRACT)] == CONTRACT


@pytest.mark.parametrize("entry", _entries(), ids=lambda entry: entry.name)
def test_an_entry_says_its_true_default_and_why(entry: Entry) -> None:
    assert len(entry.words) > 40
    if entry.name == FOR_TESTS_ALONE:
        assert entry.value == ""
        return
    default = _default(entry.name)
    if default is None:
        assert entry.value == ""
    else:
        assert type(default)(entry.value) == default


@pytest.mark.parametrize("entry", _entries(), ids=lambda entry: entry.name)
def test_an_entry_says_its_unit(entry: Entry) -> None:
    ending = next((ending for ending in UNITS if entry.name.endswith(ending)), None)

    assert ending is None or UNITS[ending].lower() in entry.words.lower()


def test_the_template_as_a_env_file_sets_nothing(tmp_path: Path) -> None:
    copy = tmp_path / ".env"
    copy.write_bytes(TEMPLATE.read_bytes())

    assert dotenv_values(copy) == {}
