"""The one complete topology that all frames of a target share, made from its PDB file.

PDBFixer chooses histidine tautomers by the hydrogen bonds of the structure that it sees, and a
flip costs about 70 kJ/mol. So protonation and disulfides are chosen once, on the reference
structure, and the atoms that a frame lacks are put where the reference has them relative to
their neighbours: no random numbers, no second opinion.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import fingerprint
from protenix_eba.core.units import ANGSTROM_PER_NM
from protenix_eba.energy.caps import places
from protenix_eba.energy.prepare import CAPS_LEFT_OUT, complete, open_structure
from protenix_eba.energy.protonation_choice import FROM_FRAMES, Protonation
from protenix_eba.protein.residue_names import CAP_ATOMS

__all__ = ["CompleteStructure", "atom_keys", "complete_structure", "topology_hash"]

_IMPORT_RECORD = "import.json"
_BACKBONE = frozenset({"N", "CA", "C"})
_FREE_ENDS = frozenset({"OXT", "HXT", "H1", "H2", "H3"})
# A structure with fewer of its heavy atoms than this is a trace, not a conformation.
_MAX_BUILT_FRACTION = 0.05


@dataclass(frozen=True, eq=False)
class CompleteStructure:
    """A topology with all atoms that the force field wants; it fills frames of the file's atoms.

    Two are equal that have the same atoms at the same places and are filled from frames alike,
    also in another process.

    Attributes:
        topology: openmm.app.Topology, M atoms.
        reference_nm: `[M, 3]` reference positions, nm.
        source: `[M]` index of each atom in the input file; -1 where the file lacks it.
        input_atoms: N, atoms of the input file.
        topology_hash: Fingerprint of residues, atom names and bonds.
        notes: What the energies do not see of the file, for people.
    """

    topology: Any
    reference_nm: NDArray[np.float64]
    source: NDArray[np.int64]
    input_atoms: int
    topology_hash: str
    notes: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CompleteStructure) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[str, bytes, bytes, int]:
        places, source = self.reference_nm.tobytes(), self.source.tobytes()
        return self.topology_hash, places, source, self.input_atoms

    @property
    def n_residues(self) -> int:
        """Return the number of amino acids in the complete topology, modified ones included."""
        names = ({atom.name for atom in residue.atoms()} for residue in self.topology.residues())
        return sum(found >= _BACKBONE for found in names)

    @property
    def built_fraction(self) -> float:
        """Return the fraction of the atoms, hydrogens included, that the input file lacks."""
        return float(np.mean(self.source < 0))

    def undisturbed(self) -> NDArray[np.bool_]:
        """Return a mask `[M]` of atoms that no bond, angle or torsion joins to an added one."""
        near = self.source < 0
        bonds = [(first.index, second.index) for first, second in self.topology.bonds()]
        pairs = np.array(bonds, dtype=np.int64).reshape(-1, 2)
        for _ in range(3):
            reached = pairs[near[pairs].any(axis=1)]
            near = near.copy()
            near[reached] = True
        return ~near

    def fill(self, xyz_angstrom: NDArray[np.floating]) -> NDArray[np.float64]:
        """Complete frames to every atom.

        Args:
            xyz_angstrom: `[F, N, 3]` in the input file's atom order, angstrom.

        Returns:
            `[F, M, 3]` in nm; atoms that the input lacks stand in the reference's local geometry.

        Raises:
            ValueError: Another number of atoms.
        """
        xyz_nm = np.asarray(xyz_angstrom, dtype=np.float64) / ANGSTROM_PER_NM
        if xyz_nm.shape[1:] != (self.input_atoms, 3):
            raise ValueError(f"expected [F, {self.input_atoms}, 3], got {xyz_nm.shape}")
        full = np.full((len(xyz_nm), len(self.source), 3), np.nan)
        present = self.source >= 0
        full[:, present] = xyz_nm[:, self.source[present]]
        finite = np.isfinite(full[:, present]).all(axis=(1, 2))
        if not present.all() and finite.any():
            full[finite] = self._with_missing(full[finite], present)
        return full

    def posed_as(self, other: CompleteStructure) -> NDArray[np.float64]:
        """Place the heavy atoms as `other`, protonated otherwise perhaps, has them: `[M, 3]` nm.

        Raises:
            ValueError: `other` has not the same heavy atoms.
        """
        where = {key: i for i, key in enumerate(places(other.topology.atoms()))}
        mine = places(self.topology.atoms())
        source = np.array([where.get(key, -1) for key in mine])
        heavy = np.array([atom.element.symbol != "H" for atom in self.topology.atoms()])
        if (source[heavy] < 0).any():
            raise ValueError("the two structures have different heavy atoms")
        full = np.full((1, len(mine), 3), np.nan)
        full[0, heavy] = other.reference_nm[source[heavy]]
        return np.asarray(self._with_missing(full, heavy)[0])

    def read_from(self, names: list[tuple[int, str]]) -> CompleteStructure:
        """Return the structure for frames whose atoms are in another order, or fewer.

        So conformations of any origin get energies of one and the same system: same protonation,
        same disulfides, same termini.

        Args:
            names: Residue index and name of each of the frames' N atoms, from `caps.places`.

        Raises:
            UserError: A heavy atom is missing (but OXT), or is not one of this structure.
        """
        where = {name: i for i, name in enumerate(names)}
        mine = places(self.topology.atoms())
        source = np.array([where.get(name, -1) for name in mine])
        needed = [
            atom.element.symbol != "H" and atom.name != "OXT" and atom.residue.name not in CAP_ATOMS
            for atom in self.topology.atoms()
        ]
        missing = [mine[i] for i in np.flatnonzero(needed & (source < 0))]
        # Free ends of conformations whose reference is capped, or a ring.
        unknown = sorted(name for name in set(where) - set(mine) if name[1] not in _FREE_ENDS)
        for what, found in (("lacks", missing), ("has unknown", unknown)):
            if found:
                shown = ", ".join(f"{name} of residue {index + 1}" for index, name in found[:4])
                raise UserError(
                    f"does not fit its reference structure: it {what} {shown}",
                    "the reference must be the same protein, with PDB atom names",
                )
        return replace(self, source=source, input_atoms=len(names))

    def _with_missing(
        self, full: NDArray[np.float64], present: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        neighbours = _neighbours(self.topology)
        present = present.copy()
        while not present.all():
            ready = [
                (atom, parent)
                for atom in np.flatnonzero(~present).tolist()
                for parent in neighbours[atom]
                if present[parent]
            ]
            if not ready:
                raise ValueError("an atom is bonded to none that the input has")
            for atom, parent in ready:
                anchors = _anchors(parent, neighbours, present)
                full[:, atom] = _carry_over(self.reference_nm, full, atom, parent, anchors)
            present[[atom for atom, _ in ready]] = True
        return full


def _neighbours(topology: Any) -> list[list[int]]:
    table: list[list[int]] = [[] for _ in range(topology.getNumAtoms())]
    for first, second in topology.bonds():
        table[first.index].append(second.index)
        table[second.index].append(first.index)
    return table


def _anchors(parent: int, neighbours: list[list[int]], present: NDArray[np.bool_]) -> list[int]:
    """Return present atoms that orient what is bonded to `parent`: its neighbours, or theirs."""
    near = [n for n in neighbours[parent] if present[n]]
    if len(near) >= 2:
        return near
    return near + [m for n in near for m in neighbours[n] if present[m] and m != parent]


def _carry_over(
    reference: NDArray[np.float64],
    frames: NDArray[np.float64],
    atom: int,
    parent: int,
    anchors: list[int],
) -> NDArray[np.float64]:
    """Place `atom`, `[F, 3]`, by turning the reference so that its anchors fit (Kabsch)."""
    fixed = reference[anchors] - reference[parent]
    moving = frames[:, anchors] - frames[:, parent, None]
    u, _, vt = np.linalg.svd(np.einsum("ai,faj->fij", fixed, moving))
    u[:, :, 2] *= np.linalg.det(u @ vt)[:, None]
    rotated = np.einsum("i,fij->fj", reference[atom] - reference[parent], u @ vt)
    return np.asarray(rotated + frames[:, parent])


def complete_structure(pdb_path: Path | str, protonation: str = FROM_FRAMES) -> CompleteStructure:
    """Read a PDB or mmCIF file and add the hydrogens that it lacks, disulfides and OXT.

    A residue that has hydrogens in the file has the protonation that they show. A chain that is
    closed head to tail stays closed.

    Args:
        pdb_path: The file.
        protonation: Protonation of residues that show no hydrogens, see `Protonation.parse`.

    Raises:
        UserError: The file cannot be read, is a trace without side chains, holds a residue gap,
            a covalent bond that no chain has, or residues that the force field does not know.
    """
    try:
        fixer = open_structure(Path(pdb_path))
        keys = atom_keys(fixer.topology)
        given_heavy = sum(atom.element.symbol != "H" for atom in fixer.topology.atoms())
        notes = complete(fixer, Protonation.parse(protonation))
    except UserError as error:
        raise UserError(f"{Path(pdb_path).name}: {error}") from error
    except Exception as error:  # PDBFixer raises many kinds for files that it cannot use
        raise UserError(
            f"cannot prepare {pdb_path} for the force field: {type(error).__name__}: {error}",
            "keep the protein's atoms only, in PDB format with standard residues",
        ) from error
    made = _checked(fixer, keys, given_heavy, pdb_path)
    return replace(made, notes=(*notes, *_imported_caps(Path(pdb_path))))


def _imported_caps(path: Path) -> list[str]:
    """Return the caps that `protenix-eba import` left out, by its record."""
    record = path.parent / _IMPORT_RECORD
    try:
        caps = json.loads(record.read_text(encoding="utf-8"))["caps"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [CAPS_LEFT_OUT.format(", ".join(caps[:4]))] if caps else []


def atom_keys(topology: Any) -> list[tuple[int, str, str, str]]:
    """Return chain index, residue number, insertion code and name of each atom."""
    return [
        (atom.residue.chain.index, atom.residue.id, atom.residue.insertionCode.strip(), atom.name)
        for atom in topology.atoms()
    ]


def _checked(
    fixer: Any, keys: list[tuple[int, str, str, str]], given_heavy: int, pdb_path: Path | str
) -> CompleteStructure:
    index = {key: i for i, key in enumerate(keys)}
    if len(index) != len(keys):
        raise UserError(
            f"{pdb_path}: two atoms share chain, residue number and name",
            "number the residues of each chain without repeats and keep one alternate location",
        )
    source = np.array([index.get(key, -1) for key in atom_keys(fixer.topology)], dtype=np.int64)
    heavy = np.array([atom.element.symbol != "H" for atom in fixer.topology.atoms()])
    built = int((heavy & (source < 0)).sum())
    terminal = fixer.topology.getNumChains()  # an OXT for each chain may be added freely
    if not given_heavy or built - terminal > _MAX_BUILT_FRACTION * heavy.sum():
        raise UserError(
            f"{pdb_path}: {built} of {int(heavy.sum())} heavy atoms are missing",
            "energies need all heavy atoms, not only the backbone or a trace",
        )
    positions = [[p.x, p.y, p.z] for p in fixer.positions]
    return CompleteStructure(
        topology=fixer.topology,
        reference_nm=np.array(positions, dtype=np.float64),
        source=source,
        input_atoms=len(keys),
        topology_hash=topology_hash(fixer.topology),
    )


def topology_hash(topology: Any) -> str:
    """Return 16 digits that differ where residues, names of atoms or bonds do."""
    atoms = [[atom.residue.index, atom.residue.name, atom.name] for atom in topology.atoms()]
    bonds = sorted(sorted((a.index, b.index)) for a, b in topology.bonds())
    return fingerprint({"atoms": atoms, "bonds": bonds})
