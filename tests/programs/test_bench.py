"""The load tests tell the truth or nothing: a figure after its audit only, one line where they can't run."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.bench import contestants, ground
from tests.bench.contestants import OURS, Contestant, boto3_loop, sqs_consumer
from tests.bench.faults import AuditFailed, LoadError
from tests.bench.figures import measures
from tests.bench.figures.latency import latency, percentile
from tests.bench.figures.rounds import Figures, drain, running
from tests.bench.ground import Ground, open_ground
from tests.bench.queue.node import Node, NodeMissing
from tests.bench.queue.queues import QueueServer
from tests.bench.queue.sender import Timetable
from tests.bench.race import Entry, Race, race
from tests.bench.usage import ALL_TOTALS, BEGUN, HOT_TOTAL, NO_METER, Usage, totals
from tests.bench.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60


@pytest.fixture(scope="module")
def here() -> Iterator[Ground]:
    with open_ground("own") as opened:
        yield opened


def a_contestant(*command: str) -> Contestant:
    return Contestant("somebody", (sys.executable, *command))


def a_figure(rate_per_s: float) -> Figures:
    return Figures(messages=1, rate_per_s=rate_per_s, client_cpu_s=0)


def an_entry(name: str, order: list[str]) -> Entry:
    def run(_: Ground, messages: int) -> Figures:
        order.append(name)
        return a_figure(messages)

    return Entry(name, run)


# ── figures ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_counts_its_messages_calls_and_commits(here: Ground) -> None:
    figures = drain(here, boto3_loop(), 200, warm_up=20)

    assert figures.messages == 200
    assert figures.rate_per_s > 1
    assert figures.client_cpu_s > 0
    # Twenty receives and twenty deletes of ten, and the receive that was waiting or waits again.
    assert figures.sqs_calls in {200.0, 205.0}
    assert figures.transactions == 100
    assert figures.deadlocks == 0


def test_who_deletes_without_storing_gets_no_figure(here: Ground) -> None:
    thief = a_contestant("-m", "tests.bench.contestants.queue_limit")

    with pytest.raises(AuditFailed, match=r"expected 110 messages and an empty queue, found {}"):
        drain(here, thief, 100, warm_up=10)


def test_who_dies_is_quoted(here: Ground) -> None:
    mortal = a_contestant("-c", "raise SystemExit('I can not go on')")

    with pytest.raises(LoadError, match=r"(?s)somebody ended with 1 and 10 messages left.*I can not go on"):
        drain(here, mortal, 100, warm_up=10)


def test_a_latency_is_counted_from_the_timetable_to_the_commit(here: Ground) -> None:
    found = latency(here, boto3_loop(), rate_per_s=100, seconds=1, warm_up=20)

    assert found.messages == 100
    assert 0 < found.flush_ms < PATIENCE_S * 1000
    assert 0 < found.p50_ms <= found.p99_ms <= found.max_ms < PATIENCE_S * 1000


def test_who_does_not_want_to_stop_is_stopped_with_its_children(here: Ground) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    parent = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {deaf!r}], start_new_session=True)"
    )
    with here.arena("deaf") as arena, running(here, a_contestant("-c", parent), arena) as child:
        wait_until(lambda: len(measures.tree(child.pid)) == 2, PATIENCE_S, "the child's child")
        members = measures.tree(child.pid)

    wait_until(lambda: not any(_is_alive(pid) for pid in members), PATIENCE_S, "both to be gone")


def test_a_runs_database_and_queue_are_gone_after_it(here: Ground) -> None:
    with here.arena("passing") as arena:
        pass

    with pytest.raises(psycopg.OperationalError, match=r"does not exist"):
        psycopg.connect(arena.database_url)
    with pytest.raises(LoadError, match=r"The specified queue does not exist"):
        here.queue.depth(arena.queue_url)


def test_everybody_is_first_once_and_reported_in_order(here: Ground) -> None:
    order: list[str] = []
    entries = [an_entry(name, order) for name in "abc"]

    result = race(here, [*entries, Entry("d", entries[0].run, missing="ill")], 3, 1_000, print)

    assert "".join(order) == "abcbcacab"
    assert [list(shown) for shown in result.rounds] == [["a", "b", "c"]] * 3
    assert result.missing == {"d": "ill"}


def test_a_ratio_is_taken_within_each_round() -> None:
    rounds = [{OURS: a_figure(ours), "peer": a_figure(peer)} for ours, peer in ((10, 5), (100, 20), (50, 20))]

    assert Race(rounds).of_ours("peer") == 0.4


def test_the_cpu_of_children_counts_while_they_live_and_after() -> None:
    busy = "import time\nwhile time.process_time() < 0.3: pass\n"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}]); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE) as process:
        wait_until(lambda: measures.cpu_s(process.pid) >= 0.3, PATIENCE_S, "the child to be busy")
        wait_until(lambda: measures.tree(process.pid) == [process.pid], PATIENCE_S, "the child to end")
        after = measures.cpu_s(process.pid)
        process.communicate()

    assert 0.3 <= after < 2


def test_what_a_meter_leaves_of_the_speed_is_a_ratio_of_the_same_pulses() -> None:
    rounds = [
        {BEGUN: a_figure(metered), NO_METER[ALL_TOTALS]: a_figure(plain)}
        for metered, plain in ((90, 100), (10, 20), (99, 100))
    ]

    assert Usage(Race(rounds)).kept(BEGUN) == 0.9


@pytest.mark.long("test_a_run_counts_its_messages_calls_and_commits")
def test_four_processes_count_each_pulse_and_lock_no_more_than_they_raise(here: Ground) -> None:
    wide = totals(here, ALL_TOTALS, 300)
    hot = totals(here, HOT_TOTAL, 300)

    # A slot of the total for each of the processes, and one for small batches.
    assert 1 <= hot.rows <= 5
    assert hot.locked_per_commit == 1
    assert 1 < wide.locked_per_commit <= wide.messages_per_commit
    assert wide.rows > 2_000
    assert wide.deadlocks == hot.deadlocks == 0
    assert wide.table_bytes > hot.table_bytes > 0


@pytest.mark.parametrize(
    ("percent", "expected"), [(50, 50.0), (99, 99.0), (100, 100.0), (1, 1.0), (0.1, 1.0)]
)
def test_a_percentile_is_a_value_that_was_measured(percent: float, expected: float) -> None:
    assert percentile([float(value) for value in range(1, 101)], percent) == expected


@pytest.mark.parametrize(
    ("rate", "per_tick", "last_due_s"), [(500, 1, 0.998), (1_000, 1, 0.999), (2_000, 2, 0.999)]
)
def test_a_timetable_spreads_a_second_evenly(rate: int, per_tick: int, last_due_s: float) -> None:
    timetable = Timetable.of(rate, began_at=100.0)

    assert timetable.per_tick == per_tick
    assert timetable.due_at(0) == 100.0
    assert timetable.due_at(rate - 1) == pytest.approx(100 + last_due_s)


# ── where they can't run ──────────────────────────────────────────────────────────────────────────────


def load(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.bench", *words],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )


@pytest.mark.parametrize("words", [["drain", "--rounds", "0"], ["drain", "--queue", "kafka"], ["fly"]])
def test_a_wrong_option_is_a_mistake_of_use(words: list[str]) -> None:
    done = load(*words)

    assert done.returncode == 2
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_busy_port_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        done = load("idle", "--port", str(port))

    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert f"another program listens on 127.0.0.1:{port}" in line


def test_a_full_disk_is_said_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ground, "FREE_BYTES_MIN", shutil.disk_usage(ROOT).total * 2)

    with pytest.raises(LoadError, match=r"GiB are free in .*; expected .*; make room"), open_ground("own"):
        pass


def test_what_a_killed_command_left_on_the_disk_is_cleared_away(here: Ground) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    left = ground.TOOLS / f"run-{ended.pid}-left" / "postgres"
    left.mkdir(parents=True)

    done = load("idle", "--seconds", "1")

    assert done.returncode == 0
    assert not left.parent.exists()
    assert here.folder.exists()


def test_a_queue_server_that_does_not_start_is_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no, thank you')"]
    monkeypatch.setattr(QueueServer, "_command", lambda _: (command, {}))

    with (
        pytest.raises(LoadError, match=r"(?s)did not start; its log ends with:.*no, thank you"),
        QueueServer("own", tmp_path, tmp_path),
    ):
        pass


def test_without_node_its_contestants_are_missing_and_say_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", str(tmp_path))

    contestant = sqs_consumer(4, tmp_path)

    assert contestant.missing == "no Node; try: pip install '.[load]', or put node and npm on the PATH"


def test_what_npm_says_is_quoted_in_one_line(tmp_path: Path) -> None:
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho first >&2\necho 'no such package' >&2\nexit 1\n")
    npm.chmod(0o755)

    with pytest.raises(NodeMissing, match=r"^npm could not install a@1, it said: no such package$"):
        Node(npm, (npm,)).installed(tmp_path / "folder", ("a@1",))

    assert not (tmp_path / "folder" / "installed").exists()


def test_a_peer_that_is_not_asked_for_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contestants, "find_node", lambda: pytest.fail("nobody asked for Node"))

    assert next(iter(contestants.roster(tmp_path))) == contestants.OURS


@pytest.mark.long("test_who_does_not_want_to_stop_is_stopped_with_its_children")
def test_ctrl_c_leaves_nothing_running() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.bench", "idle", "--seconds", "600"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        try:
            wait_until(lambda: _runs(command.pid, b"processor\0run"), PATIENCE_S, "the processor to run")
            members = set(measures.tree(command.pid))

            command.send_signal(signal.SIGINT)
            _, said = command.communicate(timeout=PATIENCE_S)
        finally:
            command.kill()

    assert command.returncode == 128 + signal.SIGINT
    assert said.strip() == "stopped; nothing is left running"
    assert len(members) > 3
    wait_until(lambda: not any(_is_alive(pid) for pid in members), PATIENCE_S, "all to be gone")


def _is_alive(pid: int) -> bool:
    """Say whether the process is there and has not ended; an orphan's zombie is its new parent's business."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _runs(pid: int, words: bytes) -> bool:
    for member in measures.tree(pid):
        try:
            if words in Path(f"/proc/{member}/cmdline").read_bytes():
                return True
        except OSError:
            continue
    return False
