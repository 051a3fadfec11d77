"""MD frames with labels -> conformers in Protenix's atom order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from protenix_eba.data.features import AtomKey, ProteinFeatures
from protenix_eba.energy.table import frame_hash
from protenix_eba.errors import UserError
from protenix_eba.importing.names import standard_atom
from protenix_eba.trajectories import Target, load_topology, read_frames

if TYPE_CHECKING:
    from protenix_eba.energy.table import EnergyLabels

__all__ = ["Conformers", "load_conformers", "within_deviations"]

SMALLEST_COVERAGE = 0.95
# Fewer energies do not tell their distribution.
SMALLEST_SAMPLE = 20


@dataclass(frozen=True)
class Conformers:
    """All labelled conformers of one protein.

    Attributes:
        protein: Features (those of `features.compact` suffice) and atom order.
        coordinates: `[F, N_atom, 3]` float32 in angstrom, 0 where absent.
        mask: `[N_atom]` 1 where the trajectory has the atom.
        energy_kj_mol: `[F]` float64.
        replica: `[F]`.
        frame: `[F]` index within the replica.
    """

    protein: ProteinFeatures
    coordinates: Tensor
    mask: Tensor
    energy_kj_mol: Tensor
    replica: Tensor
    frame: Tensor

    def __len__(self) -> int:
        return len(self.energy_kj_mol)


def load_conformers(
    target: Target,
    protein: ProteinFeatures,
    labels: EnergyLabels,
    replicas: Sequence[int] | None = None,
) -> Conformers:
    """The frames of a target that have a usable label.

    Args:
        target: Where the trajectories are.
        protein: Gives the atom order.
        labels: Energies; rows whose status is not `ok` are left out.
        replicas: Which replicas; all when None.

    Raises:
        UserError: No label, labels of other coordinates, atoms that do not match, a file that
            cannot be read.
    """
    rows = labels.for_target(target.name)
    keep = rows.status == "ok"
    if replicas is not None:
        keep &= np.isin(rows.replica, replicas)
    if not keep.any():
        raise UserError(
            f"target {target.name}: none of its {len(keep)} labels is usable here",
            "label its trajectories with `protenix-eba label`, or choose other replicas",
        )
    columns = match_atoms(target, protein)
    present = columns >= 0
    replica, frame, energy = rows.replica[keep], rows.frame[keep], rows.energy_kj_mol[keep]
    coordinates = np.zeros((len(frame), len(columns), 3), dtype=np.float32)
    for number in np.unique(replica):
        where = np.flatnonzero(replica == number)
        if number not in target.trajectory_paths:
            raise UserError(
                f"target {target.name}: labels name replica {number}, the folder has "
                f"{list(target.trajectory_paths)}",
                "use the labels of these trajectories",
            )
        xyz = read_frames(target, int(number), frame[where])
        _check_frames(target, int(number), frame[where], xyz, rows.frame_hash[keep][where])
        coordinates[np.ix_(where, np.flatnonzero(present))] = xyz[:, columns[present]]
    return Conformers(
        protein,
        torch.from_numpy(coordinates),
        torch.from_numpy(present.astype(np.float32)),
        torch.from_numpy(np.array(energy, dtype=np.float64)),
        torch.from_numpy(np.array(replica, dtype=np.int64)),
        torch.from_numpy(np.array(frame, dtype=np.int64)),
    )


def within_deviations(energy_kj_mol: Tensor, n_deviations: float) -> Tensor:
    """Energies that belong to their distribution, by the modified z-score.

    |E - median| / (1.4826 MAD), MAD being the median of |E - median| (Iglewicz and Hoaglin, How to
    Detect and Handle Outliers, 1993, who advise 3.5).

    Args:
        energy_kj_mol: `[F]` float64.
        n_deviations: Largest score; 0 keeps all.

    Returns:
        `[F]` bool; all true for fewer than 20 energies, or if most are equal.
    """
    # numpy's median is the mean of the middle two; torch's is the lower one
    energy = energy_kj_mol.numpy()
    distance = np.abs(energy - np.median(energy))
    spread = 1.4826 * np.median(distance)
    if n_deviations == 0 or len(energy) < SMALLEST_SAMPLE or spread == 0:
        return torch.ones(len(energy), dtype=torch.bool)
    return torch.from_numpy(distance <= n_deviations * spread)


def _check_frames(
    target: Target, replica: int, frames: np.ndarray, xyz: np.ndarray, expected: np.ndarray
) -> None:
    """Refuse labels that were made for other coordinates than the trajectory has now."""
    for number, frame, known in zip(frames, xyz, expected, strict=True):
        if frame_hash(frame) != known:
            raise UserError(
                f"target {target.name}: the label of replica {replica} frame {number} belongs to "
                f"other coordinates than {target.trajectory_paths[replica].name} has",
                "the trajectory has changed since it was labelled: label it again",
            )


def match_atoms(target: Target, protein: ProteinFeatures) -> np.ndarray:
    """For each atom of Protenix its column in the trajectory, -1 where it is absent.

    Atoms are matched by chain, residue and name, never by position: GROMACS orders a residue's
    atoms N CA CB .. C O, Protenix N CA C O CB.

    Raises:
        UserError: Another sequence, or fewer than 95% of the atoms found.
    """
    columns = _columns_by_key(target, protein)
    matched = np.array([columns.get(key, -1) for key in protein.atoms])
    missing = [key for key, column in zip(protein.atoms, matched, strict=True) if column < 0]
    if len(missing) > (1 - SMALLEST_COVERAGE) * len(matched):
        shown = ", ".join(f"chain {c + 1} residue {r + 1} {name}" for c, r, name in missing[:5])
        raise UserError(
            f"target {target.name}: {len(missing)} of {len(matched)} heavy atoms are not in "
            f"{target.topology_path}: {shown}",
            "the topology must hold all heavy atoms under their PDB names",
        )
    return matched


def _columns_by_key(target: Target, protein: ProteinFeatures) -> dict[AtomKey, int]:
    topology = load_topology(target).topology
    chains = [[r for r in chain.residues if r.code] for chain in topology.chains]
    chains = [residues for residues in chains if residues]
    found = tuple("".join(r.code for r in residues) for residues in chains)
    if found != protein.protein.chains:
        raise UserError(
            f"target {target.name}: expected the sequence {':'.join(protein.protein.chains)}, "
            f"found {':'.join(found)} in {target.topology_path}",
            "use the topology of this protein",
        )
    return {
        (c, r, standard_atom(residue.name, atom.name)): atom.index
        for c, residues in enumerate(chains)
        for r, residue in enumerate(residues)
        for atom in residue.atoms
    }
