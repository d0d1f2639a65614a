"""What a supervisor does with workers that end, hang or will not stop; as it forks, each has a process."""

import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable

import pytest

from processor.runtime.supervisor import alone

_FRAME = """
import os, signal, sys, threading, time
from processor.runtime import logs, supervisor
from processor.runtime.supervisor import Supervisor, Worker, die_of

logs.configure("console", "INFO")
supervisor._END_MARGIN_S = 0.3
gently, now = threading.Event(), threading.Event()


def stop(number, frame):
    (now if gently.is_set() else gently).set()


signal.signal(signal.SIGTERM, stop)


def say(*words):
    # In one piece, so that no other process gets between the words.
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())


def supervise(workers, work, judge_timeout_s=0.5, stop_timeout_s=600):
    made = Supervisor(
        workers, work, judge_timeout_s=judge_timeout_s, stop_timeout_s=stop_timeout_s,
        stop_gently=gently, stop_now=now,
    )
    code = made.run()
    say("code", code, "hung", *made.hung)
    if code < 0:
        die_of(-code)
    sys.exit(code)


def follow(worker):
    worker.follow(gently, now)


def judge(worker, delivery_id, work):
    class Delivery:
        pass
    Delivery.delivery_id = delivery_id
    worker.row.watched(lambda delivery: work())(Delivery)


def until(condition):
    while not condition():
        time.sleep(0.01)
"""


def run(body: str, told: Callable[[subprocess.Popen[str], str], None] | None = None) -> tuple[int, list[str]]:
    """Run the frame and a body; gives the exit code and what was said. `told` sees each line as it comes."""
    said = []
    program = _FRAME + textwrap.dedent(body)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        too_long = threading.Timer(30, process.kill)
        too_long.daemon = True
        too_long.start()
        for line in process.stdout:
            said.append(line.strip())
            if told is not None:
                told(process, said[-1])
        too_long.cancel()
    return process.returncode, said


def terminate_at(*words: str) -> Callable[[subprocess.Popen[str], str], None]:
    def told(process: subprocess.Popen[str], line: str) -> None:
        if line in words:
            process.terminate()

    return told


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("return 0", 0),
        ("return 4", 4),
        ("sys.exit(3)", 3),
        ("sys.exit()", 0),
        ("raise KeyError('a bug')", 1),
        ("os.kill(os.getpid(), signal.SIGKILL)", -9),
        ("os.abort()", -6),
    ],
)
def test_a_worker_alone_ends_the_run_as_it_ended(end: str, code: int) -> None:
    ended, said = run(f"def work(worker):\n    {end}\nsupervise(1, work)")

    assert (ended, said) == (code, [f"code {code} hung"])


def test_a_worker_of_several_that_falls_is_restarted_and_one_whose_settings_are_wrong_ends_all() -> None:
    code, said = run(
        """
        def work(worker):
            say("worker", worker.place)
            if worker.place == 0:
                return 1 if len(os.listdir(folder)) < 2 and open(f"{folder}/{os.getpid()}", "w") else 2
            until(gently.is_set)
            return 0

        import tempfile
        folder = tempfile.mkdtemp()
        supervise(2, work)
        """
    )

    assert code == 2
    assert sorted(said[:-1]) == ["worker 0"] * 3 + ["worker 1"]


