"""Messages and progress bars, the same for every command."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

__all__ = ["answers", "console", "progress_bar", "tell", "track"]

T = TypeVar("T")

# Where no terminal shows a bar, in seconds: the first line soon, which says that the work has begun
# and how fast it is; then one each half minute, which is at most 3,000 lines a day.
FIRST_LINE_S = 5.0
LINE_INTERVAL_S = 30.0
# Rates are those of the last so many seconds: longer than a slow training step.
RATE_WINDOW_S: Final = 600.0

# A notebook gets plain lines: rich's own bars for it need ipywidgets, and warn at each change
# without them; those of a terminal, which a notebook claims to be, are a line for each change.
_IS_TERMINAL: Final = False if "ipykernel" in sys.modules else None
# Messages and bars go to stderr, so that a command's result on stdout can be piped.
console = Console(stderr=True, highlight=False, force_jupyter=False, force_terminal=_IS_TERMINAL)
answers = Console(highlight=False, force_jupyter=False, force_terminal=_IS_TERMINAL)


def tell(message: str, on: Console = console) -> None:
    """Print a message as it stands: brackets are no markup, and lines are not broken."""
    on.print(message, markup=False, soft_wrap=True)


_shown: list[Progress] = []


class _CutText(TextColumn):
    """Text that is cut where the terminal is narrow, in place of numbers."""

    def __init__(self, words: str) -> None:
        super().__init__(words, markup=False, table_column=Column())

    def render(self, task: Task) -> Text:
        text = super().render(task)
        text.no_wrap, text.overflow = True, "ellipsis"
        return text


def bar_columns() -> tuple[ProgressColumn, ...]:
    """Return the columns of a bar, from left to right; counts and times are never cut."""

    def whole() -> Column:
        return Column(no_wrap=True)

    return (
        _CutText("{task.description}"),
        BarColumn(bar_width=None, table_column=Column(max_width=40)),
        MofNCompleteColumn(table_column=whole()),
        TimeElapsedColumn(table_column=whole()),
        TextColumn("left", table_column=whole()),
        TimeRemainingColumn(table_column=whole()),
        _CutText("{task.fields[note]}"),
    )


class _PlainLines(Progress):
    """Progress as plain lines, each printed when it is due and something is new."""

    def __init__(self) -> None:
        super().__init__(console=console, speed_estimate_period=RATE_WINDOW_S, disable=True)
        self._due = self.get_time() + FIRST_LINE_S

    def update(self, task_id: TaskID, *words: Any, **fields: Any) -> None:
        """Change a task, and print it if it is due."""
        super().update(task_id, *words, **fields)
        self._say_if_due(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Advance a task, and print it if it is due."""
        super().advance(task_id, advance)
        self._say_if_due(task_id)

    def stop(self) -> None:
        """Print how far all tasks came."""
        for task in self.tasks:
            self._say(task)

    def _say_if_due(self, task_id: TaskID) -> None:
        if self.get_time() >= self._due:
            self._say(self._tasks[task_id])
            self._due = self.get_time() + LINE_INTERVAL_S

    def _say(self, task: Task) -> None:
        if task.visible:
            tell(line(task))


def line(task: Task) -> str:
    """Describe a task in one line: done/total, time, rate, time left, and its command's note."""
    words = [f"{task.description}: {task.completed:.0f}/{task.total:.0f} in {_time(task.elapsed)}"]
    if task.speed:
        fast = task.speed >= 1
        words.append(f"{task.speed:.1f} each second" if fast else f"{1 / task.speed:.1f} s each")
    if not task.finished and task.time_remaining is not None:
        words.append(f"{_time(task.time_remaining)} left")
    note = task.fields.get("note")
    return ", ".join([*words, note] if note else words)


def _time(seconds: float | None) -> timedelta:
    return timedelta(seconds=round(seconds or 0))


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Return a rich progress bar with counts and times; plain lines without a terminal.

    Inside of another one, its tasks are shown below the other's and taken away at the end.
    """
    if _shown:
        outer = set(_shown[0].task_ids)
        yield _shown[0]
        for task in set(_shown[0].task_ids) - outer:
            _shown[0].remove_task(task)
        return
    with _bar() if console.is_terminal else _PlainLines() as progress:
        _shown.append(progress)
        try:
            yield progress
        finally:
            _shown.clear()


def _bar() -> Progress:
    return Progress(*bar_columns(), console=console, speed_estimate_period=RATE_WINDOW_S)


def track(items: Iterable[T], description: str, total: int, *, visible: bool = True) -> Iterator[T]:
    """Iterate with a progress bar, or with plain lines without a terminal."""
    with progress_bar() as progress:
        task = progress.add_task(description, total=total, note="", visible=visible)
        for item in items:
            yield item
            progress.advance(task)
