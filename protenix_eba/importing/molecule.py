"""The protein of a topology file as it is stored: chains, numbers, names and gaps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Final

import mdtraj
import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.core.units import ANGSTROM_PER_NM
from protenix_eba.importing.periodic import Connections, connections_of, make_whole
from protenix_eba.protein.covalent import Atom, CrossBond, cross_bonds
from protenix_eba.protein.residue_names import CAP_ATOMS, HEAVY_ATOMS
from protenix_eba.protein.stereo import CENTRE, is_inverted
from protenix_eba.structures.md_topology import SourceResidue, SourceTopology

__all__ = ["Molecule", "backbone_is_sound", "build_molecule", "geometry_fault"]

# Bonds between heavy atoms of proteins are 1.2 to 2.1 angstrom long, to hydrogens about 1.
_BOND_ANGSTROM: Final = (0.5, 2.5)
_CHAIN_IDS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(frozen=True)
class Molecule:
    """A protein under PDB names.

    Attributes:
        topology: Atoms in the order of `SourceTopology.columns`, one chain for each of the
            protein's chains, standard bonds.
        reference: `[N_atom, 3]` in angstrom, made whole: the coordinates of its PDB file.
        connections: Bonds, for `make_whole`.
        bonds: `[B, 2]` covalent bonds, disulfides and the ends of rings among them where the
            reference has them.
        bridges: Those of the bonds that no sequence tells.
        sequences: One-letter sequence of each chain.
        missing: Heavy atoms that the topology lacks, "A 214 OXT" among them.
        notes: What was decided on the way, one sentence each.
    """

    topology: mdtraj.Topology
    reference: NDArray[np.float32]
    connections: Connections
    bonds: NDArray[np.int64]
    bridges: tuple[CrossBond, ...]
    sequences: tuple[str, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]


def build_molecule(
    source: SourceTopology,
    xyz: NDArray[np.float32],
    box: NDArray[np.float32] | None,
    scratch: Path,
) -> Molecule:
    """Put the protein of a topology file together.

    Args:
        source: Topology from `read_protein`.
        xyz: `[N_atom, 3]` in angstrom, reference coordinates, possibly cut by the box.
        box: `[3, 3]` in angstrom, or None.
        scratch: A folder for a file that is removed again.

    Raises:
        UserError: A gap in a chain, D-residues, atoms that do not fit, or a covalent bond that
            neither a sequence nor a force field's residues express.
    """
    chains = _split_chains(source.residues, xyz, box)
    topology, notes = _assemble(chains)
    topology = _with_pdb_names(topology, xyz, scratch)
    connections = connections_of(topology)
    reference, _ = make_whole(xyz, box, connections)
    bonds, bridges = _bonds(topology, reference, source.bonds)
    closed = {topology.atom(bond.second).residue.index for bond in bridges
              if bond.kind == "head to tail"}  # fmt: skip
    molecule = Molecule(
        topology=topology,
        reference=reference,
        connections=connections,
        bonds=np.array(bonds, dtype=np.int64).reshape(-1, 2),
        bridges=tuple(bridges),
        sequences=tuple("".join(r.code or "" for r in chain.residues) for chain in topology.chains),
        missing=_missing_heavy_atoms(topology, closed),
        notes=(*notes, *_bond_notes(bridges)),
    )
    if fault := geometry_fault(reference, molecule):
        raise UserError(
            f"the reference coordinates are no sound structure: {fault}",
            "check that topology and trajectory belong together and have the same order of atoms",
        )
    _check_handedness(topology, reference)
    return molecule


def backbone_is_sound(
    source: SourceTopology, xyz: NDArray[np.float32], box: NDArray[np.float32] | None
) -> bool:
    """Tell whether coordinates fit the topology's atoms: N-CA and CA-C are bonds."""
    if not np.isfinite(xyz).all():
        return False
    pairs = []
    for start, residue in zip(_starts(source.residues), source.residues, strict=True):
        where = {name: start + i for i, name in enumerate(residue.atoms)}
        pairs += [(where[a], where[b]) for a, b in (("N", "CA"), ("CA", "C"))
                  if a in where and b in where]  # fmt: skip
    if not pairs:
        return False
    first, second = np.array(pairs).T
    length = _distances(xyz[first] - xyz[second], box)
    return bool(np.mean((length > _BOND_ANGSTROM[0]) & (length < _BOND_ANGSTROM[1])) > 0.9)


