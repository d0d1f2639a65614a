"""The local servers keep what they were given, whatever happens to them, and leave nothing behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from processor.devstack.servers import binaries
from processor.devstack.servers.children import DevstackError, DirectoryLock, free_port, port_is_free
from processor.devstack.servers.postgres import EmbeddedPostgres
from processor.devstack.servers.sqs import EmbeddedSqs

IS_ROOT = os.geteuid() == 0
PARENT = """
import sys, time
from pathlib import Path
from processor.devstack.servers.postgres import EmbeddedPostgres
from processor.devstack.servers.sqs import EmbeddedSqs

postgres = EmbeddedPostgres(Path(sys.argv[1], "p"), fsync=False)
sqs = EmbeddedSqs(Path(sys.argv[1], "s"))
postgres.start()
sqs.start()
print(postgres.pid, sqs.pid, flush=True)
time.sleep(600)
"""


def a_server(directory: Path, port: int | None = None) -> EmbeddedPostgres:
    return EmbeddedPostgres(directory, port=port, fsync=False)


def put_a_row(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.url()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS figure")


def rows(server: EmbeddedPostgres) -> list[tuple[int]]:
    with psycopg.connect(server.url()) as connection:
        return connection.execute("SELECT figure FROM kept").fetchall()


def wait_until(condition: Callable[[], bool], wait_s: float = 20) -> None:
    deadline = time.monotonic() + wait_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_rows_survive_a_restart_in_a_path_with_a_space(tmp_path: Path) -> None:
    directory = tmp_path / "a path with a space" / "postgres"
    with a_server(directory) as server:
        put_a_row(server)

    with a_server(directory) as server:
        assert rows(server) == [(42,)]


def test_rows_survive_kill_9_of_the_server(tmp_path: Path) -> None:
    with a_server(tmp_path) as server:
        put_a_row(server)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: server.exit_code() is not None)

        server.start()

        assert rows(server) == [(42,)]


def test_a_half_finished_initdb_is_begun_again(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "PG_VERSION").write_text("18\n")
    (data / "base").mkdir()

    with a_server(tmp_path) as server:
        put_a_row(server)

        assert rows(server) == [(42,)]


def test_a_stale_pid_file_that_names_a_stranger_does_not_stop_the_start(tmp_path: Path) -> None:
    with a_server(tmp_path) as server:
        put_a_row(server)
    (tmp_path / "data" / "postmaster.pid").write_text(f"{os.getppid()}\n{tmp_path}/data\n1\n5432\n\n\n\n")

    with a_server(tmp_path) as server:
        assert rows(server) == [(42,)]


def test_another_server_on_the_wanted_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        with pytest.raises(DevstackError, match=f"another program listens on 127.0.0.1:{port}"):
            a_server(tmp_path / "postgres", port=port).start()
        with pytest.raises(DevstackError, match=f"another program listens on 127.0.0.1:{port}"):
            EmbeddedSqs(None, port=port).start()


def test_data_of_another_major_version_is_left_alone(tmp_path: Path) -> None:
    with a_server(tmp_path):
        pass
    (tmp_path / "data" / "PG_VERSION").write_text("14\n")

    with pytest.raises(DevstackError, match="was made by PostgreSQL 14"):
        a_server(tmp_path).start()
    assert (tmp_path / "data" / "base").is_dir()


def test_a_directory_in_use_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("processor.devstack.servers.postgres.LOCK_S", 0.1)
    with a_server(tmp_path) as server:
        put_a_row(server)

        with pytest.raises(DevstackError, match=r"another process .* works on"):
            a_server(tmp_path).start()
        assert rows(server) == [(42,)]


def test_the_server_listens_on_the_loopback_only_and_on_no_unix_socket(tmp_path: Path) -> None:
    with a_server(tmp_path) as server, psycopg.connect(server.url()) as connection:
        row = connection.execute(
            "SELECT current_setting('listen_addresses'), current_setting('unix_socket_directories')"
        ).fetchone()

    assert row == ("127.0.0.1", "")


@pytest.mark.skipif(not IS_ROOT, reason="only root has to hand over to nobody")
def test_root_gets_a_server_below_a_closed_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project under /root, with its virtual environment and its data out of the reach of `nobody`."""
    cache = tmp_path / "cache"
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    for above in (tmp_path, *tmp_path.parents):
        if str(above).startswith("/tmp/pytest"):  # noqa: S108 - pytest closes its own directory
            above.chmod(0o755)
    monkeypatch.setattr(binaries, "CACHE", cache)
    monkeypatch.setattr(binaries, "can_run", lambda program, _: program.is_relative_to(cache))

    with a_server(closed / "postgres") as server:
        put_a_row(server)
        server.stop()
        server.start()

        assert rows(server) == [(42,)]
        assert server.psql.is_relative_to(cache)
        assert subprocess.run([server.psql, "--version"], check=True, capture_output=True).returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere leftovers are found at the next start")
