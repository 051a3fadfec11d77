"""Bonds between residues that the topology of an MD program states."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import mdtraj
import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.protein.residue_names import CAPS, WATER
from protenix_eba.structures.models import CIF_SUFFIXES, PDB_SUFFIXES
from protenix_eba.structures.stated_bonds import StatedBonds, stated_bonds

__all__ = ["bonds_of_protein"]

_MdAtom: TypeAlias = mdtraj.core.topology.Atom


def bonds_of_protein(
    path: Path,
    topology: mdtraj.Topology,
    residues: Sequence[Sequence[_MdAtom]],
    columns: Sequence[int],
) -> NDArray[np.int64]:
    """Return bonds between the protein's residues, from PDB, mmCIF, PSF and mdtraj's HDF5.

    Args:
        path: Of the file.
        topology: As mdtraj reads it.
        residues: The atoms of each of its residues.
        columns: Indices of the protein's atoms.

    Returns:
        `[B, 2]` places in `columns`, the smaller one first.

    Raises:
        UserError: A bond of the protein and another molecule than water or a cap, or bonds of
            atoms that cannot be told apart.
    """
    place = {column: i for i, column in enumerate(columns)}
    kept = []
    for pair in _stated(path, topology, residues):
        inside = [index in place for index in pair]
        if all(inside):
            kept.append(sorted(place[index] for index in pair))
            continue
        outside = topology.atom(pair[inside.index(False)]).residue.name
        if any(inside) and outside not in CAPS | WATER:
            names = " - ".join(_label(topology.atom(index)) for index in pair)
            raise UserError(
                f"{path.name}: the covalent bond {names} cannot be expressed by a sequence",
                "leave this protein out, or remove the bond from the file if there is none",
            )
    return np.array(kept, dtype=np.int64).reshape(-1, 2)


def _stated(
    path: Path, topology: mdtraj.Topology, residues: Sequence[Sequence[_MdAtom]]
) -> tuple[tuple[int, int], ...]:
    suffix = path.suffix.lower()
    if suffix in (*PDB_SUFFIXES, *CIF_SUFFIXES):
        found = stated_bonds(path)
    else:
        number = {atom.index: i for i, members in enumerate(residues) for atom in members}
        pairs = [(one.index, other.index) for one, other in topology.bonds
                 if suffix == ".psf" or not _is_guess(one, other)]  # fmt: skip
        found = StatedBonds.of([number[index] for index in range(topology.n_atoms)], pairs)
    if found.pairs and found.n_atoms != topology.n_atoms:
        raise UserError(
            f"{path.name}: its bonds are of {found.n_atoms} atoms, of which {topology.n_atoms} "
            "have a name of their own",
            "give every atom of a residue a name of its own",
        )
    return found.pairs


def _is_guess(one: _MdAtom, other: _MdAtom) -> bool:
    """Tell whether mdtraj adds such a bond itself, also over a gap, before it writes HDF5."""
    neighbours = abs(one.residue.index - other.residue.index) == 1
    return {one.name, other.name} in ({"SG"}, {"C", "N"} if neighbours else {"SG"})


def _label(atom: _MdAtom) -> str:
    return f"{atom.residue.name} {atom.residue.resSeq} {atom.name}"
