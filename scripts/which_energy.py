"""Energies of different kinds for the same conformers: what changes with the choice?

Labels frames of the shipped peptides by two force fields and, where CHARMM36's minimisation ended,
by quantum chemistry, and keeps the numbers in docs/energies/results.json. From these alone the
tables and the figure of docs/which-energy.md are made. What is there is kept, so that a run that
was stopped goes on; 24 frames of each of four peptides take about 3 CPU minutes.

Example:

    python scripts/which_energy.py --frames 24
    python scripts/which_energy.py --check
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np

from protenix_eba.core.files import write_json
from protenix_eba.energy.label import minimised_energies
from protenix_eba.energy.protocol import PROTOCOLS, customised
from protenix_eba.energy.relax import relax
from protenix_eba.energy.system import FrameEnergy
from protenix_eba.protein.chain_ends import end_distance
from protenix_eba.structures.trajectories import Target, find_targets, frame_count, read_frames
from which_energy_report import RESULTS, derive, differences

DEFAULT = PROTOCOLS["default"]
AS_IT_IS = replace(PROTOCOLS["published"], minimise=False)
# Energies at the minima of CHARMM36: their own minimisations would take hours.
AT_MINIMA = {"gfn2-xtb": customised(AS_IT_IS, function="gfn2-xtb")}
MINIMISED = {"ff14sb-obc2": customised(DEFAULT, force_field="amber14", solvent="obc2")}
# A residue of a helix, degrees (Best and Hummer, J. Phys. Chem. B 2009, 113, 9004).
HELIX = {"phi": (-100.0, -30.0), "psi": (-67.0, -7.0)}


def chosen_frames(target: Target, count: int) -> np.ndarray:
    """`[count, N, 3]` in angstrom, evenly of all replicas."""
    replicas = list(target.trajectory_paths)
    parts = []
    for replica, n in zip(
        replicas, np.diff(np.linspace(0, count, len(replicas) + 1).astype(int)), strict=True
    ):
        rows = np.linspace(0, frame_count(target, replica) - 1, n).astype(int)
        parts.append(read_frames(target, replica, rows))
    return np.concatenate(parts)


def helical_share(topology: mdtraj.Topology, xyz_angstrom: np.ndarray) -> np.ndarray:
    """Of the residues with both torsions, those in a helix, for each frame."""
    trajectory = mdtraj.Trajectory(xyz_angstrom / 10, topology)
    inside = []
    # of the residues between the first, which has no phi, and the last, which has no psi
    phi = np.degrees(mdtraj.compute_phi(trajectory)[1])[:, :-1]
    psi = np.degrees(mdtraj.compute_psi(trajectory)[1])[:, 1:]
    for values, (low, high) in ((phi, HELIX["phi"]), (psi, HELIX["psi"])):
        inside.append((values >= low) & (values <= high))
    return np.logical_and(*inside).mean(axis=1)


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 3) for value in values]


def timed(compute: Callable[[], list[FrameEnergy]]) -> dict[str, Any]:
    """Energies, NaN as null, reasons, and CPU seconds of a frame."""
    start = time.process_time()
    found = compute()
    return {
        "energy_kj_mol": [round(e.energy_kj_mol, 3) if e.status == "ok" else None for e in found],
        "failed": sorted({e.reason for e in found if e.status != "ok"}),
        "cpu_s": round((time.process_time() - start) / len(found), 3),
    }


def compute(target: Target, count: int) -> dict[str, Any]:
    """All energies of one peptide."""
    topology, xyz = mdtraj.load(str(target.topology_path)), chosen_frames(target, count)
    minima = np.full_like(xyz, np.nan)  # a frame that has none is a row with its reason

    def charmm36() -> list[FrameEnergy]:
        ends = list(relax(target.topology_path, dict(enumerate(xyz)), DEFAULT))
        for end in ends:
            if end.xyz_angstrom is not None:
                minima[end.number] = end.xyz_angstrom
        return [end.energy for end in sorted(ends, key=lambda end: end.number)]

    energies = {"charmm36-gbn2": timed(charmm36)}
    for name, protocol in MINIMISED.items():
        energies[name] = timed(partial(minimised_energies, topology, xyz, protocol))
    for name, protocol in AT_MINIMA.items():
        energies[name] = timed(partial(minimised_energies, topology, minima, protocol))
    return {
        "n_residues": topology.n_residues,
        "n_atoms": topology.n_atoms,
        "helical": _rounded(helical_share(topology.topology, xyz)),
        "end_distance_angstrom": _rounded(end_distance(topology.topology, xyz)),
        "energies": energies,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=24, help="frames of each peptide")
    parser.add_argument(
        "--check", action="store_true", help="only compare the page with the numbers"
    )
    arguments = parser.parse_args()
    if arguments.check:
        sys.exit("\n".join(differences()) or 0)
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    for target in find_targets(Path(str(files("protenix_eba") / "demo_data"))):
        if len(results.get(target.name, {}).get("helical", ())) != arguments.frames:
            results[target.name] = compute(target, arguments.frames)
            write_json(RESULTS, results)
    derive(results)


if __name__ == "__main__":
    main()
