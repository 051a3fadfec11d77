"""Checks of a conformation: is it usable before minimisation, is it sound after it?"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import mdtraj
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from protenix_eba.core.units import ANGSTROM_PER_NM
from protenix_eba.protein.residue_names import standard_residue
from protenix_eba.protein.stereo import CENTRE, is_inverted
from protenix_eba.protein.validity import MAX_PEPTIDE_BOND

__all__ = [
    "Geometry",
    "absurd_energy",
    "absurd_force",
    "moved_angstrom",
    "moved_bond",
    "problem_after",
    "problem_before",
    "torn_bond",
]

_MAX_PEPTIDE_BOND_NM: Final = MAX_PEPTIDE_BOND / ANGSTROM_PER_NM
_MIN_DISTANCE_NM: Final = 0.01
# Every bond stretched by a fifth of its length costs about 200 kJ/mol for each atom. Hydrogens that
# are built may clash, and so may a model's atoms before they are minimised.
_MAX_KJ_MOL_PER_ATOM: Final = 1e3
_MAX_WITH_CLASHES_KJ_MOL_PER_ATOM: Final = 1e6
# Forces in MD at 300 K are up to 5e3 kJ/mol/nm. The four bonds of an atom, each stretched by a
# fifth of its length, pull by less than this together; an overlap of two atoms pushes by more.
_MAX_FORCE_KJ_MOL_NM: Final = 1e5
# To stretch a bond so far costs 150 kT.
_MAX_BOND_MOVE_NM: Final = 0.05
# The longest bond of a protein, a disulfide's, has 2.05 angstrom.
_MAX_BOND_NM: Final = 0.25


class Geometry(NamedTuple):
    """The bonds, angles and hands that every conformation of one topology is checked for.

    Attributes:
        peptide_bonds: `[B, 2]` indices of the bonded C and N of consecutive residues.
        centres: `[C, 4]` indices of N, C, CB and CA of each residue that has a CB.
        residues: `[C]` their names, "ALA 5".
        bonds: `[E, 2]` indices of all bonded pairs.
        atoms: `[M]` names, "ALA 5 CB".
    """

    peptide_bonds: NDArray[np.int64]
    centres: NDArray[np.int64]
    residues: list[str]
    bonds: NDArray[np.int64]
    atoms: list[str]

    @classmethod
    def of(cls, topology: Any) -> Geometry:
        """Derive what is checked from an openmm.app.Topology."""
        centres, names = [], []
        for residue in topology.residues():
            atoms = {atom.name: atom.index for atom in residue.atoms()}
            # The hand of a modified residue is its own.
            if atoms.keys() >= set(CENTRE) and standard_residue(residue.name):
                centres.append([atoms[name] for name in CENTRE])
                names.append(f"{residue.name} {residue.id}")
        shape = np.array(centres, dtype=np.int64).reshape(-1, 4)
        bonds = [(first.index, second.index) for first, second in topology.bonds()]
        labels = [f"{a.residue.name} {a.residue.id} {a.name}" for a in topology.atoms()]
        pairs = np.array(bonds, dtype=np.int64).reshape(-1, 2)
        return cls(_peptide_bonds(topology), shape, names, pairs, labels)


def _peptide_bonds(topology: Any) -> NDArray[np.int64]:
    pairs = [
        (first.index, second.index)
        for first, second in topology.bonds()
        if {first.name, second.name} == {"C", "N"} and first.residue is not second.residue
    ]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def problem_before(xyz_nm: NDArray[np.floating], geometry: Geometry, *, generated: bool) -> str:
    """Return why coordinates `[M, 3]` have no meaningful energy; empty when they have.

    Args:
        xyz_nm: Coordinates of all M atoms.
        geometry: Bonds and other geometry of the topology.
        generated: A model made them: stretched peptide bonds and inverted residues are its own.
    """
    if not np.isfinite(xyz_nm).all():
        return "coordinates are not finite"
    if cKDTree(xyz_nm).query_pairs(_MIN_DISTANCE_NM):
        return "two atoms in one place"
    return "" if generated else _unlike_md(xyz_nm, geometry)


def _unlike_md(xyz_nm: NDArray[np.floating], geometry: Geometry) -> str:
    first, second = geometry.peptide_bonds.T
    gaps = np.linalg.norm(xyz_nm[first] - xyz_nm[second], axis=1)
    if (gaps > _MAX_PEPTIDE_BOND_NM).any():
        return f"C-N distance of {gaps.max() * ANGSTROM_PER_NM:.1f} angstrom in the backbone"
    inverted = is_inverted(xyz_nm, geometry.centres)
    if inverted.any():
        found = [geometry.residues[i] for i in np.flatnonzero(inverted)]
        return f"{', '.join(found[:3])} {'is' if len(found) == 1 else 'are'} not L"
    return ""


def problem_after(initial_kj_mol: float, final_kj_mol: float, xyz_nm: NDArray[np.floating]) -> str:
    """Return why a minimisation that ended here has failed; empty when it has not."""
    if not math.isfinite(final_kj_mol) or not np.isfinite(xyz_nm).all():
        return "minimised energy is not finite"
    if final_kj_mol > initial_kj_mol:
        return f"minimisation raised the energy by {final_kj_mol - initial_kj_mol:.1f} kJ/mol"
    return ""


def absurd_energy(energy_kj_mol: float, n_atoms: int, *, clashes: bool) -> str:
    """Return why no conformation of a molecule has this energy; empty where one may.

    Args:
        energy_kj_mol: Energy of the conformation.
        n_atoms: M.
        clashes: Whether built hydrogens or a model's atoms may overlap in it.
    """
    limit = _MAX_WITH_CLASHES_KJ_MOL_PER_ATOM if clashes else _MAX_KJ_MOL_PER_ATOM
    per_atom = energy_kj_mol / n_atoms
    if per_atom <= limit:
        return ""
    return (
        f"{per_atom:.3g} kJ/mol for each atom, more than bonds can explain ({limit:.0g}): the "
        "topology does not fit the coordinates"
    )


def absurd_force(force_kj_mol_nm: float, atom: str) -> str:
    """Return why no conformation has this largest force; empty where one may.

    Args:
        force_kj_mol_nm: On one atom.
        atom: Its name, "ALA 5 CB".
    """
    if force_kj_mol_nm <= _MAX_FORCE_KJ_MOL_NM:
        return ""
    return (
        f"a force of {force_kj_mol_nm:.3g} kJ/mol/nm on {atom}, more than bonds can explain "
        f"({_MAX_FORCE_KJ_MOL_NM:.0g}): atoms overlap, or the topology does not fit"
    )


def moved_bond(
    before_nm: NDArray[np.floating], after_nm: NDArray[np.floating], geometry: Geometry
) -> str:
    """Describe the bond that a minimisation changed too much for MD; empty where none is.

    Args:
        before_nm: `[M, 3]` coordinates of MD.
        after_nm: `[M, 3]` the minimised ones.
        geometry: Bonds and other geometry of the topology.
    """
    first, second = geometry.bonds.T
    length = [np.linalg.norm(xyz[first] - xyz[second], axis=1) for xyz in (before_nm, after_nm)]
    moved = np.abs(length[1] - length[0])
    if not len(moved) or moved.max() <= _MAX_BOND_MOVE_NM:
        return ""
    worst = int(moved.argmax())
    ends = " - ".join(geometry.atoms[i] for i in geometry.bonds[worst])
    long = [one[worst] * ANGSTROM_PER_NM for one in length]
    return f"the minimisation moved the bond {ends} from {long[0]:.2f} to {long[1]:.2f} angstrom"


def torn_bond(xyz_nm: NDArray[np.floating], geometry: Geometry) -> str:
    """Describe the longest bond of minimised coordinates `[M, 3]` if it is torn; else empty."""
    first, second = geometry.bonds.T
    length = np.linalg.norm(xyz_nm[first] - xyz_nm[second], axis=1)
    if not len(length) or length.max() <= _MAX_BOND_NM:
        return ""
    one, other = (geometry.atoms[i] for i in geometry.bonds[int(length.argmax())])
    long = length.max() * ANGSTROM_PER_NM
    return f"the bond {one} - {other} is {long:.1f} angstrom long after minimisation"


def moved_angstrom(before_nm: NDArray[np.floating], after_nm: NDArray[np.floating]) -> float:
    """Return the all-atom RMSD of two conformations `[M, 3]` after superposition."""
    before, after = (
        mdtraj.Trajectory(np.asarray(xyz, dtype=np.float32)[None], None)
        for xyz in (before_nm, after_nm)
    )
    return float(mdtraj.rmsd(after, before)[0] * ANGSTROM_PER_NM)
