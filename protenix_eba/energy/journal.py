"""The rows of a chunk, each kept as soon as it is there: a line of JSON with how it was made.

A process that is killed leaves at most a line that is cut, and its frame is labelled again. A table
is whole or absent instead: whoever is killed before it is written loses all its rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from protenix_eba.core.files import make_folder
from protenix_eba.energy.table import EnergyLabels, disk_errors, labels_from_rows

__all__ = ["JOURNAL_SUFFIX", "add_to_journal", "read_journal"]

JOURNAL_SUFFIX: Final = ".jsonl"
_PROVENANCE: Final = "provenance"


def add_to_journal(path: Path, row: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
    """Add a row behind those that a journal has.

    Args:
        path: The journal; its folder is made.
        row: As in `labels_from_rows`.
        provenance: How it was made, as in `EnergyLabels`.

    Raises:
        UserError: It cannot be written to.
    """
    make_folder(path.parent)
    line = json.dumps({**row, _PROVENANCE: dict(provenance)})
    with disk_errors(path), path.open("a", encoding="utf-8") as file:
        file.write("\n" + line)  # in front, for the last line may be one that was cut


def read_journal(path: Path) -> EnergyLabels:
    """Read the rows of a journal but those that are cut; a frame may be there twice.

    One that is gone has none: its rows are in the table of a share that has ended just now.
    """
    rows: list[dict[str, Any]] = []
    provenance: dict[str, Any] = {}
    lines: list[str] = []
    with suppress(FileNotFoundError):
        lines = path.read_text(encoding="utf-8").split("\n")
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        provenance = row.pop(_PROVENANCE)
        rows.append(row)
    return labels_from_rows(rows, provenance)
