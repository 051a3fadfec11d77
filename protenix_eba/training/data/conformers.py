"""Conformers in Protenix's atom order, from MD frames with labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protenix_eba.core.errors import UserError
from protenix_eba.energy.outliers import SMALLEST_SAMPLE, robust_distances
from protenix_eba.energy.table import frame_hash
from protenix_eba.host.features import AtomKey, ProteinFeatures
from protenix_eba.protein.residue_names import standard_atom
from protenix_eba.structures.trajectories import Target, load_topology, read_frames
from protenix_eba.training.symmetry import symmetric_partners

if TYPE_CHECKING:
    from protenix_eba.energy.table import EnergyLabels

__all__ = ["Conformers", "labels_by_target", "load_conformers", "within_deviations"]

SMALLEST_COVERAGE = 0.95


@dataclass(frozen=True, eq=False)
class Conformers:
    """The labelled conformers of one protein, whose coordinates are read when asked for.

    Attributes:
        protein: Features (those of `host.features.compact` suffice) and atom order.
        target: The target, which knows its trajectories.
        columns: `[N_atom]` of each atom its column in the trajectories, -1 where it is absent.
        energy_kj_mol: `[F]` float64.
        replica: `[F]`.
        frame: `[F]` index within the replica.
        frame_hash: `[F]` of the coordinates that were labelled.
        generated: Whether they are samples of the model that is trained, and no MD.
    """

    protein: ProteinFeatures
    target: Target
    columns: NDArray[np.int64]
    energy_kj_mol: Tensor
    replica: Tensor
    frame: Tensor
    frame_hash: NDArray[np.str_]
    generated: bool = False

    def __len__(self) -> int:
        return len(self.energy_kj_mol)

    @property
    def sampled(self) -> Tensor:
        """Return `[F]`, all true or all false."""
        return torch.full((len(self),), self.generated)

    @cached_property
    def mask(self) -> Tensor:
        """Return a mask `[N_atom]`, 1 where the trajectories have the atom."""
        return torch.from_numpy((self.columns >= 0).astype(np.float32))

    @cached_property
    def partners(self) -> Tensor:
        """Return `[N_atom]` partners from `symmetry.symmetric_partners`."""
        return symmetric_partners(self.protein.atoms, self.protein.protein.chains)

    def coordinates(self, rows: Sequence[int] | None = None) -> Tensor:
        """Read conformers from their trajectories.

        Args:
            rows: Which, in any order; all when None.

        Returns:
            `[len(rows), N_atom, 3]` float32 in angstrom, 0 where absent.

        Raises:
            UserError: A file that cannot be read, or has changed since it was labelled.
        """
        chosen = np.arange(len(self)) if rows is None else np.asarray(rows, dtype=np.int64)
        replica, present = self.replica.numpy()[chosen], np.flatnonzero(self.columns >= 0)
        coordinates = np.zeros((len(chosen), len(self.columns), 3), dtype=np.float32)
        for number in np.unique(replica):
            where = np.flatnonzero(replica == number)
            xyz = self._read(int(number), chosen[where])
            coordinates[np.ix_(where, present)] = xyz[:, self.columns[present]]
        return torch.from_numpy(coordinates)

    def _read(self, replica: int, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        frames = self.frame.numpy()[rows]
        try:
            xyz = read_frames(self.target, replica, frames)
        except UserError as error:
            shown = ", ".join(map(str, frames[:5])) + (" ..." if len(frames) > 5 else "")
            raise UserError(
                f"replica {replica}, frame {shown}: {error.args[0]}", error.hint
            ) from error
        _check_frames(self.target, replica, frames, xyz, self.frame_hash[rows])
        return xyz


def labels_by_target(labels: EnergyLabels) -> dict[str, EnergyLabels]:
    """Return each target's labels in one pass; `for_target` reads all labels for each.

    Args:
        labels: Labels, in any order.
    """
    names, which = np.unique(labels.target, return_inverse=True)
    order = np.argsort(which, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(which))[:-1])
    return {str(name): labels.select(part) for name, part in zip(names, parts, strict=True)}


def load_conformers(
    target: Target,
    protein: ProteinFeatures,
    labels: EnergyLabels,
    replicas: Sequence[int] | None = None,
) -> Conformers:
    """Load the frames of a target that have a usable label.

    Args:
        target: The target, which knows its trajectories.
        protein: Features of the protein, which give the order of atoms.
        labels: Energies; rows whose status is not `ok` are left out.
        replicas: Numbers of the replicas to take; all when None.

    Raises:
        UserError: No label, labels of a replica that is not there, or atoms that do not match.
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
    rows = rows.select(keep)
    if missing := set(rows.replica.tolist()) - set(target.trajectory_paths):
        raise UserError(
            f"target {target.name}: labels name replica {min(missing)}, the folder has "
            f"{list(target.trajectory_paths)}",
            "use the labels of these trajectories",
        )
    return Conformers(
        protein,
        target,
        match_atoms(target, protein),
        torch.from_numpy(rows.energy_kj_mol),
        torch.from_numpy(rows.replica),
        torch.from_numpy(rows.frame),
        rows.frame_hash,
    )


def within_deviations(energy_kj_mol: Tensor, n_deviations: float) -> Tensor:
    """Tell which energies belong to their distribution, by the modified z-score.

    |E - median| / (1.4826 MAD), MAD being the median of |E - median| (Iglewicz and Hoaglin, How to
    Detect and Handle Outliers, 1993, who advise 3.5).

    Args:
        energy_kj_mol: `[F]` float64.
        n_deviations: Largest score; 0 keeps all.

    Returns:
        `[F]` bool; all true for fewer than 20 energies, or if most are equal.
    """
    distance, spread = robust_distances(energy_kj_mol.numpy())
    if n_deviations == 0 or len(distance) < SMALLEST_SAMPLE or spread == 0:
        return torch.ones(len(distance), dtype=torch.bool)
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
    """Return each Protenix atom's column in the trajectory, -1 where it is absent.

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
    topology = load_topology(target)
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