@pytest.mark.parametrize("work", ["sum(range(10**13))", "until(lambda: False)", "time.sleep(600)"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_hangs_is_replaced_at_once_and_the_next_is_told_at_what(
    work: str, workers: int
) -> None:
    code, said = run(
        f"""
        def work(worker):
            follow(worker)
            if worker.place == 0 and not worker.hung:
                judge(worker, "fine", lambda: None)
                judge(worker, "stuck", lambda: {work})
            if worker.place == 0:
                say("told", *worker.hung)
                worker.row.say_noted()
            return 0

        supervise({workers}, work)
        """
    )

    assert (code, said) == (0, ["told stuck", "code 0 hung"])


@pytest.mark.parametrize("stopped", ["os.getpid()", "os.getppid()"])
def test_time_in_which_the_worker_or_its_supervisor_was_stopped_does_not_count(stopped: str) -> None:
    code, said = run(
        f"""
        def be_stopped():
            pid = {stopped}
            if not os.fork():
                # So that the supervisor has seen it before.
                time.sleep(0.3)
                os.kill(pid, signal.SIGSTOP)
                time.sleep(2.5)
                os.kill(pid, signal.SIGCONT)
                os._exit(0)
            os.wait()
            # So that the supervisor looks while it is at it.
            time.sleep(0.3)

        def work(worker):
            follow(worker)
            judge(worker, "stopped", be_stopped)
            return 0

        supervise(1, work, judge_timeout_s=1.5)
        """
    )

    assert (code, said) == (0, ["code 0 hung"])


def test_what_was_not_noted_is_told_again() -> None:
    code, said = run(
        """
        def work(worker):
            follow(worker)
            if not worker.hung:
                judge(worker, "first", lambda: time.sleep(600))
            say("told", *worker.hung)
            if len(worker.hung) == 1:
                judge(worker, "second", lambda: time.sleep(600))
            return 0

        supervise(1, work)
        """
    )

    assert (code, said[:2]) == (0, ["told first", "told second first"])
    assert said[2] == "code 0 hung second first", "whoever supervises notes it, since no worker did"


def test_a_worker_whose_interpreter_is_held_by_nothing_that_is_judged_is_replaced() -> None:
    code, said = run(
        """
        def work(worker):
            follow(worker)
            until(lambda: worker.row.beats)
            if not os.path.exists(f"{folder}/held"):
                open(f"{folder}/held", "w")
                sum(range(10**13))
            return 0

        import tempfile
        folder = tempfile.mkdtemp()
        supervise(1, work)
        """
    )

    assert (code, said) == (0, ["code 0 hung"])


def test_a_worker_that_waits_for_long_and_judges_nothing_is_left_alone() -> None:
    code, said = run(
        """
        def work(worker):
            follow(worker)
            judge(worker, "fine", lambda: None)
            time.sleep(2)
            return 0

        supervise(1, work)
        """
    )

    assert (code, said) == (0, ["code 0 hung"])


@pytest.mark.parametrize(("stop_timeout_s", "words"), [(0.3, ["deaf"]), (600, ["deaf", "told"])])
def test_a_worker_that_will_not_end_is_killed(stop_timeout_s: float, words: list[str]) -> None:
    code, _ = run(
        f"""
        def work(worker):
            signal.signal(signal.SIGTERM, lambda *_: say("told"))
            say("deaf")
            time.sleep(600)

        supervise(1, work, stop_timeout_s={stop_timeout_s})
        """,
        terminate_at(*words),
    )

    assert code == 4, "it has left work"


def test_a_worker_that_hangs_during_a_stop_is_killed_and_not_replaced() -> None:
    code, said = run(
        """
        def work(worker):
            follow(worker)
            say("begins")
            judge(worker, "stuck", lambda: sum(range(10**13)))

        supervise(1, work)
        """,
        terminate_at("begins"),
    )

    assert (code, said) == (4, ["begins", "code 4 hung stuck"])


def test_a_worker_that_ends_a_stop_with_work_left_says_so_for_all() -> None:
    code, _ = run(
        """
        def work(worker):
            until(lambda: gently.is_set())
            return 4 if worker.place else 0

        def begin():
            say("begins")

        threading.Timer(0.5, begin).start()
        supervise(2, work)
        """,
        terminate_at("begins"),
    )

    assert code == 4


def test_a_worker_is_told_of_the_second_stop_once_and_of_the_first_however_often_it_comes() -> None:
    """A whole group of processes may be told at once: then a worker hears of one stop twice."""
    code, said = run(
        """
        def work(worker):
            follow(worker)
            say("begins")
            until(gently.is_set)
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            say("gently" if not now.is_set() else "at once")
            until(now.is_set)
            return 0

        supervise(1, work)
        """,
        terminate_at("begins", "gently"),
    )

    assert (code, said) == (0, ["begins", "gently", "code 0 hung"])


def test_a_worker_dies_with_its_supervisor() -> None:
    program = _FRAME + textwrap.dedent(
        """
        def work(worker):
            say(os.getpid())
            time.sleep(600)

        supervise(1, work)
        """
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip().isdigit()

        process.kill()

        assert process.stdout.read() == "", "the pipe ends when the last that has it open has ended"


def test_workers_agree_on_being_idle() -> None:
    code, said = run(
        """
        def work(worker):
            row = worker.row
            if worker.place == 0:
                row.say_quiet(True)
                until(row.others_quiet)
                say("all quiet")
                return 0
            if worker.place == 1:
                row.say_quiet(True)
                row.say_quiet(False)
                say("busy", row.others_quiet())
                time.sleep(0.3)
                say("ends")
            return 0

        supervise(3, work)
        """
    )

    assert code == 0
    assert said.index("ends") < said.index("all quiet"), "one that has ended is quiet"


def test_a_process_that_nobody_supervises_follows_nobody_and_waits_for_nobody() -> None:
    worker = alone()

    assert worker.parent is None
    assert worker.row.others_quiet()
