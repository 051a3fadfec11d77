"""The record of a refresh: validity, energies and width of the model's fresh samples."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from protenix_eba.core.errors import UserError
from protenix_eba.energy.table import EnergyLabels, read_labels
from protenix_eba.host.features import ProteinFeatures
from protenix_eba.structures.trajectories import find_targets, read_frames
from protenix_eba.training.data.buffer import LABELS, Buffer
from protenix_eba.training.data.conformers import match_atoms
from protenix_eba.training.data.replay_config import ReplayConfig
from protenix_eba.training.validation import fluctuations

__all__ = ["measure", "refuse_ruin", "summary"]

Row = dict[str, Any]


def measure(folder: Path, proteins: Sequence[ProteinFeatures], buffer: Buffer) -> dict[str, Row]:
    """Measure the samples of a refresh.

    Args:
        folder: Folder of the refresh, whose samples are labelled.
        proteins: Proteins of its targets.
        buffer: Buffer with the refreshes before it.

    Returns:
        For each target `attempts`; `valid`, the share of valid ones; `labelled`, the share with an
        energy; `energy_kj_mol`, the median after minimisation (None if none has one);
        `above_first_kj_mol`, how far that is above the first refresh's; `moved_angstrom`, the
        median RMSD of the minimisation; `rmsf_angstrom`, the mean over C-alpha atoms; and
        `rmsf_ratio`, its ratio to the first refresh's.
    """
    labels = read_labels(folder / LABELS)
    found = {target.name: target for target in find_targets(folder)}
    rows = {}
    for protein in proteins:
        name = protein.protein.name
        target = found[name]
        columns = match_atoms(target, protein)[protein.alpha_carbons.numpy()]
        width = float(fluctuations(read_frames(target, 1)[:, columns]).mean())
        record = json.loads((folder / name / f"{name}.json").read_text(encoding="utf-8"))
        row = _energies(labels.for_target(name), record["attempts"])
        row |= {"valid": 1 - len(record["invalid"]) / record["attempts"], "rmsf_angstrom": width}
        rows[name] = row | _changes(row, _first(buffer, name))
    return rows


def _energies(labels: EnergyLabels, attempts: int) -> Row:
    done = labels.finished
    return {
        "attempts": attempts,
        "labelled": float(done.sum() / attempts),
        "energy_kj_mol": _median(labels.energy_kj_mol[done]),
        "initial_energy_kj_mol": _median(labels.initial_energy_kj_mol[done]),
        "moved_angstrom": _median(labels.rmsd_angstrom[done]),
    }


def _median(values: Any) -> float | None:
    return float(np.median(values)) if len(values) else None


def _first(buffer: Buffer, name: str) -> Row:
    records = (buffer.record(step)["targets"] for step in reversed(buffer.steps()))
    return next((targets[name] for targets in records if name in targets), {})


def _changes(row: Row, first: Row) -> Row:
    before, now = (values.get("energy_kj_mol") for values in (first or row, row))
    above = None if before is None or now is None else now - before
    width = (first or row)["rmsf_angstrom"]
    return {
        "above_first_kj_mol": above,
        "rmsf_ratio": row["rmsf_angstrom"] / width if width > 0 else 1.0,
    }


def summary(record: Row) -> dict[str, float]:
    """Return a line of `replay.csv`: means over the targets of a refresh."""
    rows = list(record["targets"].values())
    names = ("valid", "labelled", "above_first_kj_mol", "moved_angstrom", "rmsf_angstrom")
    means = {name: _mean(row[name] for row in rows) for name in (*names, "rmsf_ratio")}
    seconds = {f"{name}_seconds": value for name, value in record["seconds"].items()}
    return {"step": record["step"], "targets": len(rows), **means, **seconds}


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else float("nan")


def refuse_ruin(record: Row, settings: ReplayConfig, folder: Path) -> None:
    """Stop a run whose samples have become much worse, before the ensemble is ruined.

    Args:
        record: Record of the last refresh.
        settings: The section `replay`, with the floors.
        folder: Folder of the buffer, for the message.

    Raises:
        UserError: Too few samples are valid, or the samples have become too much alike.
    """
    means = summary(record)
    for key, what in (
        ("valid", "a share of {:.2f} of the fresh samples is valid"),
        ("rmsf_ratio", "the RMSF of the fresh samples is {:.2f} times that of the first ones"),
    ):
        floor = {"valid": settings.valid_floor, "rmsf_ratio": settings.rmsf_floor}[key]
        name = {"valid": "valid_floor", "rmsf_ratio": "rmsf_floor"}[key]
        if means[key] < floor:
            raise UserError(
                f"before step {record['step']} {what.format(means[key])}, below replay.{name} = "
                f"{floor:g}: the ensemble is being ruined; the samples are in {folder}",
                "take the weights of an earlier checkpoint or best.pt; then a lower lr, more of MD "
                f"(replay.md_share), eba.eba_with_ref, or another replay.{name}",
            )
