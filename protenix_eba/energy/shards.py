"""One label table made by several jobs: each takes a share of the targets and writes its own file.

Share i of n writes `labels.shard-i-of-n.parquet` beside the final `labels.parquet`. Nothing but
`merge_shards`, or a run without a share, writes the final table and then removes the shares.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from protenix_eba.energy.outliers import flag_outliers
from protenix_eba.energy.resume import LabelFiles, merged
from protenix_eba.energy.table import EnergyLabels, write_labels
from protenix_eba.errors import UserError

__all__ = ["Shard", "merge_shards"]

T = TypeVar("T")

_NAME: Final = re.compile(r"\.shard-(\d+)-of-(\d+)$")


@dataclass(frozen=True)
class Shard:
    """Share `index` of `count`, counted from 1."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From "3/8".

        Raises:
            UserError: Anything else.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise UserError(
                f"a share of {text!r}: expected i/n with 1 <= i <= n",
                'in a SLURM array of 1-8: --shard "$SLURM_ARRAY_TASK_ID/8"',
            )
        return cls(int(match[1]), int(match[2]))

    def of(self, items: Sequence[T]) -> list[T]:
        """Every n-th item, so that the shares of n jobs are all items, each once."""
        return list(items[self.index - 1 :: self.count])

    def path(self, out: Path) -> Path:
        """The share's own table beside the final one."""
        return out.with_name(f"{out.stem}.shard-{self.index}-of-{self.count}{out.suffix}")


def merge_shards(out: Path) -> EnergyLabels:
    """Write the final table from the finished shares beside it, and remove them.

    Args:
        out: The final table; rows that it has already stay.

    Raises:
        UserError: A share is missing or not finished, or shares of different protocols.
    """
    files = LabelFiles.beside(out)
    _require_all(files.shares, out)
    labels = flag_outliers(merged(files.read()))
    write_labels(out, labels)
    files.remove(keep=out)
    return labels


def _require_all(shares: Sequence[Path], out: Path) -> None:
    found: dict[int, set[int]] = {}
    for path in shares:
        match = _NAME.search(path.stem)
        if match:
            found.setdefault(int(match[2]), set()).add(int(match[1]))
    if not found:
        raise UserError(
            f"no shares of {out}: expected {out.stem}.shard-1-of-N{out.suffix} and so on",
            "make them with `protenix-eba label --shard i/n`",
        )
    missing = {n: sorted(set(range(1, n + 1)) - there) for n, there in found.items()}
    if all(missing.values()):
        n, gaps = min(missing.items(), key=lambda item: len(item[1]))
        raise UserError(
            f"{out}: of {n} shares {', '.join(map(str, gaps))} are missing or not finished",
            "run them (again): a share goes on where it was stopped",
        )