def geometry_fault(xyz: NDArray[np.float32], molecule: Molecule) -> str:
    """Return what is wrong with one frame `[N_atom, 3]` in angstrom; empty where nothing is."""
    if not np.isfinite(xyz).all():
        atom = int(np.flatnonzero(~np.isfinite(xyz).all(axis=1))[0])
        return f"atom {_label(molecule.topology.atom(atom))} has no finite coordinates"
    first, second = molecule.bonds.T
    length = np.linalg.norm(xyz[first] - xyz[second], axis=-1)
    wrong = (length < _BOND_ANGSTROM[0]) | (length > _BOND_ANGSTROM[1])
    if not wrong.any():
        return ""
    worst = int(np.where(wrong, np.abs(length - 1.5), -1).argmax())
    ends = " - ".join(_label(molecule.topology.atom(int(i))) for i in molecule.bonds[worst])
    return f"the bond {ends} is {length[worst]:.2f} angstrom long ({int(wrong.sum())} such bonds)"


def _starts(residues: tuple[SourceResidue, ...]) -> list[int]:
    """Return the index of each residue's first atom."""
    return [0, *accumulate(len(r.atoms) for r in residues[:-1])]


def _distances(step: NDArray[np.floating], box: NDArray[np.float32] | None) -> NDArray[np.float64]:
    """Return lengths of vectors, of their nearest images where there is a box."""
    step = step.astype(np.float64)
    if box is not None and np.linalg.det(box.astype(np.float64)) > 0:
        fractional = step @ np.linalg.inv(box.astype(np.float64))
        step = step - np.rint(fractional) @ box
    return np.asarray(np.linalg.norm(step, axis=-1))


def _split_chains(
    residues: tuple[SourceResidue, ...], xyz: NDArray[np.float32], box: NDArray[np.float32] | None
) -> list[list[SourceResidue]]:
    """Split chains where the file says so, and where the backbone ends though it does not.

    An end has a terminal oxygen, or the numbers start again or go on by one; a break at which the
    numbers jump ahead is a gap, which no sequence can express. Caps are numbered, too: a jump over
    one that was left out is none.

    Raises:
        UserError: A gap.
    """
    chains = [[residues[0]]]
    starts = _starts(residues)
    for (start, residue), (next_start, following) in pairwise(zip(starts, residues, strict=True)):
        ended = residue.name in CAP_ATOMS and residue.name != "ACE"
        ended = ended or following.name == "ACE" or following.after_cap
        here = residue.chain == following.chain and not ended
        if here and _bonded(residue, start, following, next_start, xyz, box):
            chains[-1].append(following)
            continue
        jump = following.number - residue.number
        if ended:
            jump = 1
        if residue.chain == following.chain and "OXT" not in residue.atoms and jump > 1:
            raise UserError(
                f"residues {residue.name} {residue.number} and {following.name} "
                f"{following.number} are neighbours but not bonded: {jump - 1} are missing",
                "give a topology without gaps, or leave this protein out",
            )
        chains.append([following])
    return chains


def _bonded(
    residue: SourceResidue,
    start: int,
    following: SourceResidue,
    next_start: int,
    xyz: NDArray[np.float32],
    box: NDArray[np.float32] | None,
) -> bool:
    if "C" not in residue.atoms or "N" not in following.atoms:
        return True
    carbon = start + residue.atoms.index("C")
    nitrogen = next_start + following.atoms.index("N")
    length = _distances(xyz[[nitrogen]] - xyz[[carbon]], box)[0]
    return bool(length <= _BOND_ANGSTROM[1])


def _assemble(chains: list[list[SourceResidue]]) -> tuple[mdtraj.Topology, tuple[str, ...]]:
    topology = mdtraj.Topology()
    notes = []
    sources = {residues[0].chain for residues in chains}
    if len(chains) > len(sources):
        notes.append(f"{len(sources)} chains of the file were split into {len(chains)}")
    for number, residues in enumerate(chains):
        name = _CHAIN_IDS[number % len(_CHAIN_IDS)]
        chain = topology.add_chain(name)
        numbers = [r.number for r in residues]
        # The PDB has four digits, and two residues of one number would be one.
        if not all(a < b for a, b in pairwise(numbers)) or min(numbers) < 0 or max(numbers) > 9999:
            numbers = list(range(1, len(residues) + 1))
            notes.append(f"chain {name} was numbered anew from 1")
        for residue, resseq in zip(residues, numbers, strict=True):
            made = topology.add_residue(residue.name, chain, resseq)
            for atom, element in zip(residue.atoms, residue.elements, strict=True):
                topology.add_atom(atom, mdtraj.element.get_by_symbol(element), made)
    return topology, tuple(notes)


