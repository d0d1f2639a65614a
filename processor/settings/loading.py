"""How a group of settings is read from the environment and `.env`, and how a bad one is told."""

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
"""Other names of settings, and what the tests read."""


class SettingsGroup(BaseSettings):
    """One value per environment variable of the same name in capitals.

    Times end in `_s` (seconds) or `_ms`, sizes in `_bytes`; secrets are never printed by `repr`.
    """

    model_config = SettingsConfigDict(
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        # A command builds the classes that it reads, and no others.
        defer_build=True,
    )

    @classmethod
    def load(cls, **values: Any) -> Self:  # noqa: ANN401 - as many kinds as there are settings
        """Read the environment; keyword arguments win over it.

        Raises SettingsError, in one line that names each bad variable and never shows a value.
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
    """Give the text of `.env-template`, which stands beside the sources and goes with an installation."""
    package = Path(__file__).resolve().parents[1]
    beside = package.parent / _TEMPLATE
    path = beside if beside.is_file() else package / _TEMPLATE
    return path.read_text(encoding="utf-8")


def template_names() -> list[str]:
    """Name the settings in the order of the template, and DATABASE_URL_TEST."""
    return re.findall(r"^#([A-Z][A-Z0-9_]*)=", template(), re.MULTILINE)


def names() -> set[str]:
    """Name all that is read, as it stands in the environment, and what the tests read."""
    return {*template_names(), *_READ_BESIDES}


def name_in_use(*aliases: str) -> str:
    """Give that of the names of one setting by which it is set."""
    known = names_in_use()
    return next((name for name in aliases if name in known), aliases[0])


def _warn_of_unknown_keys(said: set[str] = set()) -> None:  # noqa: B006 - once in a process
    """Say on standard error which keys of `.env` are no settings; their values are nobody's business."""
    if not (found := env_file_names()):
        return
    note = unknown_keys(found, names())
    if note and note not in said:
        said.add(note)
        print(note, file=sys.stderr)  # noqa: T201 - before there is a log
