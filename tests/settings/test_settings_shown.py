"""`processor settings`: what is in force and where it comes from, and no secret of it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from processor.cli import cli
from processor.settings import Settings
from processor.settings.loading import names, template_names
from processor.settings.shown import HIDDEN, without_secrets

SECRET = "hunter2"
SECRETS = {
    "DATABASE_URL": f"postgresql://me:{SECRET}@db/x?sslmode=require&password={SECRET}",
    "SOURCE_URL": f"amqp://me:{SECRET}@broker/?queue=events",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_SESSION_TOKEN": SECRET,
    "USAGE_SINK_URL": f"https://sink.example/{SECRET}?code={SECRET}",
    "USAGE_SINK_TOKEN": SECRET,
    "GATEWAY_KEY": SECRET,
}


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name in names()]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def _shown(**environment: str) -> dict[str, tuple[Any, str]]:
    result = CliRunner().invoke(cli, ["settings", "--json"], env=environment)
    assert result.exit_code == 0, result.output
    return {row["setting"]: (row["value"], row["source"]) for row in json.loads(result.stdout)}


def test_every_setting_is_shown_with_its_source() -> None:
    Path(".env").write_text("WRITERS=2\nRECEIVERS=4\nSETTLERS=\n", encoding="utf-8")

    shown = _shown(WRITERS="5", AWS_DEFAULT_REGION="eu-west-1")

    assert list(shown) == [name for name in template_names() if name.lower() in Settings.model_fields]
    assert len(shown) == len(Settings.model_fields)
    assert shown["WRITERS"] == (5, "environment")
    assert shown["RECEIVERS"] == (4, ".env")
    assert shown["SETTLERS"] == (3, "default")
    assert shown["AWS_REGION"] == ("eu-west-1", "environment (AWS_DEFAULT_REGION)")


def test_every_secret_is_hidden_and_the_rest_of_its_url_is_shown() -> None:
    secret = {name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}
    assert {name.upper() for name in secret} == SECRETS.keys()

    shown = _shown(**SECRETS)

    assert SECRET not in json.dumps(shown)
    assert shown["DATABASE_URL"][0] == f"postgresql://me:{HIDDEN}@db/x?sslmode=require&{HIDDEN}"
    assert shown["SOURCE_URL"][0] == f"amqp://me:{HIDDEN}@broker/?queue=events"
    assert shown["USAGE_SINK_URL"][0] == f"https://sink.example/{HIDDEN}"
    table = CliRunner().invoke(cli, ["settings"], env=SECRETS).stdout
    assert SECRET not in table


@given(st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=10))
def test_no_password_gets_past_whatever_is_in_it(between: str) -> None:
    password = f"HUNTER{between}2SECRET"

    shown = without_secrets(
        f"postgresql://me:{password}@db:5432/x?application_name={password.partition('@')[0]}"
    )

    assert "HUNTER" not in shown
    assert "2SECRET" not in shown
