"""Labels of a refresh in a process of their own, while training goes on."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

from protenix_eba.core.errors import UserError
from protenix_eba.core.signals import sigterm_interrupts

__all__ = ["Background"]

# So that OpenMM, torch and the interpreter's lock of the training process stay out of it.
_SPAWN: Final = multiprocessing.get_context("spawn")


class Background:
    """One piece of work at a time in another process.

    The process ends with this one, however that ends. What it prints goes to a log file.
    """

    def __init__(self) -> None:
        self._process: BaseProcess | None = None
        self._outcome: Connection | None = None
        self._log = Path()

    @property
    def busy(self) -> bool:
        """Return whether work was begun that nobody has waited for."""
        return self._process is not None

    def begin(self, work: Callable[[], object], log: Path) -> None:
        """Start some work.

        Args:
            work: Function that can be pickled, such as a `functools.partial` of a module's
                function.
            log: File to which its output is appended.
        """
        outcome, theirs = _SPAWN.Pipe(duplex=False)
        process = _SPAWN.Process(target=_work, args=(work, log, theirs), name="labels")
        process.start()
        theirs.close()  # so that its end is the end of the pipe
        self._process, self._outcome, self._log = process, outcome, log

    def wait(self) -> float:
        """Wait until the work that was begun is done.

        Returns:
            The seconds that the work itself took.

        Raises:
            UserError: It failed, or its process was killed.
        """
        if self._process is None or self._outcome is None:
            raise ValueError("nothing was begun")
        try:
            outcome: float | UserError = self._outcome.recv()
        except EOFError:
            self._process.join()
            outcome = UserError(
                f"the process that labels samples ended with status {self._process.exitcode}",
                f"its output is in {self._log}; the same command goes on where it was",
            )
        self.stop()
        if isinstance(outcome, UserError):
            raise outcome
        return outcome

    def stop(self) -> None:
        """End the work if it is not done; what it has written stays."""
        if self._process is not None and self._outcome is not None:
            self._process.terminate()
            self._process.join()
            self._outcome.close()
        self._process = self._outcome = None


def _work(work: Callable[[], object], log: Path, outcome: Connection) -> None:
    """Do the work in its process, and send how long it took or why it failed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the training, which ends this
    threading.Thread(target=_end_with_parent, daemon=True).start()
    started = time.monotonic()
    with (
        suppress(KeyboardInterrupt),
        sigterm_interrupts(),
        log.open("a", encoding="utf-8") as file,
        redirect_stdout(file),
        redirect_stderr(file),
    ):
        try:
            work()
            outcome.send(time.monotonic() - started)
        except UserError as error:
            outcome.send(error)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
