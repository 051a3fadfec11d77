"""The record of a refresh: validity, energies and width of the model's fresh samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.core.run_folder import read_json
from protenix_eba.energy.table import EnergyLabels, read_labels
from protenix_eba.host.features import ProteinFeatures
from protenix_eba.structures.trajectories import Target, find_targets, read_frames
from protenix_eba.training.data.buffer import LABELS, Buffer
from protenix_eba.training.data.conformers import match_atoms
from protenix_eba.training.data.replay import ReplayDataset
from protenix_eba.training.data.replay_config import ReplayConfig
from protenix_eba.training.replay.collapse import Clusters
from protenix_eba.training.validation import fluctuations

__all__ = ["measure", "refuse_ruin", "summary"]

Row = dict[str, Any]

# Frames of MD that its clusters are made of.
_REFERENCE: Final = 256
_MEANS: Final = (
    *("valid", "labelled", "above_first_kj_mol", "moved_angstrom", "rmsf_angstrom", "rmsf_ratio"),
    *("clusters", "clusters_ratio", "coverage"),
)
# What must not fall below its floor in the settings, `X_floor` for `X` and `X_ratio`.
_GUARDED: Final = {
    "valid": "a share of {:.2f} of the fresh samples is valid",
    "rmsf_ratio": "the RMSF of the fresh samples is {:.2f} times that of the first ones",
    "clusters_ratio": "the fresh samples are in {:.2f} times as many clusters as the first ones",
    "coverage": "the fresh samples visit clusters with a share of {:.2f} of the reference",
}


def measure(
    folder: Path,
    proteins: Sequence[ProteinFeatures],
    dataset: ReplayDataset,
    clusters: dict[str, Clusters],
) -> dict[str, Row]:
    """Measure the samples of a refresh.

    Args:
        folder: Folder of the refresh, whose samples are labelled.
        proteins: Proteins of its targets.
        dataset: Dataset with the MD, and a buffer with the refreshes before it.
        clusters: Clusters of each target's reference as far as they are known; others are added.

    Returns:
        For each target `attempts`; `valid`, the share of valid ones; `labelled`, the share with an
        energy; `energy_kj_mol`, the median after minimisation (None if none has one);
        `above_first_kj_mol`, how far that is above the first refresh's; `moved_angstrom`, the
        median RMSD of the minimisation; `rmsf_angstrom`, the mean over C-alpha atoms; `clusters`,
        the effective number of clusters; `rmsf_ratio` and `clusters_ratio`, their ratios to the
        first refresh's; and `coverage`, the share of the MD in clusters that are visited. Without
        MD the samples of the first refresh stand for it.
    """
    labels = read_labels(folder / LABELS)
    found = {target.name: target for target in find_targets(folder)}
    rows = {}
    for protein in proteins:
        name = protein.protein.name
        xyz = _alpha_carbons(found[name], protein)
        if name not in clusters:
            clusters[name] = Clusters.of(_reference(xyz, protein, dataset))
        visited, coverage = clusters[name].visited(xyz)
        record = read_json(folder / name / f"{name}.json")
        row = _energies(labels.for_target(name), record["attempts"]) | {
            "valid": 1 - len(record["invalid"]) / record["attempts"],
            "rmsf_angstrom": float(fluctuations(xyz).mean()),
            "clusters": visited,
            "coverage": coverage,
        }
        rows[name] = row | _changes(row, _first(dataset.buffer, name)[1])
    return rows


def _alpha_carbons(target: Target, protein: ProteinFeatures) -> NDArray[np.float32]:
    return read_frames(target, 1)[:, match_atoms(target, protein)[protein.alpha_carbons.numpy()]]


def _reference(
    xyz: NDArray[np.float32], protein: ProteinFeatures, dataset: ReplayDataset
) -> NDArray[np.float32]:
    """Return what samples should cover: MD, or the first ones, which may be these."""
    md = dataset.md_alpha_carbons(protein, _REFERENCE)
    if md is not None:
        return md
    buffer, name = dataset.buffer, protein.protein.name
    first, _ = _first(buffer, name)
    if first < 0:
        return xyz
    [target] = [target for target in find_targets(buffer.path(first)) if target.name == name]
    return _alpha_carbons(target, protein)


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


def _first(buffer: Buffer, name: str) -> tuple[int, Row]:
    """Return the step of a target's first refresh and its row; -1 and nothing if there is none."""
    records = ((step, buffer.record(step)["targets"]) for step in reversed(buffer.steps()))
    return next(((step, rows[name]) for step, rows in records if name in rows), (-1, {}))


def _changes(row: Row, first: Row) -> Row:
    first = first or row
    before, now = (values["energy_kj_mol"] for values in (first, row))
    changes = {"above_first_kj_mol": None if before is None or now is None else now - before}
    for ratio, name in (("rmsf_ratio", "rmsf_angstrom"), ("clusters_ratio", "clusters")):
        changes[ratio] = row[name] / first[name] if first[name] > 0 else 1.0
    return changes


def summary(record: Row) -> dict[str, float]:
    """Return a line of `replay.csv`: means over the targets of a refresh."""
    rows = list(record["targets"].values())
    means = {name: _mean(row[name] for row in rows) for name in _MEANS}
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
    for key, what in _GUARDED.items():
        floor_name = f"{key.removesuffix('_ratio')}_floor"
        floor = getattr(settings, floor_name)
        if means[key] < floor:
            raise UserError(
                f"before step {record['step']} {what.format(means[key])}, below replay."
                f"{floor_name} = {floor:g}: the ensemble is being ruined; the samples are in "
                f"{folder}",
                "take the weights of an earlier checkpoint or best.pt; then a lower lr, more of MD "
                f"(replay.md_share), eba.eba_with_ref, or another replay.{floor_name}",
            )
