"""When a worker hangs, and whose fault that is: seen from outside, by clocks that are given."""

from processor.errors import Reason
from processor.model import Delivery, Rejection, Verdict
from processor.runtime.hangs import CpuTimes, HangWatch
from processor.runtime.worker_board import WorkerStatus, WorkerStatuses
from processor.wire.formats import Claimed
from tests.builders import a_delivery


def _a_verdict(delivery: Delivery) -> Verdict:
    return Rejection(delivery, 1, Reason.NOT_JSON, {}, Claimed())


class Machine:
    """A worker's row, and the clocks by which it is looked at."""

    def __init__(self) -> None:
        self.row: WorkerStatus = WorkerStatuses().rows[0]
        self.now = 100.0
        self.times: dict[int, CpuTimes] = {}
        self.watch = HangWatch(
            self.row,
            1,
            limit_s=10,
            clock=lambda: self.now,
            times=lambda _, thread: self.of(thread),
            threads=lambda _: list(self.times),
        )

    def of(self, thread_id: int) -> CpuTimes:
        return self.times.get(thread_id, CpuTimes())

    def judge(self, slot: int, delivery_id: str, number: int = 1) -> None:
        """Stand at a delivery, as thread 10 + slot."""
        self.row._slots_taken = slot
        self.row.watched(_a_verdict)(a_delivery(delivery_id=delivery_id))
        # As it stood while the delivery was judged.
        at = self.row._word_of(slot)
        self.row._words[at] = 10 + slot
        self.row._words[at + 1] = number

    def beat(self) -> None:
        self.row.beat()

    def after(self, seconds: float, **times: tuple[float, float]) -> list[str] | None:
        self.now += seconds
        for name, (run_s, wait_s) in times.items():
            self.times[int(name.removeprefix("of_"))] = CpuTimes(run_s, wait_s)
        return self.watch.look()


def test_one_that_judges_a_delivery_for_longer_than_the_limit_hangs_at_it() -> None:
    machine = Machine()
    machine.judge(3, "slow")

    assert machine.after(0) is None
    assert machine.after(10) is None
    assert machine.after(0.1) == ["slow"]


def test_one_that_goes_on_to_the_next_delivery_does_not_hang() -> None:
    machine = Machine()
    for number in range(1, 9):
        machine.judge(0, f"delivery-{number}", number)
        assert machine.after(9) is None


def test_one_that_judges_nothing_does_not_hang_while_it_beats() -> None:
    machine = Machine()
    for _ in range(5):
        machine.beat()
        assert machine.after(9) is None


def test_one_that_has_not_begun_to_beat_is_waited_for() -> None:
    machine = Machine()

    assert machine.after(0) is None
    assert machine.after(1000) is None


def test_one_that_beats_no_more_hangs_and_nobody_is_to_blame() -> None:
    machine = Machine()
    machine.beat()

    assert machine.after(0) is None
    assert machine.after(10.1) == []


def test_time_without_a_cpu_does_not_count() -> None:
    machine = Machine()
    machine.judge(0, "starved")

    assert machine.after(0, of_10=(5, 100)) is None
    assert machine.after(30, of_10=(6, 125)) is None, "it has had five seconds"
    assert machine.after(6, of_10=(12, 125)) == ["starved"]


def test_time_in_which_nobody_looked_does_not_count() -> None:
    machine = Machine()
    machine.judge(0, "stopped")
    machine.after(0)

    machine.watch.begin_anew()

    assert machine.after(1000) is None
    assert machine.after(9) is None
    assert machine.after(2) == ["stopped"]


def test_where_the_interpreter_is_held_only_who_runs_is_at_fault() -> None:
    """The others wait for it, in the middle of a delivery that is as good as any."""
    machine = Machine()
    machine.beat()
    machine.judge(0, "innocent")
    machine.judge(1, "guilty")

    assert machine.after(0) is None
    assert machine.after(10.1, of_10=(0.1, 0), of_11=(10, 0)) == ["guilty"]


def test_an_interpreter_that_is_held_by_a_thread_without_a_cpu_is_not_held_for_so_long() -> None:
    """The thread that beats waits for the interpreter meanwhile, and not for a CPU."""
    machine = Machine()
    machine.beat()
    machine.judge(0, "starved")

    assert machine.after(0, of_10=(0, 0), of_9=(0, 0)) is None
    assert machine.after(4, of_10=(4, 0)) is None
    assert machine.after(30, of_10=(6, 28)) is None, "it has had six seconds"
    assert machine.after(5, of_10=(11, 28)) == ["starved"]


def test_where_nobody_tells_who_runs_all_may_be_at_fault() -> None:
    machine = Machine()
    machine.beat()
    machine.judge(0, "innocent")
    machine.judge(1, "guilty")
    machine.after(0)

    assert machine.after(10.1) == ["innocent", "guilty"]


def test_where_others_get_on_only_who_does_not_is_at_fault() -> None:
    machine = Machine()
    machine.judge(0, "sleeps")
    machine.after(0)
    machine.after(6)
    machine.judge(1, "late")
    machine.beat()
    machine.after(0)
    machine.beat()

    assert machine.after(4.1) == ["sleeps"]


def test_an_id_is_told_as_it_is_or_not_at_all() -> None:
    row = WorkerStatuses().rows[0]
    seen: list[str | None] = []

    def validate(delivery: Delivery) -> Verdict:
        seen.append(row.delivery_id(0))
        return _a_verdict(delivery)

    watched = row.watched(validate)
    for delivery_id in ("short", "ü" * 256, "x" * 2000, "short again"):
        watched(a_delivery(delivery_id=delivery_id))

    assert seen == ["short", "ü" * 256, None, "short again"]
    assert row.turns() == []
