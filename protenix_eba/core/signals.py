"""Interrupts of a run: leaving cleanly on Ctrl-C and SIGTERM."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["StopSignals", "Terminated", "signal_interrupts"]


class Terminated(KeyboardInterrupt):
    """SIGTERM came, from a queue or an operator, and is treated as Ctrl-C is."""


@contextmanager
def signal_interrupts(number: int = signal.SIGTERM) -> Iterator[None]:
    """Let a signal raise `Terminated` within the block, so that files are closed.

    Processes that are forked within it die of the signal as they would without.
    """
    owner = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        raise Terminated

    if threading.current_thread() is not threading.main_thread():  # which alone gets signals
        yield
        return
    before = signal.signal(number, end)
    try:
        yield
    finally:
        signal.signal(number, before)


class StopSignals:
    """Notes Ctrl-C and SIGTERM (a preempted job) within the block; a second one stops at once.

    What takes long and can be left at any moment does so at the first one: `at_once`.

    Attributes:
        received: Whether one came.
        terminated: Whether it was SIGTERM.
    """

    def __init__(self) -> None:
        self.received = self.terminated = False
        self._before: dict[int, Any] = {}
        self._at_once = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let a signal, also one that was noted, raise `KeyboardInterrupt` within the block."""
        self._at_once = True
        try:
            if self.received:
                raise KeyboardInterrupt
            yield
        finally:
            self._at_once = False

    def __enter__(self) -> StopSignals:
        """Take over the signals."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        self.terminated = number == signal.SIGTERM
        signal.signal(number, self._before[number])
        if self._at_once:
            raise KeyboardInterrupt
