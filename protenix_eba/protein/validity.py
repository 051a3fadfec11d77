"""Checks that conformations could be a protein's: whole chains, L-amino acids, no clashes.

Limits: chain breaks at the distances of BioEmu's filter (Lewis et al., Science 2025,
`filter_unphysical_samples`): C-N above 2.0, CA-CA above 4.5 angstrom. Clashes below 2.0 angstrom:
in MD of a globular protein and of peptides (426 frames, explicit water) no two heavy atoms of
residues that are not bonded came nearer than 2.2, and no bond is shorter than half of that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from protenix_eba.protein.stereo import CENTRE, is_inverted

__all__ = ["MAX_PEPTIDE_BOND", "Checker", "Validity"]

Floats = NDArray[np.floating]
Integers = NDArray[np.int64]

MAX_PEPTIDE_BOND: Final = 2.0
MAX_CA_CA: Final = 4.5
MIN_CONTACT: Final = 2.0
# Engh and Huber, Acta Cryst. A 1991, Table 3: the most frequent class of each, in angstrom.
PEPTIDE_BOND: Final = 1.329
BACKBONE: Final = {("N", "CA"): 1.458, ("CA", "C"): 1.525, ("C", "O"): 1.231, ("CA", "CB"): 1.530}
# Ten of their standard deviations (0.02 angstrom); MD at 300 K spreads bonds by 0.03.
MAX_STRETCH: Final = 0.2

# Engh and Huber, International Tables for Crystallography F (2001), section 18.3: the most frequent
# class of each, in degrees. An atom of the next residue has a plus.
ANGLES: Final = {
    ("N", "CA", "C"): 111.0,
    ("CA", "C", "O"): 120.1,
    ("CA", "C", "+N"): 117.2,
    ("O", "C", "+N"): 122.7,
    ("C", "+N", "+CA"): 121.7,
}
# Six or more of their standard deviations (1.6 to 2.7 degrees). MD at 300 K spreads them by 2.7 to
# 4.2 degrees: two angles of 10,000 of small peptides are as far off, none is 20 degrees.
MAX_BEND: Final = 15.0

MAX_COORDINATE: Final = 1e4
NOT_FINITE: Final = "coordinates that are not finite, or beyond 10,000 angstrom"
KINDS: Final = ("chain break", "D-amino acid", "clash")


@dataclass(frozen=True)
class Validity:
    """The faults of each of F conformations.

    Attributes:
        finite: `[F]` all coordinates are numbers that a file can hold; the counts of others are 0.
        chain_breaks: `[F]` neighbours in the chain that are too far apart.
        d_residues: `[F]` residues that are not L.
        clashes: `[F]` pairs of heavy atoms of residues that are not bonded, too near each other.
        bond_outliers: `[F]` share of the backbone's bonds (with CA-CB) that are 0.2 angstrom or
            more from their standard length. For information: no reason to call one invalid.
        angle_outliers: `[F]` share of the backbone's bond angles that are 15 degrees or more from
            their standard value. For information as well.
    """

    finite: NDArray[np.bool_]
    chain_breaks: Integers
    d_residues: Integers
    clashes: Integers
    bond_outliers: NDArray[np.float64]
    angle_outliers: NDArray[np.float64]

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Whether nothing is wrong with each conformation, `[F]`."""
        wrong = self.chain_breaks + self.d_residues + self.clashes
        return np.asarray(self.finite & (wrong == 0))

    def reasons(self) -> list[str]:
        """Say what makes each conformation invalid, "chain break: 2; clash: 1"; else empty."""
        counts = zip(self.finite, self.chain_breaks, self.d_residues, self.clashes, strict=True)
        return [
            "; ".join(_counted(breaks, inverted, clashes)) if finite else NOT_FINITE
            for finite, breaks, inverted, clashes in counts
        ]


def _counted(*counts: int) -> Iterator[str]:
    for kind, count in zip(KINDS, counts, strict=True):
        if count:
            yield f"{kind}: {count}"


