"""The env file of `processor dev` is whole or absent, private, and never replaces other people's settings."""

import stat
from pathlib import Path

import pytest

from processor.devstack.env_file import KEYS, check_env_file, remove_env_file, write_env_file
from processor.errors import SettingsError

SETTINGS = {name: f"value of {name}" for name in KEYS}


def test_it_holds_key_value_lines_for_us_alone(tmp_path: Path) -> None:
    path = tmp_path / "env"

    write_env_file(path, SETTINGS)

    assert path.read_text().splitlines() == [f"{name}=value of {name}" for name in KEYS]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["env"]


def test_one_of_an_earlier_stack_is_removed_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "env"
    write_env_file(path, SETTINGS)

    check_env_file(path)

    assert not path.exists()


def test_other_peoples_settings_are_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("DATABASE_URL=postgresql://production/\nPASSWORD_OF_THE_BANK=1\n")

    with pytest.raises(SettingsError, match="holds other settings"):
        check_env_file(path)
    remove_env_file(path)

    assert "BANK" in path.read_text()


def test_a_directory_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        check_env_file(tmp_path / "nowhere" / "env")
