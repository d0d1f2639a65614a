"""Load a group of settings from the environment and `.env`, and report invalid ones."""

import re
import sys
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from processor.errors import SettingsError
from processor.settings.foreign import env_file_names, names_in_use, unknown_keys

_TEMPLATE = ".env-template"
_READ_BESIDES = frozenset({"AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_SQS", "RABBITMQ_URL_TEST"})
"""Aliases of settings, and settings of the tests."""


class SettingsGroup(BaseSettings):
    """One value per environment variable of the same name in capitals.

    Times end in `_s` (seconds) or `_ms`, sizes in `_bytes`. `repr` never prints secrets.
    """

    model_config = SettingsConfigDict(
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        # A command builds only the classes that it reads.
        defer_build=True,
    )

    @classmethod
    def load(cls, **values: Any) -> Self:  # noqa: ANN401 - as many kinds as there are settings
        """Read the environment. Keyword arguments have priority.

        Raises SettingsError with one line that names each invalid variable and never shows a value.
        """
        if values.get("_env_file", ".env"):
            _warn_of_unknown_keys()
        try:
            return cls(**values)
        except ValidationError as error:
            faults = "; ".join(
                ": ".join(
                    [
                        *(str(part).upper() for part in fault["loc"]),
                        fault["msg"].removeprefix("Value error, "),
                    ]
                )
                for fault in error.errors(include_input=False, include_url=False)
            )
            raise SettingsError(
                f"bad settings: {faults}. `processor settings --template` says what each one means."
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f".env can't be read ({type(error).__name__}); expected KEY=VALUE lines in UTF-8, "
                "as in `processor settings --template`"
            ) from None


def template() -> str:
    """Return the text of `.env-template`, which is beside the sources or in the installed package."""
    package = Path(__file__).resolve().parents[1]
    beside = package.parent / _TEMPLATE
    path = beside if beside.is_file() else package / _TEMPLATE
    return path.read_text(encoding="utf-8")


def template_names() -> list[str]:
    """Return the names of all settings in the order of the template, and DATABASE_URL_TEST."""
    return re.findall(r"^#([A-Z][A-Z0-9_]*)=", template(), re.MULTILINE)


def names() -> set[str]:
    """Return the names of all variables that are read, including aliases and those of the tests."""
    return {*template_names(), *_READ_BESIDES}


def name_in_use(*aliases: str) -> str:
    """Return the alias by which a setting is set, or the first one."""
    known = names_in_use()
    return next((name for name in aliases if name in known), aliases[0])


def _warn_of_unknown_keys(said: set[str] = set()) -> None:  # noqa: B006 - once in a process
    """Print unknown keys of `.env` to standard error, without their values."""
    if not (found := env_file_names()):
        return
    note = unknown_keys(found, names())
    if note and note not in said:
        said.add(note)
        print(note, file=sys.stderr)  # noqa: T201 - before there is a log