@dataclass(frozen=True)
class Checker:
    """Checks conformations of one topology.

    Attributes:
        n_atoms: N.
        peptide_bonds: `[P, 2]` C and N of neighbours in a chain.
        alpha_carbons: `[Q, 2]` their CA.
        centres: `[C, 4]` atoms of `stereo.CENTRE` of each residue that has a CB.
        bonds: `[B, 2]` bonds of the backbone, with CA-CB.
        bond_lengths: `[B]` their standard lengths, angstrom.
        angles: `[A, 3]` bond angles of the backbone, the vertex in the middle.
        angle_degrees: `[A]` their standard values.
        heavy: `[H]` heavy atoms of residues that have a CA.
        place: `[N]` the residue of each atom, in numbers that follow each other along a chain only.
        sulfur: `[N]` whether the atom is the SG of a cysteine, which may be bonded to another.
    """

    n_atoms: int
    peptide_bonds: Integers
    alpha_carbons: Integers
    centres: Integers
    bonds: Integers
    bond_lengths: NDArray[np.float64]
    angles: Integers
    angle_degrees: NDArray[np.float64]
    heavy: Integers
    place: Integers
    sulfur: NDArray[np.bool_]

    @classmethod
    def of(cls, topology: Any) -> Checker:
        """Make a checker of an `mdtraj.Topology`; a jump in residue numbers is taken for a gap."""
        place, numbers, before = 0, [], None
        for residue in topology.residues:
            if before is not None:
                same = residue.chain.index == before.chain.index
                place += 2 if same and residue.resSeq - before.resSeq > 1 else 1
            numbers += [place] * residue.n_atoms
            before = residue
        atoms = list(topology.atoms)
        return cls.of_arrays(
            [atom.name for atom in atoms],
            np.array(numbers, dtype=np.int64),
            [atom.residue.name for atom in atoms],
            np.array([atom.residue.chain.index for atom in atoms], dtype=np.int64),
        )

    @classmethod
    def of_arrays(
        cls,
        atom_names: Sequence[str],
        residue_index: Integers,
        residue_names: Sequence[str],
        chain_index: Integers,
    ) -> Checker:
        """Make a checker of plain arrays; every residue with a CA is taken for an amino acid.

        Args:
            atom_names: `[N]` PDB names.
            residue_index: `[N]` a number for each residue; residues of one chain whose numbers
                follow each other are bonded.
            residue_names: `[N]` three letters; glycines have no hand even where they have a "CB".
            chain_index: `[N]`.
        """
        place = _places(np.asarray(chain_index), np.asarray(residue_index))
        atoms: dict[int, dict[str, int]] = {}
        for number, (where, name) in enumerate(zip(place.tolist(), atom_names, strict=True)):
            atoms.setdefault(where, {})[name] = number
        protein = {
            where: named
            for where, named in atoms.items()
            if "CA" in named and residue_names[named["CA"]] != "CA"  # calcium
        }
        bonds, angles = _backbone_bonds(protein), _backbone_angles(protein)
        centres = [
            [named[name] for name in CENTRE]
            for named in protein.values()
            if named.keys() >= set(CENTRE) and residue_names[named["CA"]] != "GLY"
        ]
        return cls(
            n_atoms=len(atom_names),
            peptide_bonds=_pairs(_neighbours(protein, "C", "N")),
            alpha_carbons=_pairs(_neighbours(protein, "CA", "CA")),
            centres=np.array(centres, dtype=np.int64).reshape(-1, 4),
            bonds=_pairs(bonds),
            bond_lengths=np.array(list(bonds.values()), dtype=np.float64),
            angles=np.array(list(angles), dtype=np.int64).reshape(-1, 3),
            angle_degrees=np.array(list(angles.values()), dtype=np.float64),
            heavy=np.array(
                [n for n, w in enumerate(place.tolist()) if w in protein and _heavy(atom_names[n])],
                dtype=np.int64,
            ),
            place=place,
            sulfur=np.array([name == "SG" for name in atom_names]),
        )

    def check(self, xyz: Floats) -> Validity:
        """Check conformations.

        Args:
            xyz: `[F, N, 3]` in angstrom.

        Raises:
            ValueError: Another number of atoms.
        """
        if xyz.ndim != 3 or xyz.shape[1:] != (self.n_atoms, 3):
            raise ValueError(f"expected [F, {self.n_atoms}, 3], got {xyz.shape}")
        finite = np.all(abs(xyz) < MAX_COORDINATE, axis=(1, 2))  # False for NaN
        counts = np.zeros((3, len(xyz)), dtype=np.int64)
        outliers = np.zeros((2, len(xyz)))
        sound = np.asarray(xyz[finite], dtype=np.float64)
        counts[:, finite] = self._breaks(sound), self._inverted(sound), self._clashes(sound)
        if len(self.bonds):
            stretch = _distances(sound, self.bonds) - self.bond_lengths
            outliers[0, finite] = (abs(stretch) >= MAX_STRETCH).mean(axis=1)
        if len(self.angles):
            bend = _degrees(sound, self.angles) - self.angle_degrees
            outliers[1, finite] = (abs(bend) >= MAX_BEND).mean(axis=1)
        return Validity(finite, *counts, *outliers)

    def _breaks(self, xyz: Floats) -> Integers:
        """Count broken pairs of neighbours, `[F]`; a pair that breaks both limits counts once."""
        far = np.zeros((len(xyz), self.n_atoms), dtype=bool)  # by the first one's C-alpha, or C
        far[:, self.alpha_carbons[:, 0]] = _distances(xyz, self.alpha_carbons) > MAX_CA_CA
        too_long = _distances(xyz, self.peptide_bonds) > MAX_PEPTIDE_BOND
        firsts = self.alpha_carbons[:, 0]
        owner = dict(zip(self.place[firsts].tolist(), firsts.tolist(), strict=True))
        columns = [owner[where] for where in self.place[self.peptide_bonds[:, 0]].tolist()]
        far[:, columns] |= too_long
        return np.asarray(far.sum(axis=1))

    def _inverted(self, xyz: Floats) -> Integers:
        """Count inverted residues, `[F]`, all frames at once as if they were one molecule."""
        offsets = self.n_atoms * np.arange(len(xyz))[:, None, None]
        centres = (self.centres + offsets).reshape(-1, 4)
        found = is_inverted(xyz.reshape(-1, 3), centres)
        return np.asarray(found.reshape(len(xyz), len(self.centres)).sum(axis=1))

    def _clashes(self, xyz: Floats) -> Integers:
        return np.array([self._clashes_of(one) for one in xyz], dtype=np.int64)

    def _clashes_of(self, xyz: Floats) -> int:
        pairs = cKDTree(xyz[self.heavy]).query_pairs(MIN_CONTACT, output_type="ndarray")
        first, second = self.heavy[pairs].T
        apart = abs(self.place[first] - self.place[second]) > 1
        return int((apart & ~(self.sulfur[first] & self.sulfur[second])).sum())


