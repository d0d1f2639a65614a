"""`processor dev` in a directory of its own, as the documents start it."""

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.rig import wait_until

ROOT = Path(__file__).resolve().parents[2]


def environment() -> dict[str, str]:
    """What a shell in a checkout has, and the code of this one."""
    return os.environ | {"PYTHONPATH": str(ROOT)}


@contextlib.contextmanager
def running(directory: Path, command: str = ".venv/bin/processor dev --env-file dev.env") -> Iterator[None]:
    """Run it in `directory`, from when its settings are there until the block ends; it must end well."""
    venv = directory / ".venv"
    if not venv.exists():
        venv.symlink_to(sys.prefix)
    with (directory / "dev.out").open("w") as output:
        dev = subprocess.Popen(
            # So that the signal at the end finds it, and no shell.
            ["bash", "-c", re.sub(r"(?m)^(\S*processor dev)", r"exec \1", command)],
            cwd=directory,
            env=environment(),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_until(lambda: (directory / "dev.env").exists() or dev.poll() is not None, "dev is up", wait_s=90)
        assert dev.poll() is None, (directory / "dev.out").read_text()
        yield
    finally:
        dev.send_signal(signal.SIGINT)
        code = dev.wait(60)
    assert code == 0


def on_a_screen(script: str, directory: Path) -> tuple[int, str]:
    """Run it in a terminal of 80 columns; gives its exit code and what stands on the screen."""
    shell = environment() | {
        "PATH": f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}",
        "COLUMNS": "80",
        "TERM": "dumb",
    }
    ours, its = pty.openpty()
    with subprocess.Popen(
        ["bash", "-c", script],
        cwd=directory,
        env=shell,
        stdin=subprocess.DEVNULL,
        stdout=its,
        stderr=its,
    ) as running:
        os.close(its)
        shown = b""
        # Linux says by an error that nobody has the other end any more.
        with contextlib.suppress(OSError):
            while part := os.read(ours, 4096):
                shown += part
        os.close(ours)
    lines = shown.decode().replace("\r\n", "\n").split("\n")
    return running.returncode, "\n".join(line.rstrip() for line in lines)
