"""Hydrogens of residues: those of the file wherever it has any.

OpenMM's Modeller adds what a pH asks for, also to a residue whose hydrogens stand in the file: a
neutral lysine becomes charged. Here a residue that shows hydrogens keeps its protonation, and
only hydrogens that no protonation state lacks are added.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from openmm import app
from scipy.spatial import cKDTree

from protenix_eba.core.errors import UserError
from protenix_eba.energy.protonation_choice import NamedState, Protonation
from protenix_eba.protein.titration import GROUPS, USUAL, state_of

__all__ = ["add_hydrogen_bonds", "protonation_of", "variants_of"]

# Hydrogens of the first residue's nitrogen. One alone is what a chain that was cut leaves.
_FIRST_N: Final = {"PRO": (1, 2)}
_FIRST_N_OTHERS: Final = (2, 3)
# X-H bonds are about 1 angstrom long, S-H 1.34.
_LONGEST_NM: Final = 0.145


def add_hydrogen_bonds(topology: Any, xyz_nm: NDArray[np.floating]) -> None:
    """Bond hydrogens whose names no table knows to the nearest heavy atom of their residue.

    Modeller counts hydrogens by their bonds, and would build a second one beside each.
    """
    bonded = {atom.index for bond in topology.bonds() for atom in bond}
    for residue in topology.residues():
        atoms = list(residue.atoms())
        heavy = [atom for atom in atoms if not _is_hydrogen(atom)]
        loose = [atom for atom in atoms if _is_hydrogen(atom) and atom.index not in bonded]
        if not loose or not heavy:
            continue
        tree = cKDTree(xyz_nm[[atom.index for atom in heavy]])
        distance, nearest = tree.query(xyz_nm[[atom.index for atom in loose]])
        for atom, length, parent in zip(loose, distance, nearest, strict=True):
            if length < _LONGEST_NM:
                topology.addBond(heavy[parent], atom)


def variants_of(topology: Any, choice: Protonation) -> list[list[tuple[str, str]] | str | None]:
    """Return the hydrogens that each residue shall have, for `Modeller.addHydrogens`.

    Args:
        topology: openmm.app.Topology with all heavy atoms, its hydrogens bonded.
        choice: Protonation of residues that show no hydrogens.

    Returns:
        Name and parent of each hydrogen, where the file shows the residue's protonation; the
        state that the choice names, or its hydrogens; None where the pH decides.

    Raises:
        UserError: The choice names no residue, or another state than the file shows.
    """
    app.Modeller._loadStandardHydrogenDefinitions()
    neighbours = _neighbours(topology)
    polar = _has_polar_hydrogens_only(topology, neighbours)
    residues = list(topology.residues())
    named = choice.by_residue(residues)
    wanted: list[list[tuple[str, str]] | str | None] = []
    for number, residue in enumerate(residues):
        shown = residue.name in app.Modeller._residueHydrogens
        shown = shown and _shows(residue, neighbours, polar)
        if number in named:
            _check_named(residue, neighbours, named[number], shown)
        if shown:
            wanted.append(_hydrogens(residue, neighbours))
        else:
            state = named[number].state if number in named else None
            wanted.append(_in_state(residue, state, neighbours))
    return wanted


def _check_named(
    residue: Any, neighbours: dict[int, list[Any]], named: NamedState, shown: bool
) -> None:
    """Refuse a named state that the file contradicts.

    Raises:
        UserError: The hydrogens of the file are another's, or the sulfur is in a disulfide.
    """
    if _is_bridged(residue, neighbours):
        raise UserError(
            f"protonation {named}: the residue is in a disulfide", "leave it out of --protonation"
        )
    counts = {name: len(found) for name, found in _counts(residue, neighbours).items()}
    found = state_of(residue.name, counts) or residue.name
    if shown and found != named.state:
        raise UserError(
            f"protonation {named}: the file shows {found} by its hydrogens",
            "hydrogens of the MD are what was simulated: leave the residue out of --protonation",
        )


def _in_state(
    residue: Any, state: str | None, neighbours: dict[int, list[Any]]
) -> list[tuple[str, str]] | str | None:
    """Return a state for Modeller: its name, or its hydrogens where Modeller has no name."""
    spec = app.Modeller._residueHydrogens.get(residue.name)
    if state is None or spec is None or state in spec.variants:
        return state
    found = _usual(residue, _counts(residue, neighbours), neighbours)
    parent = GROUPS[residue.name][0][0]
    # CYM, TYM and ARN have one hydrogen less than usual.
    found[parent] = found.get(parent, [])[:-1]
    return [(name, parent) for parent, names in found.items() for name in names]


def _is_bridged(residue: Any, neighbours: dict[int, list[Any]]) -> bool:
    return residue.name == "CYS" and _is_bonded_outside(residue, "SG", neighbours)


def protonation_of(residue: Any) -> str:
    """Describe how a side chain differs from its usual protonation; empty where it does not."""
    parents, _, most = GROUPS.get(residue.name, ((), 0, 0))
    hydrogens = [atom for atom in residue.atoms() if _is_hydrogen(atom)]
    if not parents or not hydrogens:
        return ""
    bridged = any(bond[0].name == bond[1].name == "SG" for bond in residue.external_bonds())
    count = sum(
        any(atom.name in parents for atom in bond) and any(_is_hydrogen(atom) for atom in bond)
        for bond in residue.internal_bonds()
    )
    usual = 0 if bridged else USUAL.get(residue.name, most)
    if count == usual:
        return ""
    return f"{count} hydrogens at {'/'.join(parents)}, usually {usual}"


def _is_hydrogen(atom: Any) -> bool:
    return atom.element is not None and atom.element.symbol in ("H", "D")


def _neighbours(topology: Any) -> dict[int, list[Any]]:
    table: dict[int, list[Any]] = {atom.index: [] for atom in topology.atoms()}
    for first, second in topology.bonds():
        table[first.index].append(second)
        table[second.index].append(first)
    return table


def _counts(residue: Any, neighbours: dict[int, list[Any]]) -> dict[str, list[str]]:
    """Return the names of the hydrogens at each heavy atom."""
    return {
        atom.name: [n.name for n in neighbours[atom.index] if _is_hydrogen(n)]
        for atom in residue.atoms()
        if not _is_hydrogen(atom)
    }


def _has_polar_hydrogens_only(topology: Any, neighbours: dict[int, list[Any]]) -> bool:
    """Tell whether a file is united-atom: all polar hydrogens, and none at carbons."""
    at_carbons = amides = with_hydrogen = 0
    for residue in topology.residues():
        found = _counts(residue, neighbours)
        at_carbons += sum(len(names) for parent, names in found.items() if parent[0] == "C")
        parents = [p for p in _rigid_polar(residue) if p in found]
        amides += len(parents)
        with_hydrogen += sum(bool(found[p]) for p in parents)
    return not at_carbons and amides > 0 and with_hydrogen >= 0.9 * amides


def _rigid_polar(residue: Any) -> Iterable[str]:
    """Return the atoms that carry hydrogens in each protonation state."""
    first = residue is next(iter(residue.chain.residues()))
    backbone = () if residue.name == "PRO" or first else ("N",)
    side = {"ASN": ("ND2",), "GLN": ("NE2",), "TRP": ("NE1",), "LYS": ("NZ",), "ARG": ("NH1",)}
    return (*backbone, *side.get(residue.name, ()))


def _shows(residue: Any, neighbours: dict[int, list[Any]], polar: bool) -> bool:
    found = _counts(residue, neighbours)
    at_carbons = any(names for parent, names in found.items() if parent[0] == "C")
    titrated = GROUPS.get(residue.name, ((), 0, 0))[0]
    # The carboxyl's oxygens are charged without, so that a hydrogen there is evidence, too.
    return polar or at_carbons or any(found.get(parent) for parent in titrated)


def _hydrogens(residue: Any, neighbours: dict[int, list[Any]]) -> list[tuple[str, str]]:
    """Return the file's hydrogens, and those that it lacks in every state."""
    found = _counts(residue, neighbours)
    kept = _titrated(residue, found, neighbours)
    usual = _usual(residue, found, neighbours)
    wanted = []
    for parent, names in found.items():
        wanted += [(name, parent) for name in names]
        if parent in kept:
            continue
        lacking = len(usual.get(parent, [])) - len(names)
        free = [name for name in usual.get(parent, []) if name not in names]
        wanted += [(name, parent) for name in free[: max(lacking, 0)]]
    return wanted


