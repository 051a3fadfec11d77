"""Labels of a refresh in a process of their own, while training goes on."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

from protenix_eba.core.errors import UserError
from protenix_eba.core.signals import signal_interrupts

__all__ = ["Background"]

# So that OpenMM, torch and the interpreter's lock of the training process stay out of it.
_SPAWN: Final = multiprocessing.get_context("spawn")
# Ends the work in its process, which starts it by itself.
_END: Final = signal.SIGUSR1
# For a process that is busy in a library to notice, in seconds.
_PATIENCE_S: Final = 5.0


class Background:
    """One piece of work at a time in another process.

    The process ends with this one, however that ends. Signals that a terminal or a queue sends to
    all processes of a run are for this one alone. What the other prints goes to a log file.
    """

    def __init__(self) -> None:
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
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
        ours, theirs = _SPAWN.Pipe()
        process = _SPAWN.Process(target=_work, args=(work, log, theirs), name="labels")
        with _unheard():
            process.start()
        theirs.close()  # so that its end is the end of the pipe
        self._process, self._pipe, self._log = process, ours, log

    def wait(self) -> float:
        """Wait until the work that was begun is done.

        Returns:
            The seconds that the work itself took.

        Raises:
            UserError: It failed, or its process was killed.
        """
        if self._process is None or self._pipe is None:
            raise ValueError("nothing was begun")
        try:
            outcome: float | UserError = self._pipe.recv()
        except EOFError:
            self._process.join()
            outcome = _died(self._process.exitcode or 0, self._log)
        self.stop()
        if isinstance(outcome, UserError):
            raise outcome
        return outcome

    def stop(self) -> None:
        """End the work if it is not done; what it has written stays."""
        if self._process is not None and self._pipe is not None:
            self._pipe.close()  # which tells it to end
            self._process.join(_PATIENCE_S)
            self._process.kill()
            self._process.join()
        self._process = self._pipe = None


def _died(status: int, log: Path) -> UserError:
    """What to say of a process that has sent no outcome."""
    by = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
    return UserError(
        f"the process that labels samples ended {by}, without a result",
        f"look at {log} and, if it was killed, at the memory that is left; the same command goes "
        "on from the last checkpoint, and keeps the labels that are there",
    )


@contextmanager
def _unheard() -> Iterator[None]:
    """Let a process that is started in the block hear of no signal that is sent to the run."""
    if threading.current_thread() is not threading.main_thread():  # which alone has handlers
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _work(work: Callable[[], object], log: Path, pipe: Connection) -> None:
    """Do the work in its process, and send how long it took or why it failed."""
    threading.Thread(target=_end_with_parent, args=(pipe,), daemon=True).start()
    started = time.monotonic()
    with (
        suppress(KeyboardInterrupt),
        signal_interrupts(_END),
        log.open("a", encoding="utf-8") as file,
        redirect_stdout(file),
        redirect_stderr(file),
    ):
        try:
            work()
            pipe.send(time.monotonic() - started)
        except UserError as error:
            pipe.send(error)
        except Exception:
            traceback.print_exc()
            raise


def _end_with_parent(pipe: Connection) -> None:
    """End the work when the parent closes its side of the pipe, or is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel, pipe])
        os.kill(os.getpid(), _END)
