"""Covalent bonds that a chain's sequence does not show: rings, bridges and branches.

A sequence implies peptide bonds between neighbours and nothing else. What else is bonded is told by
the file, or seen from distances: in a conformation no two heavy atoms that are not bonded come so
close.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

__all__ = ["Atom", "CrossBond", "Kind", "cross_bonds", "is_bond", "kind_of"]

Kind = Literal["head to tail", "disulfide", "other"]

# Shortest and longest covalent bond of two elements, angstrom: single, double and strained ones,
# as they vibrate in MD at 300 K.
_LENGTHS: Final = {
    frozenset("C"): (1.2, 1.75),
    frozenset("CN"): (1.1, 1.65),
    frozenset("CO"): (1.05, 1.6),
    frozenset("CS"): (1.6, 2.05),
    frozenset("S"): (1.8, 2.4),
    frozenset("NO"): (1.1, 1.6),
    frozenset("N"): (1.1, 1.6),
    frozenset("NS"): (1.4, 1.85),
    frozenset("OS"): (1.35, 1.8),
    frozenset("O"): (1.2, 1.6),
}
_LONGEST: Final = max(longest for _, longest in _LENGTHS.values())


@dataclass(frozen=True)
class Atom:
    """The properties of one atom that decide on its bonds.

    Attributes:
        name: PDB name.
        element: Symbol.
        residue: Index of its residue in the whole structure.
        chain: Index of its chain.
        label: Name for messages, "A LYS 2 NZ".
    """

    name: str
    element: str
    residue: int
    chain: int
    label: str


@dataclass(frozen=True)
class CrossBond:
    """A covalent bond of two residues that is no peptide bond of neighbours.

    Attributes:
        first: Index of one atom.
        second: Index of the other atom, larger than the first.
        kind: "head to tail" for a chain's own C and N; what is "other" has no name here.
        length: Length in angstrom.
        label: Name for messages, "A LYS 2 NZ - A ASP 6 CG".
    """

    first: int
    second: int
    kind: Kind
    length: float
    label: str

    def __str__(self) -> str:
        return f"{self.label} ({self.length:.2f} angstrom)"


def cross_bonds(
    atoms: Sequence[Atom], xyz: NDArray[np.floating], bonds: Iterable[tuple[int, int]]
) -> list[CrossBond]:
    """Find bonds between different residues, without those of neighbours' backbones.

    Known bonds are among them, however long they are. Two other heavy atoms make a bond where they
    are as near as one and both have a valence left for it: a model's clash is none.

    Args:
        atoms: All N atoms in their order, the residues of a chain one after the other.
        xyz: `[N, 3]` in angstrom, made whole.
        bonds: Pairs of indices that are known to be bonded, those to hydrogens among them.
    """
    bonds = [(min(pair), max(pair)) for pair in bonds]
    ends = _chain_ends(atoms)
    found = []
    for first, second in sorted({*bonds, *_near(atoms, xyz, _partners(bonds))}):
        one, other = atoms[first], atoms[second]
        if one.residue != other.residue and not _peptide(one, other):
            length = float(np.linalg.norm(xyz[first] - xyz[second]))
            label = f"{one.label} - {other.label}"
            found.append(CrossBond(first, second, kind_of(one, other, ends), length, label))
    return found


def _near(
    atoms: Sequence[Atom], xyz: NDArray[np.floating], partners: dict[int, set[int]]
) -> Iterator[tuple[int, int]]:
    """Find heavy atoms of different residues at bonding distance that both have a valence left."""
    heavy = np.array([i for i, a in enumerate(atoms) if a.element != "H"], dtype=np.int64)
    if len(heavy) < 2 or not np.isfinite(xyz[heavy]).all():
        return
    for i, j in cKDTree(xyz[heavy]).query_pairs(_LONGEST, output_type="ndarray"):
        first, second = sorted((int(heavy[i]), int(heavy[j])))
        one, other = atoms[first], atoms[second]
        length = float(np.linalg.norm(xyz[first] - xyz[second]))
        if one.residue == other.residue or not is_bond(one, other, length):
            continue
        if not (
            _is_full(first, second, atoms, partners) or _is_full(second, first, atoms, partners)
        ):
            yield first, second


def is_bond(one: Atom, other: Atom, length: float) -> bool:
    """Return whether two heavy atoms `length` angstrom apart are as near as a covalent bond."""
    low, high = _LENGTHS.get(frozenset((one.element, other.element)), (0.0, 0.0))
    return low <= length <= high


def _partners(bonds: Iterable[tuple[int, int]]) -> dict[int, set[int]]:
    partners: dict[int, set[int]] = {}
    for first, second in bonds:
        partners.setdefault(first, set()).add(second)
        partners.setdefault(second, set()).add(first)
    return partners


def _is_full(atom: int, other: int, atoms: Sequence[Atom], partners: dict[int, set[int]]) -> bool:
    """Return whether an atom has all its neighbours without the other one."""
    mine = partners.get(atom, set()) - {other}
    element = atoms[atom].element
    limit = {"C": 4, "N": 3, "O": 2, "S": 2}.get(element, 1)
    # The carbon of a carbonyl has three neighbours, its oxygens but the hydroxyl's have one.
    oxygens = [i for i in mine if atoms[i].element == "O" and len(partners.get(i, ())) == 1]
    if element == "C" and oxygens:
        limit = 3
    return len(mine) >= limit


def kind_of(one: Atom, other: Atom, ends: set[tuple[int, int]]) -> Kind:
    """Classify a bond; `ends` are the first and the last residue of each chain."""
    if one.name == other.name == "SG":
        return "disulfide"
    whole = (one.residue, other.residue) in ends and one.chain == other.chain
    return "head to tail" if whole and (one.name, other.name) == ("N", "C") else "other"


def _peptide(one: Atom, other: Atom) -> bool:
    """Return whether two atoms are of neighbours in a chain, which share a peptide bond."""
    neighbours = one.chain == other.chain and other.residue == one.residue + 1
    return neighbours and (one.name, other.name) == ("C", "N")


def _chain_ends(atoms: Sequence[Atom]) -> set[tuple[int, int]]:
    residues: dict[int, list[int]] = {}
    for atom in atoms:
        residues.setdefault(atom.chain, []).append(atom.residue)
    return {(min(found), max(found)) for found in residues.values()}
