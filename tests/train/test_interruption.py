import os
import signal

import pytest

from train.errors import Interrupted
from train.interruption import caught


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_outside_of_training_a_signal_ends_the_work_at_once(number: signal.Signals) -> None:
    with pytest.raises(Interrupted, match=number.name), caught():
        os.kill(os.getpid(), number)


def test_in_training_a_signal_is_noted_and_a_second_interrupt_does_not_wait() -> None:
    with pytest.raises(Interrupted, match="SIGINT again"), caught() as stop, stop.noted():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested == "SIGTERM"
        os.kill(os.getpid(), signal.SIGINT)


def test_afterwards_the_handlers_are_as_before() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with caught():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_stop_that_a_destructor_swallowed_is_acted_on_at_the_next_part() -> None:
    class Careless:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            sum(range(1000))  # where the handler runs

    with pytest.raises(Interrupted, match="SIGTERM: stopped"), caught() as stop:
        careless = Careless()
        del careless
        with stop.noted():
            pytest.fail("training began")
