"""Whatever is done to a program's terminal, it ends with an exit code, and without a traceback."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from processor.cli import cli as processor_cli
from producers.cli import main as producers_cli

Words = tuple[str, ...]


def _commands(group: click.Command, words: Words) -> Iterator[Words]:
    yield words
    if isinstance(group, click.Group):
        for name, command in group.commands.items():
            yield from _commands(command, (*words, name))


HELP = [  # In a process of its own only the last: a process for each would take minutes.
    (*words, "--help")
    for name, group in (("processor", processor_cli), ("producers", producers_cli))
    for words in _commands(group, (name,))
]
REAL = [
    ("producers", "--version"),
    ("processor", "settings", "--template"),
    ("processor", "check"),
    ("processor", "tenant", "list", "--json"),
    ("processor", "nothing-of-the-kind"),
    ("producers", "fake", "--events", "1"),
]


@pytest.fixture
def environment(database_url: str, tmp_path: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "DATABASE_URL": database_url}


def _run(words: Words, environment: dict[str, str], tail: str = "", **more: str) -> tuple[int, str]:
    command = [sys.executable, "-c", f"from {words[0]}.__main__ import main; main()", *words[1:]]
    done = subprocess.run(
        ["/bin/bash", "-c", f'set -o pipefail; "$@" {tail}', "bash", *command],
        cwd=environment["HOME"],
        env=environment | more,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


def _quiet(said: str) -> bool:
    return not any(word in said for word in ("Traceback", "Exception ignored", "Error in"))


@pytest.mark.parametrize("words", [HELP[-1], *REAL], ids=" ".join)
@pytest.mark.parametrize("tail", [">/dev/full", ">/dev/full 2>&1", "| head -c 1", ">&- 2>&-"])
def test_an_output_that_is_full_or_closed_is_no_traceback(
    words: Words, tail: str, environment: dict[str, str]
) -> None:
    code, said = _run(words, environment, tail)

    assert _quiet(said), said
    assert code in range(5), said
    if tail == ">/dev/full" and "nothing" not in words[-1] and words[1] != "fake":
        assert code != 0
        assert "No space left on device" in said


@pytest.mark.parametrize("words", [HELP[-1], *REAL], ids=" ".join)
def test_a_terminal_that_knows_ascii_alone_is_written_to(words: Words, environment: dict[str, str]) -> None:
    ascii_alone = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

    code, said = _run(words, environment, **ascii_alone)

    assert _quiet(said), said
    assert code == _run(words, environment)[0]


@pytest.mark.parametrize("program", ["processor", "producers"])
@pytest.mark.parametrize(
    "at", ["processor.runtime.start", "click", "rich", "pydantic", "processor.settings", "boto3"]
)
def test_a_ctrl_c_while_modules_are_imported_ends_it_silently(program: str, at: str) -> None:
    """The signal comes as the import of a module begins: an import hook sends it."""
    hook = (
        "import os, signal, sys\n"
        # A shell lets what it starts in the background ignore the signal, tests included.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Hook:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {at!r}:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Hook())\n"
        f"from {program}.__main__ import main\n"
        "main()\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", hook, "--version"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.stderr == ""
    # Where a module is imported by none of the two, or later, the program ended by itself.
    assert done.returncode in (
        (-signal.SIGINT,) if at in ("processor.runtime.start", "click") else (-signal.SIGINT, 0)
    )


def test_a_ctrl_c_in_a_command_is_130_and_no_traceback(environment: dict[str, str]) -> None:
    hook = (
        "import os, signal, sys, click\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from processor.cli import cli\n"
        "@cli.command()\n"
        "def wait():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    signal.pause()\n"
        "sys.argv[1:] = ['wait']\n"
        "from processor.__main__ import main\n"
        "main()\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", hook],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment,
    )

    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "")
