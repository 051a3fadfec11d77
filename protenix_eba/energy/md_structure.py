"""The atoms of an MD's force field matched to those of its frames, by residue and name.

Programs name atoms in dialects: residues by their protonation (HIE, HSD), some heavy atoms (ILE CD,
OT1), most hydrogens. Heavy atoms are known by the PDB's names, and hydrogens by the heavy atom that
they are bonded to: those of one atom are the same to a force field.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from openmm import unit

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import fingerprint
from protenix_eba.energy.md_energy import MdTopology, is_solvent
from protenix_eba.energy.md_files import MdFile
from protenix_eba.energy.prepare import open_structure
from protenix_eba.energy.protonation import add_hydrogen_bonds
from protenix_eba.energy.protonation_choice import Protonation
from protenix_eba.energy.structure import CompleteStructure, complete_structure, topology_hash
from protenix_eba.protein.residue_names import (
    caps_within,
    standard_atom,
    standard_cap,
    standard_cap_atom,
    standard_cap_name,
    standard_residue,
    uncut_residue,
)

__all__ = ["md_structure"]

# Residue by its place without caps, amino acid or cap, atom; and the hydrogen's own name.
_Key = tuple[Any, ...]
_HYDROGENS: Final = ("H", "D")


def md_structure(file: MdFile, reference: Path, protonation: str) -> CompleteStructure:
    """Return the complete structure of a target whose force field stands in a file.

    Its atoms are those of the file in their order, without water and ions, under the names that the
    reference has for them. Where the reference lacks hydrogens, and nothing else, they are added as
    for any other energy, and must be those of the file.

    Args:
        file: The MD's force field.
        reference: PDB or mmCIF file of the target.
        protonation: Protonation of residues that show no hydrogens, see `Protonation.parse`.

    Raises:
        UserError: A file that cannot be read, or an atom that only one of the two has.
    """
    stated = _Atoms.of(file.topology())
    made = _as_it_is(reference)
    given = _Atoms.of(made.topology)
    order = stated.places_in(given)
    # Named states are compared with hydrogens that are there, where others are added.
    if Protonation.parse(protonation).named or stated.lacks_only_hydrogens(given, order):
        made = complete_structure(reference, protonation)
        given = _Atoms.of(made.topology)
        order = stated.places_in(given)
    if difference := stated.difference(given, order):
        raise UserError(
            f"{file.path.name} does not fit {reference.name}: {difference}",
            "give the force field that these frames were simulated with; the protonation of "
            "residues without hydrogens is --protonation's",
        )
    topology = _renamed(file, stated, [given.atoms[i] for i in order])
    places = np.array([given.atoms[i].index for i in order], dtype=np.int64)
    return replace(
        made,
        topology=topology,
        reference_nm=made.reference_nm[places],
        source=made.source[places],
        # The terms as well: the protocol knows that they stand in a file, and not in which.
        topology_hash=fingerprint([topology_hash(topology), file.digest()]),
    )


def _as_it_is(path: Path) -> CompleteStructure:
    """Read a structure without adding anything to it; raise UserError if it cannot be read."""
    try:
        fixer = open_structure(path)
    except UserError:
        raise
    except Exception as error:  # of many kinds
        raise UserError(
            f"cannot read {path}: {type(error).__name__}: {error}", "give a PDB or mmCIF file"
        ) from error
    xyz_nm = np.array(fixer.positions.value_in_unit(unit.nanometer), dtype=np.float64)
    add_hydrogen_bonds(fixer.topology, xyz_nm)
    return CompleteStructure(fixer.topology, xyz_nm, np.arange(len(xyz_nm)), len(xyz_nm), "")


@dataclass(frozen=True)
class _Atoms:
    """The atoms of a topology without water and ions, each under a key of its own.

    Attributes:
        atoms: OpenMM's.
        keys: By which atoms of two topologies are the same.
        bonds: Pairs of atoms, of water as well.
    """

    atoms: list[Any]
    keys: list[_Key]
    bonds: list[tuple[Any, Any]]

    @classmethod
    def of(cls, topology: Any) -> _Atoms:
        residues = [residue for residue in topology.residues() if not is_solvent(residue)]
        names = dict(_names(residues))
        parents = {
            hydrogen: heavy
            for bond in topology.bonds()
            for hydrogen, heavy in (bond, bond[::-1])
            if _is_hydrogen(hydrogen) and not _is_hydrogen(heavy)
        }
        keys = [
            (*names[parents.get(atom, atom)], names[atom][-1])
            if _is_hydrogen(atom)
            else names[atom]
            for atom, own in names.items()
        ]
        return cls(list(names), keys, list(topology.bonds()))

    def places_in(self, other: _Atoms) -> NDArray[np.int64]:
        """Return the place of each atom in another topology; -1 where it is not."""
        where = {key: i for i, key in enumerate(other.keys)}
        places = np.array([where.get(key, -1) for key in self.keys], dtype=np.int64)
        free: dict[_Key, list[int]] = defaultdict(list)
        for i in sorted({*range(len(other.atoms))} - {*places.tolist()}):
            if _is_hydrogen(other.atoms[i]):
                free[other.keys[i][:-1]].append(i)
        for i in np.flatnonzero(places < 0):
            if _is_hydrogen(self.atoms[i]) and free[self.keys[i][:-1]]:
                places[i] = free[self.keys[i][:-1]].pop(0)
        return places

    def lacks_only_hydrogens(self, given: _Atoms, places: NDArray[np.int64]) -> bool:
        """Tell whether hydrogens have no place, all other atoms have one, and none is left over."""
        lacking = [self.atoms[i] for i in np.flatnonzero(places < 0)]
        taken = len(self.atoms) - len(lacking)
        return bool(lacking) and all(map(_is_hydrogen, lacking)) and taken == len(given.atoms)

    def difference(self, given: _Atoms, places: NDArray[np.int64]) -> str:
        """Describe the first atom that only one of the two has; empty where there is none."""
        if (places < 0).any():
            return f"the frames lack {_label(self.atoms[int(np.argmin(places))])}"
        extra = sorted({*range(len(given.atoms))} - {*places.tolist()})
        return f"the file lacks {_label(given.atoms[extra[0]])} of the frames" if extra else ""


def _names(residues: Iterable[Any]) -> Iterator[tuple[Any, _Key]]:
    """Yield each atom with its residue's place, amino acid or cap, and its name in the PDB."""
    count = -1
    for residue in residues:
        atoms = list(residue.atoms())
        names = [atom.name for atom in atoms]
        cap = _cap(residue.name, names)
        count += cap is None
        amino = standard_residue(residue.name) or uncut_residue(residue.name, names) or ""
        within = caps_within(names) if amino else {}
        for atom in atoms:
            own = cap or next((name for name, part in within.items() if atom.name in part), None)
            if own:
                before = own == "ACE" and cap is None
                yield atom, (count - before, own, standard_cap_atom(own, atom.name))
            else:
                yield atom, (count, amino, standard_atom(amino, atom.name) if amino else atom.name)


