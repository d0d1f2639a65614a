"""A setting under another system's name, or misspelt, is named in one line, and its value never."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from processor.errors import SettingsError
from processor.settings import Settings
from processor.settings.foreign import FOREIGN, said_elsewhere, unknown_keys
from processor.settings.loading import names

SECRET = "hunter2"


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name in names() | FOREIGN.keys()]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def _note(*keys: str) -> str | None:
    return unknown_keys(set(keys), names())


@pytest.mark.parametrize("name", FOREIGN)
def test_every_name_of_another_system_stands_for_a_setting_and_is_none(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, _ = FOREIGN[name]
    assert ours in names()
    assert name not in names()

    monkeypatch.setenv(name, SECRET)

    assert f"{name} is set, which is {ours} here: " in said_elsewhere(ours)
    assert said_elsewhere("LOG_LEVEL") == ""
    monkeypatch.setenv(ours, "set")
    assert said_elsewhere(ours) == ""


@pytest.mark.parametrize("where", ["environment", "file"])
@pytest.mark.parametrize(
    ("theirs", "ours", "need"),
    [
        ("DB_CONNECTION", "DATABASE_URL", Settings.need_database_url),
        ("QUEUE_NAME", "SQS_QUEUE_URL", Settings.need_queue_url),
        ("AWS_ENDPOINT", "AWS_ENDPOINT_URL", Settings.need_queue_url),
        ("API_URL_SENDER", "USAGE_SINK_URL", Settings.need_sink_url),
    ],
)
def test_what_is_not_set_names_what_another_system_calls_it(
    theirs: str, ours: str, need: object, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "file":
        Path(".env").write_text(f"{theirs}={SECRET}\n", encoding="utf-8")
    else:
        monkeypatch.setenv(theirs, SECRET)

    assert callable(need)
    with pytest.raises(SettingsError, match=rf"{theirs} is set, which is {ours} here") as caught:
        need(Settings.load())

    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("QUEUE_TENANT", "(QUEUE_TENANTS?)"),
        ("SQS_QUEUE_ULR", "(SQS_QUEUE_URL?)"),
        ("AWS_REGOIN", "(AWS_REGION?)"),
        ("RABBITMQ_URL", "(here: SOURCE_URL)"),
        ("SOMETHING_ELSE", "SOMETHING_ELSE is no setting"),
    ],
)
def test_a_key_that_is_no_setting_is_named_with_what_it_may_mean(key: str, meant: str) -> None:
    assert meant in (_note(key, "WRITERS") or "")


@pytest.mark.parametrize(
    "key", ["AWS_PROFILE", "PGPASSWORD", "COMPOSE_PROJECT_NAME", "TZ", "HTTPS_PROXY", "AWS_DEFAULT_REGION"]
)
def test_keys_of_tools_that_share_the_file_are_left_alone(key: str) -> None:
    assert _note(key) is None


def test_a_name_of_another_system_is_left_alone_where_ours_is_set() -> None:
    assert _note("DB_CONNECTION", "DATABASE_URL") is None
    assert "(here: DATABASE_URL)" in (_note("DB_CONNECTION") or "")


def test_many_keys_are_one_line() -> None:
    note = _note(*(f"STRANGE_{number}" for number in range(50)))

    assert note is not None
    assert note.count("\n") == 0
    assert "45 more" in note


@pytest.mark.parametrize("words", ["processor tenant list", "producers fake --events 1"])
def test_a_process_says_it_once_on_standard_error_without_the_value(words: str, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"QUEUE_TENANT={SECRET}\n", encoding="utf-8")
    program, *arguments = words.split()

    done = subprocess.run(
        [sys.executable, "-m", program, *arguments],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.stderr.count("QUEUE_TENANT (QUEUE_TENANTS?)") == 1
    assert SECRET not in done.stdout + done.stderr
    assert done.returncode == 2