def _with_pdb_names(
    topology: mdtraj.Topology, xyz: NDArray[np.float32], scratch: Path
) -> mdtraj.Topology:
    """Return the topology as every reader will see it: written as PDB and read again.

    mdtraj renames hydrogens of all dialects as it reads a PDB file, and adds the bonds.
    """
    path = scratch / "names.pdb"
    mdtraj.Trajectory(xyz[None] / ANGSTROM_PER_NM, topology).save_pdb(str(path))
    found = mdtraj.load_pdb(str(path)).topology
    path.unlink()
    same = [a.residue.index for a in found.atoms] == [a.residue.index for a in topology.atoms]
    if not same or found.n_chains != topology.n_chains:
        raise UserError(
            f"its {topology.n_atoms} atoms in {topology.n_residues} residues cannot be written as "
            f"PDB: {found.n_atoms} atoms in {found.n_residues} residues come back",
            "look for atoms of one residue with the same name, also among its hydrogens",
        )
    return found


def _bonds(
    topology: mdtraj.Topology, xyz: NDArray[np.float32], stated: NDArray[np.int64]
) -> tuple[list[tuple[int, int]], list[CrossBond]]:
    """Return all covalent bonds, and those among them that no sequence tells.

    Args:
        topology: Of the protein; its disulfides are mdtraj's guess, and looked for anew.
        xyz: `[N_atom, 3]` in angstrom.
        stated: `[B, 2]` bonds that the file states.

    Raises:
        UserError: One that no force field's residues express.
    """
    pairs = [(a.index, b.index) for a, b in topology.bonds if {a.name, b.name} != {"SG"}]
    atoms = [
        Atom(a.name, a.element.symbol, a.residue.index, a.residue.chain.index, _label(a))
        for a in topology.atoms
    ]
    found = cross_bonds(atoms, xyz, [*pairs, *stated.tolist()])
    if other := [str(bond) for bond in found if bond.kind == "other"]:
        raise UserError(
            f"covalent bonds that no sequence tells: {', '.join(other[:4])}",
            "head-to-tail rings and disulfides are understood: leave this protein out",
        )
    return sorted({*pairs, *((bond.first, bond.second) for bond in found)}), found


def _bond_notes(bridges: list[CrossBond]) -> Iterator[str]:
    rings = [str(bond) for bond in bridges if bond.kind == "head to tail"]
    if rings:
        yield (
            f"closed head to tail: {', '.join(rings)}; labels keep the bond, Protenix's sequence "
            "does not tell it"
        )
    if disulfides := [bond.label for bond in bridges if bond.kind == "disulfide"]:
        yield f"disulfides: {', '.join(disulfides)}"


def _missing_heavy_atoms(topology: mdtraj.Topology, closed: set[int]) -> tuple[str, ...]:
    """Return the heavy atoms that are missing, those of the chains' ends last.

    Args:
        topology: Topology of the protein.
        closed: Indices of residues that end a ring: they have no OXT.
    """
    missing, ends = [], []
    for chain in topology.chains:
        for residue in chain.residues:
            have = {a.name for a in residue.atoms}
            place = f"{chain.chain_id} {residue.resSeq}"
            missing += [
                f"{place} {name}" for name in HEAVY_ATOMS.get(residue.name, ()) if name not in have
            ]
        if residue.name not in CAP_ATOMS and "OXT" not in have and residue.index not in closed:
            ends.append(f"{place} OXT")
    return (*missing, *ends)


def _check_handedness(topology: mdtraj.Topology, xyz: NDArray[np.float32]) -> None:
    """Refuse D-amino acids.

    Raises:
        UserError: Some residue is D.
    """
    centres, names = [], []
    for residue in topology.residues:
        where = {a.name: a.index for a in residue.atoms}
        if where.keys() >= set(CENTRE):
            centres.append([where[name] for name in CENTRE])
            names.append(f"{residue.name} {residue.resSeq}")
    inverted = is_inverted(xyz, np.array(centres, dtype=np.int64).reshape(-1, 4))
    wrong = [names[i] for i in np.flatnonzero(inverted)]
    if wrong:
        raise UserError(
            f"{len(wrong)} residues are D-amino acids: {', '.join(wrong[:5])}",
            "Protenix's sequence has no letter for them: leave this protein out",
        )


def _label(atom: mdtraj.core.topology.Atom) -> str:
    chain = atom.residue.chain.chain_id
    return f"{chain} {atom.residue.name} {atom.residue.resSeq} {atom.name}"
