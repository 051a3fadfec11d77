"""Messages and progress bars, the same for every command."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["answers", "console", "progress_bar", "tell", "track"]

T = TypeVar("T")

# Messages and bars go to stderr, so that a command's result on stdout can be piped.
console = Console(stderr=True, highlight=False)
answers = Console(highlight=False)


def tell(message: str, on: Console = console) -> None:
    """Print a message as it stands: brackets are no markup, and lines are not broken."""
    on.print(message, markup=False, soft_wrap=True)


_shown: list[Progress] = []


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A rich progress bar with counts and times; into a file only its last state is printed.

    Inside of another one, its tasks are shown below the other's and taken away at the end.
    """
    if _shown:
        outer = set(_shown[0].task_ids)
        yield _shown[0]
        for task in set(_shown[0].task_ids) - outer:
            _shown[0].remove_task(task)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress:
        _shown.append(progress)
        try:
            yield progress
        finally:
            _shown.clear()


def track(items: Iterable[T], description: str, total: int, *, visible: bool = True) -> Iterator[T]:
    """Iterate with a bar."""
    with progress_bar() as progress:
        task = progress.add_task(description, total=total, note="", visible=visible)
        for item in items:
            yield item
            progress.advance(task)
