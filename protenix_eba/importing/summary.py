"""A summary of one target's import, in a few lines: what the energy will see of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from scipy.spatial import cKDTree

from protenix_eba.importing.molecule import Molecule
from protenix_eba.importing.record import ReplicaRecord
from protenix_eba.protein.residue_names import CAP_ATOMS
from protenix_eba.protein.titration import GROUPS, state_of
from protenix_eba.structures.md_topology import SourceTopology

__all__ = ["summary_of"]

_SHOWN: Final = 6
# X-H bonds are about 1 angstrom long, S-H 1.34.
_LONGEST_TO_HYDROGEN: Final = 1.45


def summary_of(
    system: SourceTopology, molecule: Molecule, replicas: Mapping[int, ReplicaRecord]
) -> list[str]:
    """Return lines on what was kept, renamed and dropped, and on the labels' chemistry."""
    frames = sum(len(replica.frames) for replica in replicas.values())
    chains = ":".join(molecule.sequences)
    short = chains if len(chains) <= 60 else f"{chains[:50]}... ({len(chains)} letters)"
    return [
        f"kept: {frames} frames, {len(molecule.sequences)} chains {short}, "
        f"{molecule.topology.n_atoms} atoms",
        f"renamed: {_counted(_by_residue(system.renamed))}",
        f"dropped: {_counted(system.dropped)}",
        f"missing heavy atoms, which labels build: {_listed(molecule.missing)}",
        f"energy, protonation: {_protonation(molecule)}",
        f"energy, disulfides: {_listed(_bridges(molecule, 'disulfide'))}",
        f"energy, caps: {_caps(system)}",
        f"energy, rings: {_listed(_bridges(molecule, 'head to tail'))}",
    ]


def _listed(items: Iterable[str]) -> str:
    items = list(items)
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more if items else "none"


def _counted(numbers: Mapping[str, int]) -> str:
    total = sum(numbers.values())
    found = _listed(f"{name} ({count})" for name, count in numbers.items())
    return f"{total} atoms: {found}" if total else "none"


def _by_residue(renamed: Mapping[str, int]) -> Mapping[str, int]:
    """Count atoms that keep their names by residue: "HSD -> HIS" for "HSD CA -> HIS CA"."""
    counts: Counter[str] = Counter()
    for change, count in renamed.items():
        old, new = (side.split() for side in change.split(" -> "))
        same = old[1:] == new[1:]
        counts[f"{old[0]} -> {new[0]}" if same else change] += count
    return counts


def _bridges(molecule: Molecule, kind: str) -> list[str]:
    return [bond.label for bond in molecule.bridges if bond.kind == kind]


def _caps(system: SourceTopology) -> str:
    kept = [f"{_listed(system.kept_caps)}, which Protenix's sequence has not"]
    lost = [f"{_listed(system.caps)} left out: energies of charged ends"]
    return "; ".join(kept * bool(system.kept_caps) + lost * bool(system.caps)) or "none"


def _protonation(molecule: Molecule) -> str:
    hydrogens = [a.index for a in molecule.topology.atoms if a.element.symbol == "H"]
    if not hydrogens:
        return "no hydrogens here: `label --protonation` decides, by default at pH 7"
    found = _listed(_states(molecule, hydrogens))
    return (
        "as the hydrogens show, all usual" if found == "none" else f"as the hydrogens show, {found}"
    )


def _states(molecule: Molecule, hydrogens: list[int]) -> Iterator[str]:
    """Yield residues and ends in unusual states, and the tautomer of each histidine."""
    tree = cKDTree(molecule.reference[hydrogens])

    def carried(atom: int) -> int:
        return len(tree.query_ball_point(molecule.reference[atom], _LONGEST_TO_HYDROGEN))

    bridged = {
        molecule.topology.atom(index).residue.index
        for bond in molecule.bridges
        if bond.kind == "disulfide"
        for index in (bond.first, bond.second)
    }
    for residue in molecule.topology.residues:
        parents = GROUPS.get(residue.name, ((), 0, 0))[0]
        # A residue without any hydrogen shows nothing.
        if not parents or not any(atom.element.symbol == "H" for atom in residue.atoms):
            continue
        counts = {a.name: carried(a.index) for a in residue.atoms if a.name in parents}
        if state := state_of(residue.name, counts, bridged=residue.index in bridged):
            yield f"{_label(residue)} {state}"
    yield from _neutral_ends(molecule, carried)


def _neutral_ends(molecule: Molecule, carried: Callable[[int], int]) -> Iterator[str]:
    """Yield ends of chains without their charge: NH2, and COOH."""
    for chain in molecule.topology.chains:
        residues = [residue for residue in chain.residues if residue.name not in CAP_ATOMS]
        first, last = residues[0], residues[-1]
        amine = [carried(atom.index) for atom in first.atoms if atom.name == "N"]
        # One less than the charged end has; a nitrogen within a chain has one less still.
        if amine == [1 if first.name == "PRO" else 2]:
            yield f"{_label(first)} neutral N-terminus"
        if any(carried(atom.index) for atom in last.atoms if atom.name in ("O", "OXT")):
            yield f"{_label(last)} neutral C-terminus"


def _label(residue: Any) -> str:
    return f"{residue.chain.chain_id} {residue.name} {residue.resSeq}"
