"""Loading of the next items while the current one is trained on."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Final, Protocol, TypeVar

__all__ = ["prefetch"]

T_co = TypeVar("T_co", covariant=True)

_AHEAD: Final = 2


class _ByNumber(Protocol[T_co]):
    def __getitem__(self, index: int, /) -> T_co: ...


def prefetch(
    loader: _ByNumber[T_co], indices: Iterable[int]
) -> Generator[tuple[int, T_co], None, None]:
    """Yield items in order; one thread loads at most 2 ahead of the current one.

    Closing the iterator ends the thread, after the item that it is at
    (`contextlib.closing(prefetch(...))`).

    Args:
        loader: Object whose `loader[index]` loads an item.
        indices: Numbers of the items; taken from it as they are needed, in the caller's thread.

    Yields:
        Each number with its item.

    Raises:
        Exception: What loading an item raised, in the place of that item.
    """
    remaining = iter(indices)
    pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")

    def start(n_items: int) -> list[tuple[int, Future[T_co]]]:
        return [(i, pool.submit(loader.__getitem__, i)) for i in islice(remaining, n_items)]

    try:
        waiting = deque(start(_AHEAD))
        while waiting:
            index, item = waiting.popleft()
            waiting.extend(start(1))
            yield index, item.result()
    finally:
        pool.shutdown(cancel_futures=True)
