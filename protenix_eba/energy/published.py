"""Label tables made from energies that others published as CSV."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import fingerprint, require_file
from protenix_eba.core.text_files import text_lines
from protenix_eba.energy.sources import FilesSource
from protenix_eba.energy.structure import complete_structure
from protenix_eba.energy.table import EnergyLabels, frame_hash, labels_from_rows

__all__ = ["labels_from_csv"]

# The EBA authors' columns: energies before and after minimisation in kJ/mol, RMSD in angstrom.
_COLUMNS: Final = {
    "frame": "the frame's file name, NAME_<number>.cif",
    "initial_e": "initial_energy_kj_mol",
    "final_e": "energy_kj_mol",
    "rmsd": "rmsd_angstrom",
}
_FRAME: Final = re.compile(r"(?P<target>.+)_(?P<frame>\d+)$")


def labels_from_csv(path: Path | str, structures: Path | str | None = None) -> EnergyLabels:
    """Read labels from a CSV file with the columns frame, initial_e, final_e and rmsd.

    Rows belong to replica 1 of the target that their file name begins with; the number at its end
    is the frame. Their protocol is only known as "imported", so that they are never mixed with
    others.

    Args:
        path: The CSV file.
        structures: Folder of the structure files that the rows name: they give residues, topology
            and the identity of each frame. Without it these stay empty (0 residues).

    Raises:
        UserError: A column is missing, a value is no number, a frame stands twice or its file is
            missing.
    """
    path = require_file(path, "published energies")
    rows = [_row(path, line, values) for line, values in _read(path)]
    twice = len(rows) - len({(row["target"], row["frame"]) for row in rows})
    if twice:
        raise UserError(f"{path}: {twice} frames stand twice", "keep one row for each frame")
    if structures is not None:
        _identify(rows, Path(structures))
    for row in rows:
        del row["file"]
    return labels_from_rows(rows, {"imported": path.name, "columns": list(_COLUMNS)})


def _read(path: Path) -> list[tuple[int, Mapping[str, str]]]:
    reader = csv.DictReader(text_lines(path))
    missing = [name for name in _COLUMNS if name not in (reader.fieldnames or [])]
    if missing:
        raise UserError(
            f"{path} lacks {', '.join(missing)}; it has {', '.join(reader.fieldnames or [])}",
            "expected the columns frame, initial_e, final_e and rmsd; a table by target, "
            "replica and frame needs --input",
        )
    return [(reader.line_num, row) for row in reader]


def _row(path: Path, line: int, values: Mapping[str, str]) -> dict[str, Any]:
    name = _FRAME.match(Path(values["frame"]).stem)
    try:
        initial, final, rmsd = (float(values[key]) for key in ("initial_e", "final_e", "rmsd"))
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}, line {line}: {error}", "energies and RMSD are numbers") from error
    if name is None:
        raise UserError(
            f"{path}, line {line}: frame {values['frame']!r}", "expected NAME_<number>.cif"
        )
    usable = math.isfinite(final)
    return {
        "target": name["target"],
        "replica": 1,
        "frame": int(name["frame"]),
        "file": Path(values["frame"]).name,
        "initial_energy_kj_mol": initial,
        "energy_kj_mol": final,
        "rmsd_angstrom": rmsd,
        "n_residues": 0,
        "status": "ok" if usable else "failed",
        "reason": "" if usable else "published without an energy",
        "topology_hash": "",
        "protocol_hash": fingerprint("imported"),
        "frame_hash": "",
    }


def _identify(rows: Sequence[dict[str, Any]], folder: Path) -> None:
    """Add residues and hashes from the structure files."""
    for target in {row["target"] for row in rows}:
        mine = sorted((row for row in rows if row["target"] == target), key=lambda r: r["frame"])
        paths = [require_file(folder / row["file"], "published structure") for row in mine]
        structure = complete_structure(paths[0])
        xyz, faults = FilesSource(target, paths).read(1, np.arange(len(paths)))
        if any(faults):
            raise UserError(max(faults), "the structures of one target must have the same atoms")
        for row, frame in zip(mine, xyz, strict=True):
            row["n_residues"] = structure.n_residues
            row["built_fraction"] = structure.built_fraction
            row["topology_hash"] = structure.topology_hash
            row["frame_hash"] = frame_hash(frame)
