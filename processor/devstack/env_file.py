"""The env file: KEY=VALUE lines for scripts, present while the stack is ready."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from processor.errors import SettingsError

KEYS = (
    "DATABASE_URL",
    "SQS_QUEUE_URL",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "HTTP_PORT",
)


def check_env_file(path: Path) -> None:
    """Remove the env file of an earlier stack, because scripts wait for the new one.

    Raises SettingsError if the file has foreign content, or its directory does not exist.
    """
    if not path.parent.is_dir():
        raise SettingsError(
            f"the directory of {path} does not exist; expected one to write the settings into"
        )
    if path.is_dir():
        raise SettingsError(f"{path} is a directory; expected a file to write the settings into")
    if path.exists() and not _is_ours(path):
        raise SettingsError(
            f"{path} holds other settings than those of `processor dev`; expected a file that may be "
            "replaced; name another file"
        )
    path.unlink(missing_ok=True)


def write_env_file(path: Path, settings: Mapping[str, str]) -> None:
    """Write all settings atomically, readable for the owner only."""
    text = "".join(f"{name}={settings[name]}\n" for name in KEYS)
    # mkstemp makes it with mode 0600.
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def remove_env_file(path: Path) -> None:
    """Remove the file when the stack ends, unless its content has changed."""
    if path.is_file() and _is_ours(path):
        path.unlink(missing_ok=True)


def _is_ours(path: Path) -> bool:
    lines = path.read_text(errors="replace").splitlines()
    return all(line.partition("=")[0] in KEYS for line in lines)
