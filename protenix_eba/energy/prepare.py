"""The steps of PDBFixer that add all atoms that a force field wants to those of a file.

What would change the chemistry is refused by name: atoms that an amino acid does not have, and
covalent bonds that a force field's residues cannot express.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app, unit

from protenix_eba.core.errors import UserError
from protenix_eba.core.text_files import read_text
from protenix_eba.core.units import ANGSTROM_PER_NM
from protenix_eba.energy.protonation import add_hydrogen_bonds, variants_of
from protenix_eba.energy.protonation_choice import Protonation
from protenix_eba.protein.covalent import Atom, CrossBond, cross_bonds
from protenix_eba.protein.residue_names import (
    CAP_ATOMS,
    CAPS,
    HEAVY_ATOMS,
    WATER,
    standard_cap,
    standard_residue,
    uncut_residue,
)
from protenix_eba.structures.models import CIF_SUFFIXES
from protenix_eba.structures.pdb_text import with_models
from protenix_eba.structures.stated_bonds import StatedBonds, stated_bonds

__all__ = ["CAPS_KEPT", "CAPS_LEFT_OUT", "complete", "open_structure"]

CAPS_KEPT: Final = "caps are part of the energy ({}), not of Protenix's sequence"
CAPS_LEFT_OUT: Final = "caps are left out ({}): energies of charged ends"


def open_structure(path: Path) -> Any:
    """Open a PDB or mmCIF file as a PDBFixer, with all bonds that the file states.

    Raises:
        UserError: The file cannot be opened, or its bonds are of atoms that OpenMM takes for one.
        Exception: Of many kinds, by OpenMM, for files that it cannot read.
    """
    from pdbfixer import PDBFixer

    text = read_text(path, strict=False)
    if path.suffix.lower() in CIF_SUFFIXES:
        fixer = PDBFixer(pdbxfile=StringIO(text))
    else:
        fixer = PDBFixer(pdbfile=StringIO(with_models(text)))
    _add_stated_bonds(fixer.topology, stated_bonds(path))
    return fixer


def _add_stated_bonds(topology: Any, stated: StatedBonds) -> None:
    atoms = list(topology.atoms())
    if stated.pairs and stated.n_atoms != len(atoms):
        raise UserError(
            f"its bonds are of {stated.n_atoms} atoms, of which {len(atoms)} have a name of their "
            "own",
            "give every atom of a residue a name of its own",
        )
    known = {frozenset(bond) for bond in topology.bonds()}
    for first, second in stated.pairs:
        pair = atoms[first], atoms[second]
        if frozenset(pair) not in known:
            topology.addBond(*pair)


@contextmanager
def _repeatable() -> Iterator[openmm.Platform]:
    """Yield a platform on which atoms are built at the same places each time.

    Modeller draws from Python's global generator, and more than one thread adds forces in another
    order at each call: hydrogens then lie 1e-3 angstrom apart, their energies 0.5 kJ/mol.
    """
    platform = openmm.Platform.getPlatform("CPU")
    threads, state = platform.getPropertyDefaultValue("Threads"), random.getstate()
    platform.setPropertyDefaultValue("Threads", "1")
    random.seed(0)
    try:
        yield platform
    finally:
        platform.setPropertyDefaultValue("Threads", threads)
        random.setstate(state)


def complete(fixer: Any, protonation: Protonation) -> list[str]:
    """Add what a file lacks, at the same places each time: heavy atoms, disulfides, hydrogens.

    Args:
        fixer: The file's structure, from `open_structure`.
        protonation: Protonation of residues that show no hydrogens.

    Returns:
        Notes for people on what the energy leaves out of the file.

    Raises:
        UserError: A modified residue, atoms that a residue does not have, or a bond that the
            force field cannot express.
    """
    _use_standard_names(fixer.topology)
    fixer.findMissingResidues()
    fixer.missingResidues = {}
    fixer.findNonstandardResidues()
    _refuse_modified(fixer)
    fixer.replaceNonstandardResidues()
    _refuse_bonds_to_others(fixer.topology)
    notes = _notes(fixer.topology)
    _remove_others(fixer)
    _refuse_foreign_atoms(fixer.topology)
    add_hydrogen_bonds(fixer.topology, _xyz_nm(fixer))
    rings = _rings(fixer)
    fixer.findMissingAtoms()
    fixer.missingAtoms = {r: a for r, a in fixer.missingAtoms.items() if r.name not in CAP_ATOMS}
    for last in rings:
        fixer.missingTerminals.pop(last, None)  # a ring has no OXT
    with _repeatable() as fixer.platform:
        fixer.addMissingAtoms(seed=0)  # also makes the disulfide bonds, by distance
        _close(fixer.topology, {residue.chain.index for residue in rings})
        _add_hydrogens(fixer, protonation)
    return notes


def _notes(topology: Any) -> list[str]:
    kept: list[str] = []
    left_out: list[str] = []
    for residue in topology.residues():
        if residue.name in CAPS:
            (kept if _is_cap(residue) else left_out).append(f"{residue.name} {residue.id}")
    notes = ((CAPS_KEPT, kept), (CAPS_LEFT_OUT, left_out))
    return [note.format(", ".join(caps[:4])) for note, caps in notes if caps]


def _is_cap(residue: Any) -> bool:
    """Tell whether a residue is a whole cap that force fields have."""
    return standard_cap(residue.name, [atom.name for atom in residue.atoms()]) is not None


def _remove_others(fixer: Any) -> None:
    """Keep the protein and its caps; nucleic acids stay and are refused by the force field."""
    from pdbfixer.pdbfixer import dnaResidues, proteinResidues, rnaResidues

    keep = {*proteinResidues, *dnaResidues, *rnaResidues, "N", "UNK"}
    others = [r for r in fixer.topology.residues() if r.name not in keep and not _is_cap(r)]
    modeller = app.Modeller(fixer.topology, fixer.positions)
    modeller.delete(others)
    fixer.topology, fixer.positions = modeller.topology, modeller.positions


def _xyz_nm(fixer: Any) -> NDArray[np.float64]:
    return np.array(fixer.positions.value_in_unit(unit.nanometer), dtype=np.float64)


def _use_standard_names(topology: Any) -> None:
    """Rename residues named by their protonation (LYN, HSD), which PDBFixer would drop."""
    renamed = False
    for residue in topology.residues():
        names = {atom.name for atom in residue.atoms()}
        standard = (
            standard_residue(residue.name)
            or uncut_residue(residue.name, names)
            or standard_cap(residue.name, names)
        )
        # PDBFixer replaces the selenium of MSE itself.
        if standard and residue.name not in (standard, "MSE"):
            residue.name, renamed = standard, True
    if renamed:
        # OpenMM bonds the atoms of residues that it knows by name only.
        given = {frozenset(bond): bond for bond in topology.bonds()}
        topology._bonds = []
        topology.createStandardBonds()
        made = {frozenset(bond) for bond in topology.bonds()}
        topology._bonds += [bond for pair, bond in given.items() if pair not in made]


def _refuse_modified(fixer: Any) -> None:
    """Refuse modified residues, which PDBFixer would replace by what they were made of."""
    changed = [
        f"{residue.name} {residue.id}"
        for residue, _ in fixer.nonstandardResidues
        if standard_residue(residue.name) is None
    ]
    if changed:
        raise UserError(
            f"{', '.join(changed[:4])} {'is' if len(changed) == 1 else 'are'} no standard amino "
            "acid: the energy would be another molecule's",
            "leave this protein out",
        )


def _refuse_bonds_to_others(topology: Any) -> None:
    """Refuse ligands and metals bonded to the protein; they would be left out otherwise."""
    for bond in topology.bonds():
        inside = [standard_residue(atom.residue.name) is not None for atom in bond]
        other = bond[inside.index(False)].residue.name if not all(inside) else ""
        if any(inside) and other and other not in CAPS | WATER:
            raise UserError(
                f"the bond {_label(bond[0])} - {_label(bond[1])} cannot be expressed: {other} is "
                "no amino acid",
                "leave this protein out, or remove the bond from the file if there is none",
            )


def _refuse_foreign_atoms(topology: Any) -> None:
    for residue in topology.residues():
        known = {*HEAVY_ATOMS.get(residue.name, ()), "OXT"}
        extra = [
            atom.name
            for atom in residue.atoms()
            if atom.element is None or (atom.element.symbol not in "HD" and atom.name not in known)
        ]
        if extra and residue.name in HEAVY_ATOMS:
            raise UserError(
                f"{residue.name} {residue.id} has {', '.join(extra[:4])}, which {residue.name} "
                "has not",
                "a modified residue has no energy here; use PDB atom names for a plain one",
            )


def _rings(fixer: Any) -> list[Any]:
    """Return the last residues of head-to-tail rings; refuse bonds that no force field knows."""
    atoms = list(fixer.topology.atoms())
    closed = []
    for bond in _cross_bonds(fixer):
        if bond.kind == "head to tail":
            closed.append(atoms[bond.second].residue)
        elif bond.kind == "other":
            raise UserError(
                f"the covalent bond {bond} cannot be expressed by the force field's residues",
                "leave this protein out; head-to-tail rings and disulfides have energies",
            )
    return closed


def _close(topology: Any, chains: set[int]) -> None:
    """Bond the ends of the chains of these indices, where the file has not."""
    known = {frozenset(bond) for bond in topology.bonds()}
    for chain in topology.chains():
        if chain.index in chains:
            residues = list(chain.residues())
            (first,) = (atom for atom in residues[0].atoms() if atom.name == "N")
            (last,) = (atom for atom in residues[-1].atoms() if atom.name == "C")
            if frozenset((last, first)) not in known:
                topology.addBond(last, first)


def _cross_bonds(fixer: Any) -> list[CrossBond]:
    topology = fixer.topology
    atoms = [
        Atom(a.name, a.element.symbol, a.residue.index, a.residue.chain.index, _label(a))
        for a in topology.atoms()
    ]
    bonds = [(first.index, second.index) for first, second in topology.bonds()]
    return cross_bonds(atoms, _xyz_nm(fixer) * ANGSTROM_PER_NM, bonds)


def _add_hydrogens(fixer: Any, protonation: Protonation) -> None:
    modeller = app.Modeller(fixer.topology, fixer.positions)
    variants = variants_of(fixer.topology, protonation)
    modeller.addHydrogens(pH=protonation.ph, variants=variants, platform=fixer.platform)
    fixer.topology, fixer.positions = modeller.topology, modeller.positions


def _label(atom: Any) -> str:
    residue = atom.residue
    return (
        f"{residue.chain.id} {residue.name} {residue.id}{residue.insertionCode.strip()} {atom.name}"
    )
