"""Shares of a list of targets, for the jobs of an array on a cluster."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from protenix_eba.core.errors import UserError

__all__ = ["Shard"]

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Share `index` of `count`, counted from 1."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read a shard from text such as "3/8".

        Raises:
            UserError: Anything else.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise UserError(
                f"--shard: expected i/n with i from 1 to n, found {text!r}",
                'in a SLURM array of 1-8: --shard "$SLURM_ARRAY_TASK_ID/8"',
            )
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def split(self, count: int) -> list[Shard]:
        """Return the shares of this share, each as a share of the whole."""
        return [
            Shard(self.index + self.count * number, self.count * count) for number in range(count)
        ]

    def of(self, items: Sequence[T]) -> list[T]:
        """Return every n-th item, so that n jobs share all items, each once."""
        return list(items[self.index - 1 :: self.count])
