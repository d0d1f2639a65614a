"""One signal interrupts; the ones after it leave the cleaning up alone."""

import contextlib
import os
import signal

import pytest

from processor.devstack.interrupts import Interrupted, interrupts


def test_the_first_signal_raises_with_the_exit_code_of_a_shell() -> None:
    with interrupts(), pytest.raises(Interrupted) as caught:
        os.kill(os.getpid(), signal.SIGTERM)

    assert caught.value.exit_code == 143


def test_the_second_signal_does_not_cut_off_the_cleaning_up() -> None:
    cleaned = False

    with interrupts():
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except Interrupted:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            cleaned = True

    assert cleaned


def test_a_signal_whose_exception_was_swallowed_is_obeyed_the_next_time_round() -> None:
    with interrupts() as signals:
        with contextlib.suppress(Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted) as caught:
            signals.obey()

    assert caught.value.exit_code == 143


def test_the_handlers_of_before_come_back() -> None:
    before = signal.getsignal(signal.SIGINT)

    with interrupts():
        pass

    assert signal.getsignal(signal.SIGINT) is before