def _titrated(
    residue: Any, found: dict[str, list[str]], neighbours: dict[int, list[Any]]
) -> set[str]:
    """Return heavy atoms whose hydrogens the file shows, in a number that a state has."""
    kept: set[str] = set()
    parents, fewest, most = GROUPS.get(residue.name, ((), 0, 0))
    if set(parents) <= set(found) and (
        fewest <= sum(len(found[parent]) for parent in parents) <= most
    ):
        kept |= set(parents)
    if _is_first(residue) and not _is_bonded_outside(residue, "N", neighbours):
        fewest, most = _FIRST_N.get(residue.name, _FIRST_N_OTHERS)
        if fewest <= len(found.get("N", [])) <= most:
            kept.add("N")
    return kept


def _usual(
    residue: Any, found: dict[str, list[str]], neighbours: dict[int, list[Any]]
) -> dict[str, list[str]]:
    """Return the hydrogens at each heavy atom at pH 7, as Modeller would add them."""
    first, last = _is_first(residue), residue is list(residue.chain.residues())[-1]
    if _is_bonded_outside(residue, "N", neighbours):
        first = False
    spec = app.Modeller._residueHydrogens[residue.name]
    bridged = _is_bridged(residue, neighbours)
    variant = {"CYS": "CYX" if bridged else "CYS", "HIS": "HID"}.get(residue.name)
    table: dict[str, list[str]] = {}
    for one in spec.hydrogens:
        in_state = one.variants is None or variant in one.variants
        if variant is None:
            in_state = one.maxph >= 7.0
        at_end = one.terminal is None or (first and "N" in one.terminal)
        at_end = at_end or (last and "C" in one.terminal)
        at_end = at_end or (not first and not last and "-" in one.terminal)
        if in_state and at_end and one.parent in found:
            table.setdefault(one.parent, []).append(one.name)
    return table


def _is_first(residue: Any) -> bool:
    return residue is next(iter(residue.chain.residues()))


def _is_bonded_outside(residue: Any, name: str, neighbours: dict[int, list[Any]]) -> bool:
    return any(
        n.residue is not residue
        for atom in residue.atoms()
        if atom.name == name
        for n in neighbours[atom.index]
    )