def _places(chain_index: Integers, residue_index: Integers) -> Integers:
    """Return numbers of residues, `[N]`, consecutive only where residues are bonded."""
    keys, inverse = np.unique(
        np.stack([chain_index, residue_index], axis=1), axis=0, return_inverse=True
    )
    bonded = (np.diff(keys[:, 0]) == 0) & (np.diff(keys[:, 1]) == 1)
    steps = np.where(bonded, 1, 2)
    return np.concatenate([[0], np.cumsum(steps)])[inverse.ravel()].astype(np.int64)


def _heavy(name: str) -> bool:
    return not name.lstrip("0123456789").startswith("H")


def _neighbours(
    protein: dict[int, dict[str, int]], of_first: str, of_second: str
) -> Iterator[tuple[int, int]]:
    """Yield an atom of each residue and one of the next, where both exist."""
    for where, named in protein.items():
        following = protein.get(where + 1, {})
        if of_first in named and of_second in following:
            yield named[of_first], following[of_second]


def _backbone_bonds(protein: dict[int, dict[str, int]]) -> dict[tuple[int, int], float]:
    bonds = dict.fromkeys(_neighbours(protein, "C", "N"), PEPTIDE_BOND)
    for named in protein.values():
        for (first, second), length in BACKBONE.items():
            if first in named and second in named:
                bonds[named[first], named[second]] = length
    return bonds


def _backbone_angles(protein: dict[int, dict[str, int]]) -> dict[tuple[int, ...], float]:
    angles = {}
    for where, named in protein.items():
        near = named | {f"+{name}": atom for name, atom in protein.get(where + 1, {}).items()}
        for names, degrees in ANGLES.items():
            if near.keys() >= set(names):
                angles[tuple(near[name] for name in names)] = degrees
    return angles


def _pairs(pairs: Any) -> Integers:
    return np.array(list(pairs), dtype=np.int64).reshape(-1, 2)


def _distances(xyz: Floats, pairs: Integers) -> NDArray[np.float64]:
    """Return distances `[F, P]` in angstrom."""
    return np.asarray(np.linalg.norm(xyz[:, pairs[:, 0]] - xyz[:, pairs[:, 1]], axis=-1))


def _degrees(xyz: Floats, angles: Integers) -> NDArray[np.float64]:
    """Return angles `[F, A]` in degrees; 90 where two atoms of an angle coincide."""
    arms = [xyz[:, angles[:, end]] - xyz[:, angles[:, 1]] for end in (0, 2)]
    lengths = np.linalg.norm(arms[0], axis=-1) * np.linalg.norm(arms[1], axis=-1)
    products = np.einsum("fak,fak->fa", *arms)
    cosines = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0.0)
    return np.asarray(np.degrees(np.arccos(cosines.clip(-1.0, 1.0))))
