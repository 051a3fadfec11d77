"""Caps as force fields want them: residues of their own (Amber), or parts of one (CHARMM)."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any

from openmm import app

from protenix_eba.protein.residue_names import CAP_ATOMS

__all__ = ["places", "within_residues"]


def places(atoms: Iterable[Any]) -> list[tuple[int, str]]:
    """Return residue index and name of each atom, by which two files of one protein are matched.

    Caps are not counted: a model's conformations have none. Their own atoms are named after them.

    Args:
        atoms: OpenMM's or mdtraj's, in the order of a file.
    """
    found: list[tuple[int, str]] = []
    count = -1
    for residue, members in groupby(atoms, key=lambda atom: atom.residue):
        cap = residue.name in CAP_ATOMS
        count += not cap
        found += [(count, f"{residue.name} {a.name}" if cap else a.name) for a in members]
    return found


def within_residues(topology: Any) -> Any:
    """Return the topology with each cap in the residue that it caps, for CHARMM's patches.

    Atoms keep their order, so that coordinates stay as they are.

    Args:
        topology: openmm.app.Topology, caps as residues of their own.
    """
    merged = app.Topology()
    atoms = {}
    for chain in topology.chains():
        made = merged.addChain(chain.id)
        for group in _groups(list(chain.residues())):
            named = next((r for r in group if r.name not in CAP_ATOMS), group[0])
            residue = merged.addResidue(named.name, made, named.id, named.insertionCode)
            for atom in (atom for member in group for atom in member.atoms()):
                atoms[atom] = merged.addAtom(atom.name, atom.element, residue, atom.id)
    for first, second in topology.bonds():
        merged.addBond(atoms[first], atoms[second])
    return merged


def _groups(residues: list[Any]) -> list[list[Any]]:
    """Return residues, each with the caps before and behind it."""
    groups: list[list[Any]] = []
    open_cap = False
    for residue in residues:
        first = residue.name == "ACE"
        joins = open_cap or (residue.name in CAP_ATOMS and not first)
        if joins and groups:
            groups[-1].append(residue)
        else:
            groups.append([residue])
        open_cap = first
    return groups
