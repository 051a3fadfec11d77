"""What a signal does to a run: it is noted, or ends at once what can be left at any moment."""

import os
import signal

import pytest

from protenix_eba.core.signals import StopSignals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_ends_at_once_only_what_can_be_left(number):
    with StopSignals() as signals:
        os.kill(os.getpid(), number)
        assert signals.received and signals.terminated == (number == signal.SIGTERM)
    with StopSignals() as signals, pytest.raises(KeyboardInterrupt), signals.at_once():
        os.kill(os.getpid(), number)
        pytest.fail("the signal was only noted")
    assert signals.received


def test_what_comes_after_a_signal_is_not_begun():
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), signals.at_once():
            pytest.fail("it was begun")
