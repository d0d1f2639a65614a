"""The JSON Schema Test Suite, which the sdist of jsonschema ships: fetched once, kept in pytest's cache."""

import fcntl
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from processor.schemas.schema_text import schema_text
from tests.broker_servers import require

LOCK = Path(__file__).parents[2] / "requirements" / "development.txt"
FETCH_S = 300
REMOTE = "http://localhost:1234/"
"""Where the suite says that its other documents are."""


@dataclass(frozen=True)
class Group:
    """A schema with the payloads that are judged by it."""

    name: str
    schema: Any
    tests: list[dict[str, Any]]


@dataclass(frozen=True)
class Suite:
    """The folder of the suite: tests/DRAFT/*.json, and remotes/ with the documents that they refer to."""

    folder: Path

    def groups(self, draft: str, part: str = ".") -> Iterator[Group]:
        """Give the groups that are required of a draft, or those of a folder such as optional/format."""
        for file in sorted((self.folder / "tests" / draft / part).glob("*.json")):
            for group in json.loads(file.read_text(encoding="utf-8"), parse_float=Decimal):
                yield Group(f"{file.stem}: {group['description']}", group["schema"], group["tests"])

    def remotes(self, draft: str, into: Path) -> None:
        """Write the documents that a draft refers to; each says by its id from where it would be fetched."""
        remotes = self.folder / "remotes"
        others = {path.name for path in (self.folder / "tests").iterdir()} - {draft}
        for file in sorted(remotes.rglob("*.json")):
            path = file.relative_to(remotes)
            document = json.loads(file.read_text(encoding="utf-8"), parse_float=Decimal)
            if path.parts[0] not in others:
                word = "id" if draft == "draft4" else "$id"
                named = (
                    {word: f"{REMOTE}{path.as_posix()}"} | document
                    if isinstance(document, dict)
                    else document
                )
                (into / "-".join(path.parts)).write_text(schema_text(named), encoding="utf-8")


def fetch(folder: Path) -> Suite:
    """Fetch the sdist that requirements/ names by its hash, unless it is in `folder` already."""
    pin = re.search(
        r"^jsonschema==(\S+)(?: \\\n +--hash=\S+)+", LOCK.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert pin is not None, LOCK
    wanted, suite = folder / "wanted.txt", Suite(folder / f"jsonschema-{pin[1]}" / "json")
    # Several processes of pytest may begin at once.
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not suite.folder.exists():
            wanted.write_text(pin[0])
            _download(wanted)
            with tarfile.open(folder / f"jsonschema-{pin[1]}.tar.gz") as archive:
                archive.extractall(folder, filter="data")
    return suite


def _download(wanted: Path) -> None:
    # The wheel has no tests. The hash is that of the lock, so that the suite moves when the lock does.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-binary=jsonschema", "--require-hashes", f"--dest={wanted.parent}"]
    done = subprocess.run(
        [*command, "-r", str(wanted)], capture_output=True, text=True, check=False, timeout=FETCH_S
    )
    if done.returncode:
        said = (done.stderr.strip() or "nothing").splitlines()[-1]
        require("the JSON Schema Test Suite", f"pip could not fetch the sdist of jsonschema, it said: {said}")