def _cap(name: str, atoms: list[str]) -> str | None:
    """Return the PDB's name of a cap that is a residue of its own, or None."""
    cap = standard_cap_name(name)
    return cap and standard_cap(cap, [standard_cap_atom(cap, atom) for atom in atoms])


def _is_hydrogen(atom: Any) -> bool:
    return atom.element is not None and atom.element.symbol in _HYDROGENS


def _label(atom: Any) -> str:
    return f"{atom.name} of {atom.residue.name} {atom.residue.id}"


def _renamed(file: MdFile, stated: _Atoms, given: list[Any]) -> MdTopology:
    """Return the file's atoms and bonds under the names and in the residues of the frames."""
    topology = MdTopology(file.path, [atom.index for atom in stated.atoms])
    atoms, chain, residue, last = {}, None, None, None
    for own, other in zip(stated.atoms, given, strict=True):
        if last is None or other.residue is not last.residue:
            if last is None or other.residue.chain is not last.residue.chain:
                chain = topology.addChain(other.residue.chain.id)
            named = other.residue
            residue = topology.addResidue(named.name, chain, named.id, named.insertionCode)
        atoms[own] = topology.addAtom(other.name, other.element, residue, other.id)
        last = other
    for first, second in stated.bonds:
        if first in atoms and second in atoms:
            topology.addBond(atoms[first], atoms[second])
    return topology
