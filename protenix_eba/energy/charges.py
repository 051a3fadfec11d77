"""Charges of a protein's groups, as its hydrogens show them: for energies that know no residues."""

from __future__ import annotations

from typing import Any, Final

from openmm import app

from protenix_eba.protein.titration import GROUPS

__all__ = ["charged_groups"]

# Bonds of a nitrogen without charge, in a backbone or an amine.
_BONDS_OF_N: Final = 3
# Acids are neutral with one hydrogen, bases with all but one.
_ACIDS: Final = ("ASP", "CYS", "GLU", "TYR")
_BASES: Final = ("ARG", "HIS", "LYS")


def charged_groups(topology: app.Topology) -> list[tuple[str, int]]:
    """Return name and charge of each side chain and end that has one; the sum is the protein's.

    Args:
        topology: Amino acids and caps with all atoms and bonds.
    """
    partners: dict[Any, list[Any]] = {atom: [] for atom in topology.atoms()}
    for first, second in topology.bonds():
        partners[first].append(second)
        partners[second].append(first)
    groups = []
    for residue in topology.residues():
        atoms = {atom.name: atom for atom in residue.atoms()}
        name = f"{residue.name} {residue.id}{residue.insertionCode.strip()}"
        if "N" in atoms:
            groups.append((f"N-terminus {name}", len(partners[atoms["N"]]) - _BONDS_OF_N))
        if "OXT" in atoms:
            carried = _hydrogens(atoms, ("O", "OXT"), partners)
            groups.append((f"C-terminus {name}", carried - 1))
        groups.append((f"side chain of {name}", _side_chain(residue.name, atoms, partners)))
    return [(group, charge) for group, charge in groups if charge]


def _side_chain(name: str, atoms: dict[str, Any], partners: dict[Any, list[Any]]) -> int:
    parents, _, most = GROUPS.get(name, ((), 0, 0))
    found = _hydrogens(atoms, parents, partners)
    if name in _BASES:
        return found - (most - 1)
    return found - 1 if name in _ACIDS and not _is_bridged(atoms, partners) else 0


def _hydrogens(
    atoms: dict[str, Any], parents: tuple[str, ...], partners: dict[Any, list[Any]]
) -> int:
    bonded = [other for name in parents if name in atoms for other in partners[atoms[name]]]
    return sum(other.element is app.element.hydrogen for other in bonded)


def _is_bridged(atoms: dict[str, Any], partners: dict[Any, list[Any]]) -> bool:
    return any(other.element is app.element.sulfur for other in partners.get(atoms.get("SG"), ()))
