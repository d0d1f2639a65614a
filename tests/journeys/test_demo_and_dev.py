"""The two commands that a newcomer types: in a path with a space, and stopped at any moment."""

import contextlib
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import psycopg
import pytest

from processor.devstack.env_file import KEYS
from processor.devstack.servers.children import DirectoryLock

# `processor dev` wants the port that awslocal looks at, and there is one.
pytestmark = pytest.mark.xdist_group("port 4566")

ROOT = Path(__file__).resolve().parents[2]
_LONG = pytest.mark.long("test_the_demo_interrupted_leaves_no_process_and_no_file, at its last moment")
# What a developer's shell may hold, and what must not lead us to other servers.
FOREIGN = {
    "DATABASE_URL": "postgresql://nobody@192.0.2.1/production",
    "AWS_ENDPOINT_URL_SQS": "http://192.0.2.1",
    "AWS_PROFILE": "production",
    "PGPORT": "1",
}


def wait_until(condition: Callable[[], bool], of: subprocess.Popen[str], wait_s: float = 60) -> None:
    """Wait for the condition, unless the command that should bring it about ends first."""
    deadline = time.monotonic() + wait_s
    while not condition():
        assert of.poll() is None, f"the command ended early, with exit code {of.poll()}"
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@contextlib.contextmanager
def a_command(directory: Path, *words: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Start a command of ours as a terminal would, its output going to `<directory>/output`."""
    with (directory / "output").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "processor", *words],
            cwd=directory,
            env=os.environ | FOREIGN | {"PYTHONPATH": str(ROOT)} | environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(60)


def output(directory: Path) -> str:
    return (directory / "output").read_text()


def processes_in(directory: Path) -> list[str]:
    """Name the processes that work below the directory; on Linux alone, elsewhere none are found."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink().is_relative_to(directory):
                found.append((process / "cmdline").read_text().replace("\0", " "))
    return found


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "a path with a space"
    directory.mkdir()
    return directory


def test_the_demo_ends_by_itself_and_its_books_balance(directory: Path) -> None:
    temporary = directory / "tmp"
    temporary.mkdir()

    with a_command(directory, "demo", "--events", "300", TMPDIR=str(temporary)) as demo:
        assert demo.wait(60) == 0, output(directory)

    said = output(directory)
    assert "the audit holds" in said
    assert "0 lost, 0 twice, 0 changed" in said
    assert "Its sums are those of the tables, to the last digit" in said
    assert "schema_violation" in said
    assert "stored" in said
    assert list(temporary.iterdir()) == []
    assert processes_in(temporary) == []


@pytest.mark.parametrize(
    ("moment", "number", "exit_code"),
    [
        pytest.param("Starting PostgreSQL", signal.SIGINT, 130, marks=_LONG),
        pytest.param("migrated and seeded", signal.SIGTERM, 143, marks=_LONG),
        ("Producers send", signal.SIGINT, 130),
    ],
)
def test_the_demo_interrupted_leaves_no_process_and_no_file(
    directory: Path, moment: str, number: signal.Signals, exit_code: int
) -> None:
    temporary = directory / "tmp"
    temporary.mkdir()

    with a_command(directory, "demo", "--events", "100000", TMPDIR=str(temporary)) as demo:
        wait_until(lambda: moment in output(directory), demo)
        # A terminal signals the whole group, and an impatient user does it again.
        os.killpg(demo.pid, number)
        os.killpg(demo.pid, number)
        assert demo.wait(60) == exit_code, output(directory)

    assert list(temporary.iterdir()) == []
    assert processes_in(temporary) == []


def settings_of(path: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in path.read_text().splitlines())


def reasons(settings: dict[str, str]) -> list[str]:
    with psycopg.connect(settings["DATABASE_URL"]) as connection:
        return [row[0] for row in connection.execute("SELECT reason FROM rejection").fetchall()]


def send(settings: dict[str, str], body: str) -> None:
    client = boto3.client(
        "sqs",
        endpoint_url=settings["AWS_ENDPOINT_URL"],
        region_name=settings["AWS_REGION"],
        aws_access_key_id=settings["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=settings["AWS_SECRET_ACCESS_KEY"],
    )
    client.send_message(QueueUrl=settings["SQS_QUEUE_URL"], MessageBody=body)
    client.close()


@pytest.mark.long("test_dev_starts_a_killed_processor_again_and_ends_when_a_server_dies")
def test_dev_keeps_rows_through_ctrl_c_and_kill_9_until_it_starts_afresh(directory: Path) -> None:
    env = directory / "my env"

    with a_command(directory, "dev", "--env-file", str(env)) as dev:
        wait_until(env.exists, dev)
        settings = settings_of(env)
        assert tuple(settings) == KEYS
        assert stat.S_IMODE(env.stat().st_mode) == 0o600
        send(settings, "Hello World")
        wait_until(lambda: reasons(settings) == ["not_json"], dev)
        with a_command(directory, "dev") as second:
            assert second.wait(30) == 2
            assert "another `processor dev` runs" in output(directory)
        os.killpg(dev.pid, signal.SIGINT)
        assert dev.wait(60) == 0
    assert not env.exists()
    assert processes_in(directory / ".processor") == []

    with a_command(directory, "dev", "--env-file", str(env)) as dev:
        wait_until(env.exists, dev)
        # The addresses stay, so what was copied and pasted yesterday works today.
        assert settings_of(env)["DATABASE_URL"] == settings["DATABASE_URL"]
        assert reasons(settings) == ["not_json"]
        dev.kill()
        dev.wait()
    env.unlink()

    with a_command(directory, "dev", "--env-file", str(env)) as dev:
        wait_until(env.exists, dev)
        assert reasons(settings_of(env)) == ["not_json"]

    with a_command(directory, "dev", "--fresh", "--env-file", str(env)) as dev:
        wait_until(env.exists, dev)
        assert reasons(settings_of(env)) == []


def test_dev_starts_a_killed_processor_again_and_ends_when_a_server_dies(directory: Path) -> None:
    env = directory / "env"

    with a_command(directory, "dev", "--env-file", str(env)) as dev:
        wait_until(env.exists, dev)
        settings = settings_of(env)
        kill_process(directory, "processor run")
        wait_until(lambda: "has been started again" in output(directory), dev)
        wait_until(lambda: an_event_arrives(settings), dev)

        kill_process(directory, "ministack")

        assert dev.wait(60) == 1
    assert "SQS has died" in output(directory)
    lock = DirectoryLock(directory / ".processor" / "postgres" / "lock")
    assert lock.acquire(5)
    lock.release()


def an_event_arrives(settings: dict[str, str]) -> bool:
    """Send one and look. The first may go to the killed processor's last poll, and return in a minute."""
    send(settings, "Hello World")
    return "not_json" in reasons(settings)


def kill_process(directory: Path, words: str) -> None:
    """Send SIGKILL to the one process of the stack in this directory whose command line has these words."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_text().replace("\0", " ")
            if words in command and (process / "cwd").readlink().is_relative_to(directory):
                os.kill(int(process.name), signal.SIGKILL)
                return
    pytest.skip("finding the processes of a stack needs /proc")
