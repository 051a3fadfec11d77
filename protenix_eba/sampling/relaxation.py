"""Relaxation of sampled ensembles by the force field: minimised conformations and energies."""

from __future__ import annotations

import csv
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import mdtraj
import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.files import atomic_path, require_file, write_json
from protenix_eba.core.units import ANGSTROM_PER_NM
from protenix_eba.energy.protocol import EnergyProtocol
from protenix_eba.energy.relax import Relaxed, relax
from protenix_eba.energy.table import frame_hash
from protenix_eba.sampling.ensembles import save_xtc
from protenix_eba.structures.trajectories import (
    Target,
    find_targets,
    load_topology,
    read_frames,
    topology_in,
)

__all__ = ["relax_ensemble"]

_COLUMNS: Final = (
    *("status", "reason", "initial_energy_kj_mol", "energy_kj_mol"),
    *("rmsd_angstrom", "rms_force_kj_mol_nm"),
)
_TABLE: Final = "energies.csv"
Row = dict[str, Any]


@dataclass(frozen=True)
class _End:
    """A sample's row in the table, and its relaxed coordinates `[N, 3]` in angstrom, if any."""

    row: Row
    xyz: NDArray[np.float32] | None

    def starts_from(self, sample: NDArray[np.float32]) -> bool:
        """Return whether the relaxation began with these coordinates."""
        return bool(self.row["frame_hash"] == frame_hash(sample))


def relax_ensemble(
    sampled: Path,
    out: Path,
    protocol: EnergyProtocol,
    *,
    jobs: int = 1,
    tell: Callable[[int], None] = lambda _: None,
) -> dict[int, str]:
    """Minimise the samples of one protein; results of earlier runs are kept.

    Writes `NAME.pdb` (`NAME.cif` if the samples have one), `NAME.xtc` (the relaxed samples),
    `energies.csv` (a row for each sample, the failed ones too) and `NAME.json`.

    Args:
        sampled: The protein's folder, from `EnsembleFolder`.
        out: Folder for the relaxed ensemble, of the same name.
        protocol: Force field and minimisation.
        jobs: Processes.
        tell: Called with the number of samples that are done.

    Returns:
        Number of each sample that could not be relaxed, with the reason.

    Raises:
        UserError: There is no ensemble, or the force field cannot describe it.
    """
    name = sampled.name
    target, frames = _ensemble(sampled)
    record = json.loads((sampled / f"{name}.json").read_text(encoding="utf-8"))
    samples = dict(zip(record["numbers"], frames[: len(record["numbers"])], strict=True))
    settings = {"protocol": protocol.as_dict()}
    parts = out.parent / f".{name}.parts"
    finished = _finished(out, settings)
    known = finished | _in_parts(parts, settings)
    ends = {n: end for n, end in known.items() if n in samples and end.starts_from(samples[n])}
    tell(len(ends))
    left = {number: one for number, one in samples.items() if number not in ends}
    if not left and ends.keys() == finished.keys():
        return _failed(finished)
    write_json(parts / "settings.json", settings)
    for relaxed in relax(target.topology_path, left, protocol, jobs=jobs) if left else ():
        ends[relaxed.number] = _keep(parts, relaxed, samples[relaxed.number])
        tell(len(ends))
    _write(out, target, ends, settings)
    shutil.rmtree(parts, ignore_errors=True)
    return _failed(ends)


def _ensemble(folder: Path) -> tuple[Target, NDArray[np.float32]]:
    """Return the files of an ensemble, and its frames `[F, N, 3]` in angstrom."""
    if not topology_in(folder):
        require_file(folder / f"{folder.name}.pdb", "topology of the samples")
    (target,) = find_targets(folder)
    (replica,) = target.trajectory_paths
    return target, read_frames(target, replica)


def _failed(ends: dict[int, _End]) -> dict[int, str]:
    return {number: end.row["reason"] for number, end in sorted(ends.items()) if end.xyz is None}


def _has_settings(path: Path, settings: dict[str, Any]) -> bool:
    return path.is_file() and json.loads(path.read_text(encoding="utf-8")) == settings


def _finished(out: Path, settings: dict[str, Any]) -> dict[int, _End]:
    """Read what an earlier run has relaxed under the same protocol."""
    if not _has_settings(out / f"{out.name}.json", settings):
        return {}
    with (out / _TABLE).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    frames: NDArray[np.float32] = np.empty(0, dtype=np.float32)
    if any(row["frame"] for row in rows):
        _, frames = _ensemble(out)
    return {
        int(row["sample"]): _End(row, frames[int(row["frame"])] if row["frame"] else None)
        for row in rows
    }


def _in_parts(parts: Path, settings: dict[str, Any]) -> dict[int, _End]:
    """Read what an interrupted run has relaxed, and remove parts of another protocol."""
    if not _has_settings(parts / "settings.json", settings):
        shutil.rmtree(parts, ignore_errors=True)
    found = {int(path.stem): _read(path) for path in parts.glob("[0-9]*.npz")}
    return {number: end for number, end in found.items() if end}


def _keep(parts: Path, relaxed: Relaxed, sample: NDArray[np.float32]) -> _End:
    row = {key: getattr(relaxed.energy, key) for key in _COLUMNS}
    row["frame_hash"] = frame_hash(sample)
    xyz = np.empty(0) if relaxed.xyz_angstrom is None else relaxed.xyz_angstrom
    with atomic_path(parts / f"{relaxed.number:08d}.npz") as path:
        np.savez(path, row=np.array(json.dumps(row)), xyz=xyz)
    return _End(row, relaxed.xyz_angstrom)


def _read(path: Path) -> _End | None:
    try:
        with np.load(path, allow_pickle=False) as part:
            xyz = part["xyz"]
            return _End(json.loads(str(part["row"])), xyz if len(xyz) else None)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _write(out: Path, sampled: Target, ends: dict[int, _End], settings: dict[str, Any]) -> None:
    name, frame = out.name, 0
    rows, relaxed = [], []
    for number, end in sorted(ends.items()):
        rows.append(end.row | {"sample": number, "frame": "" if end.xyz is None else frame})
        if end.xyz is not None:
            relaxed.append(end.xyz)
            frame += 1
    if relaxed:
        topology = load_topology(sampled)
        trajectory = mdtraj.Trajectory(np.stack(relaxed) / ANGSTROM_PER_NM, topology)
        with atomic_path(out / f"{name}{sampled.topology_path.suffix}") as path:
            trajectory[0].save(str(path))
        save_xtc(out / f"{name}.xtc", trajectory)
    with atomic_path(out / _TABLE) as path, path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["sample", "frame", *_COLUMNS, "frame_hash"])
        writer.writeheader()
        writer.writerows(rows)
    write_json(out / f"{name}.json", settings)
