"""Signals in training: noted once, only in the main thread, agreed among processes, and handlers restored."""

import signal
import threading

import pytest

from ddpm_eval.runtime import ALONE
from ddpm_eval.training.interruption import NOTED, Interruption, end


class TwoProcesses:
    """A runtime of two processes, of which the other has received a signal, or None."""

    def __init__(self, other):
        self.other, self.asked = other, 0

    def any_process(self, value):
        self.asked += 1
        return value or (self.other is not None if self.asked == 1 else self.other == signal.SIGINT)


@pytest.mark.parametrize("number", NOTED)
def test_the_first_signal_is_noted_and_the_handlers_are_the_previous_ones_from_then_on(number):
    before = [signal.getsignal(each) for each in NOTED]
    with Interruption() as interruption:
        assert [signal.getsignal(each) for each in NOTED] != before
        assert interruption.received is None and interruption.agreed(ALONE) is None
        signal.raise_signal(number)
        assert interruption.received == interruption.agreed(ALONE) == number
        assert [signal.getsignal(each) for each in NOTED] == before
    assert [signal.getsignal(each) for each in NOTED] == before


def test_the_second_signal_acts_at_once():
    with pytest.raises(KeyboardInterrupt), Interruption():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


def test_handlers_are_restored_after_an_error():
    before = [signal.getsignal(each) for each in NOTED]
    with pytest.raises(ZeroDivisionError), Interruption():
        1 / 0  # noqa: B018
    assert [signal.getsignal(each) for each in NOTED] == before


def test_a_signal_that_the_process_ignores_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            signal.raise_signal(signal.SIGINT)
            assert interruption.received is None
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_than_the_main_one_installs_nothing():
    before = [signal.getsignal(each) for each in NOTED]
    found = []

    def work():
        with Interruption():
            found.extend(signal.getsignal(each) for each in NOTED)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == before


@pytest.mark.parametrize("other", [None, *NOTED])
@pytest.mark.parametrize("own", [None, *NOTED])
def test_processes_agree_and_an_interrupt_comes_before_a_termination(own, other):
    interruption = Interruption()
    interruption.received = own
    received = {own, other} - {None}
    expected = None if not received else signal.SIGINT if signal.SIGINT in received else signal.SIGTERM
    assert interruption.agreed(TwoProcesses(other)) == expected


def test_the_end_is_that_of_the_signal():
    with pytest.raises(KeyboardInterrupt):
        end(signal.SIGINT)
    with pytest.raises(SystemExit) as caught:
        end(signal.SIGTERM)
    assert caught.value.code == 143
