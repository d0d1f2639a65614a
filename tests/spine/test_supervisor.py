"""How a supervisor ends its children when they don't: the journeys show all that they do by themselves."""

import signal
import subprocess
import sys
import threading

import pytest

from processor import supervisor
from processor.supervisor import _Child, _end

_DEAF = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
)


@pytest.mark.parametrize(("stop_timeout_s", "hurried"), [(0.3, False), (600, True)])
def test_a_child_that_will_not_end_is_killed(
    monkeypatch: pytest.MonkeyPatch, stop_timeout_s: float, hurried: bool
) -> None:
    monkeypatch.setattr(supervisor, "_END_MARGIN_S", 0.2)
    stop_now = threading.Event()
    if hurried:
        stop_now.set()
    with subprocess.Popen([sys.executable, "-c", _DEAF], stdout=subprocess.PIPE) as deaf:
        assert deaf.stdout is not None
        assert deaf.stdout.readline(), "it is deaf by now"
        ending = threading.Thread(
            target=_end, args=([_Child(0, deaf)], stop_now, stop_timeout_s), daemon=True
        )
        ending.start()
        ending.join(5)
        ended = not ending.is_alive()
        deaf.kill()

    assert ended
    assert deaf.returncode == -signal.SIGKILL


def test_a_process_that_nobody_supervises_follows_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROCESSOR_SUPERVISOR_PID", raising=False)
    stop = threading.Event()

    supervisor.follow(stop)

    assert not stop.wait(0.5)


def test_a_process_whose_supervisor_was_gone_before_it_began_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROCESSOR_SUPERVISOR_PID", "1")
    monkeypatch.setattr("os.getppid", lambda: 4711)
    stop = threading.Event()

    supervisor.follow(stop)

    assert stop.wait(5)
