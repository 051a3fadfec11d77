"""A bias that is known: V on the distance between the ends of a chain."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.files import atomic_path
from protenix_eba.core.run_folder import read_json
from protenix_eba.protein.chain_ends import end_atoms, end_distance
from protenix_eba.structures.trajectories import Target, frame_count, load_topology, read_frames

__all__ = ["EndBias", "bias_of", "replica_distances", "write_bias_csv"]


@dataclass(frozen=True, kw_only=True)
class EndBias:
    """A well that draws a chain's ends together: V = -depth / (1 + exp((d - centre) / width)).

    d is the distance from the N of the first residue to the C of the last one. V is smooth and
    bounded, so that weights exp(V / kT) lead back to the ensemble without it.

    Attributes:
        depth_kj_mol: Depth of the well.
        centre_angstrom: Distance at which V is half as deep.
        width_angstrom: Width of the step.
    """

    depth_kj_mol: float
    centre_angstrom: float = 7.0
    width_angstrom: float = 1.0

    def energy_kj_mol(self, distance_angstrom: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return V at each distance, in float64."""
        steps = (distance_angstrom - self.centre_angstrom) / self.width_angstrom
        return -self.depth_kj_mol / (1.0 + np.exp(np.asarray(steps, dtype=np.float64)))

    def force(self, topology: Any) -> Any:
        """Return V as an `openmm.CustomBondForce`, in kJ/mol and nm."""
        import openmm

        force = openmm.CustomBondForce("-depth / (1 + exp((r - centre) / width))")
        force.addGlobalParameter("depth", self.depth_kj_mol)
        force.addGlobalParameter("centre", self.centre_angstrom / 10)
        force.addGlobalParameter("width", self.width_angstrom / 10)
        force.addBond(*end_atoms(topology), [])
        return force


def bias_of(target: Target) -> EndBias:
    """Return the bias that a target was simulated with, by its `provenance.json`."""
    record: Any = read_json(target.topology_path.parent / "provenance.json")
    return EndBias(**record["settings"]["bias"])


def replica_distances(target: Target) -> dict[int, NDArray[np.floating]]:
    """Return the end-to-end distances of all frames of each replica, angstrom."""
    topology = load_topology(target)
    frames = {r: np.arange(frame_count(target, r)) for r in target.trajectory_paths}
    return {r: end_distance(topology, read_frames(target, r, rows)) for r, rows in frames.items()}


def write_bias_csv(path: Path, targets: Sequence[Target]) -> None:
    """Write V of every frame, as `protenix-eba label import-csv --bias` reads it."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["target", "replica", "frame", "bias_kj_mol"])
        for target in targets:
            for replica, distance in replica_distances(target).items():
                energies = bias_of(target).energy_kj_mol(distance)
                for frame, energy in enumerate(energies):
                    rows.writerow([target.name, replica, frame, f"{energy:.5f}"])
