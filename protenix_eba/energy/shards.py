"""One label table made by several jobs: each takes a share of the targets and writes its own file.

Share i of n writes `labels.shard-i-of-n.parquet` beside the final `labels.parquet`. Nothing but
`merge_shards`, or a run without a share, writes the final table and then removes the shares.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from protenix_eba.core.errors import UserError
from protenix_eba.core.sharding import Shard
from protenix_eba.energy.outliers import flag_outliers
from protenix_eba.energy.resume import LabelFiles, merged
from protenix_eba.energy.table import EnergyLabels, write_labels

__all__ = ["merge_shards", "shard_table"]

_NAME: Final = re.compile(r"\.shard-(\d+)-of-(\d+)$")


def shard_table(shard: Shard, out: Path) -> Path:
    """Return the path of a share's own table, beside the final one."""
    return out.with_name(f"{out.stem}.shard-{shard.index}-of-{shard.count}{out.suffix}")


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
