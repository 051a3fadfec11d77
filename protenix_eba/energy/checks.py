"""What makes a conformation unusable before its minimisation, and suspicious after it."""

from __future__ import annotations

import math
from typing import Any, Final

import mdtraj
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from protenix_eba.units import ANGSTROM_PER_NM

__all__ = ["moved_angstrom", "peptide_bonds", "problem_after", "problem_before"]

_MAX_PEPTIDE_BOND_NM: Final = 0.2
_MIN_DISTANCE_NM: Final = 0.01


def peptide_bonds(topology: Any) -> NDArray[np.int64]:
    """`[B, 2]` indices of the bonded C and N of consecutive residues."""
    pairs = [
        (first.index, second.index)
        for first, second in topology.bonds()
        if {first.name, second.name} == {"C", "N"} and first.residue is not second.residue
    ]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def problem_before(
    xyz_nm: NDArray[np.floating], bonds: NDArray[np.int64], *, generated: bool
) -> str:
    """Why these coordinates `[M, 3]` have no meaningful energy; empty when they have.

    Args:
        xyz_nm: Of all atoms.
        bonds: From `peptide_bonds`.
        generated: A model made them: stretched peptide bonds are its own and count.
    """
    if not np.isfinite(xyz_nm).all():
        return "coordinates are not finite"
    gaps = np.linalg.norm(xyz_nm[bonds[:, 0]] - xyz_nm[bonds[:, 1]], axis=1)
    if not generated and (gaps > _MAX_PEPTIDE_BOND_NM).any():
        return f"C-N distance of {gaps.max() * ANGSTROM_PER_NM:.1f} angstrom in the backbone"
    if cKDTree(xyz_nm).query_pairs(_MIN_DISTANCE_NM):
        return "two atoms in one place"
    return ""


def problem_after(initial_kj_mol: float, final_kj_mol: float, xyz_nm: NDArray[np.floating]) -> str:
    """Why a minimisation that ended here has failed; empty when it has not."""
    if not math.isfinite(final_kj_mol) or not np.isfinite(xyz_nm).all():
        return "minimised energy is not finite"
    if final_kj_mol > initial_kj_mol:
        return f"minimisation raised the energy by {final_kj_mol - initial_kj_mol:.1f} kJ/mol"
    return ""


def moved_angstrom(before_nm: NDArray[np.floating], after_nm: NDArray[np.floating]) -> float:
    """All-atom RMSD of two conformations `[M, 3]` after superposition."""
    before, after = (
        mdtraj.Trajectory(np.asarray(xyz, dtype=np.float32)[None], None)
        for xyz in (before_nm, after_nm)
    )
    return float(mdtraj.rmsd(after, before)[0] * ANGSTROM_PER_NM)