def test_the_servers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            PARENT,
            str(tmp_path),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert all(is_alive(pid) for pid in pids)

    parent.kill()
    parent.communicate()

    wait_until(lambda: not any(is_alive(pid) for pid in pids))
    for name in ("p", "s"):
        lock = DirectoryLock(tmp_path / name / "lock")
        assert lock.acquire(5)
        lock.release()


def test_queued_messages_survive_a_restart_on_another_port(tmp_path: Path) -> None:
    with EmbeddedSqs(tmp_path) as server:
        url = server.create_queue("events", visibility_timeout_s=600)
        client = server.client()
        for number in range(3):
            client.send_message(QueueUrl=url, MessageBody=f"event {number}")
        held = client.receive_message(QueueUrl=url, MaxNumberOfMessages=1)["Messages"]
        client.close()

    with EmbeddedSqs(tmp_path, port=free_port()) as server:
        url = server.create_queue("events", visibility_timeout_s=1)
        client = server.client()
        waiting = client.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
        # The one in flight still is: its handle works, and so it can be given back.
        client.change_message_visibility(
            QueueUrl=url, ReceiptHandle=held[0]["ReceiptHandle"], VisibilityTimeout=0
        )
        again = client.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, MessageSystemAttributeNames=["ApproximateReceiveCount"]
        )["Messages"]
        client.close()

    assert len(waiting) == 2
    assert [(message["Body"], message["Attributes"]["ApproximateReceiveCount"]) for message in again] == [
        (held[0]["Body"], "2")
    ]


def test_a_message_received_too_often_goes_to_the_dead_letter_queue(sqs_server: EmbeddedSqs) -> None:
    url = sqs_server.create_queue("often", visibility_timeout_s=0, max_receive_count=2)
    client = sqs_server.client()
    client.send_message(QueueUrl=url, MessageBody="poison")

    receives = [client.receive_message(QueueUrl=url).get("Messages", []) for _ in range(3)]

    assert [len(messages) for messages in receives] == [1, 1, 0]
    dead = client.receive_message(QueueUrl=sqs_server.queue_url("often-dlq"))["Messages"]
    assert [message["Body"] for message in dead] == ["poison"]
    client.close()


@pytest.mark.visibility(7)
def test_the_fixture_gives_an_empty_queue_with_the_marked_visibility(
    sqs_server: EmbeddedSqs, queue_url: str
) -> None:
    client = sqs_server.client()

    attributes = client.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["All"])["Attributes"]

    assert attributes["VisibilityTimeout"] == "7"
    assert attributes["ApproximateNumberOfMessages"] == "0"
    client.close()


def test_the_fixture_gives_a_superuser_on_a_real_server(server_url: str) -> None:
    with psycopg.connect(server_url) as connection:
        assert connection.execute("SELECT current_setting('is_superuser')").fetchone() == ("on",)


def test_a_stopped_server_gives_its_port_back(tmp_path: Path) -> None:
    with EmbeddedSqs(tmp_path) as server:
        assert not port_is_free(server.port)

    assert port_is_free(server.port)


def test_a_server_listens_elsewhere_where_its_port_was_only_a_wish() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with EmbeddedSqs(None, port=port, only_there=False) as server:
            answer = server.client().list_queues()

    assert server.port != port
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
