"""The protein's atoms under their PDB names, from a topology file of any MD program."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeAlias

import mdtraj
import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.protein.residue_names import (
    CAPS,
    HEAVY_ATOMS,
    cap_atoms,
    caps_within,
    is_no_atom,
    standard_atom,
    standard_cap,
    standard_cap_atom,
    standard_cap_name,
    standard_residue,
    uncut_residue,
)
from protenix_eba.structures.md_bonds import bonds_of_protein
from protenix_eba.structures.models import PDB_SUFFIXES
from protenix_eba.structures.topology_files import load_topology_file, pdb_atom_lines, raw_names

__all__ = ["SourceResidue", "SourceTopology", "read_protein"]

_MAX_MISSING_FRACTION: Final = 0.05
_BACKBONE: Final = frozenset({"N", "CA", "C"})
_LARGEST_CAP: Final = 7  # atoms, hydrogens included: N-methyl with an amide hydrogen has 6
_MdAtom: TypeAlias = mdtraj.core.topology.Atom


@dataclass(frozen=True)
class SourceTopology:
    """The protein, the system and the box of a topology file.

    Attributes:
        all_atoms: The whole system, as mdtraj reads it; N_system atoms.
        columns: `[N_atom]` which of them are the protein's.
        residues: For each residue of the protein its source chain, number, amino acid, and the
            standard names of its atoms, in the order of `columns`.
        dropped: How many atoms were left out, by residue name, and by residue and atom name where
            it is a part of an amino acid's residue.
        renamed: How many atoms were renamed, by "HSD CD -> HIS CD".
        caps: Groups at chain ends that were left out, for people.
        kept_caps: Those that are stored: residues of their own, which no sequence has.
        bonds: `[B, 2]` bonds between its residues that the file states, places in `columns`; the
            peptide bonds may be among them.
        alternate_locations: Atoms that were left out because another location was kept (PDB).
        xyz: `[N_atom, 3]` in angstrom, None where the file has no coordinates.
        box: `[3, 3]` box vectors as rows, angstrom, or None.
    """

    all_atoms: mdtraj.Topology
    columns: NDArray[np.int64]
    residues: tuple[SourceResidue, ...]
    dropped: dict[str, int]
    renamed: dict[str, int]
    caps: tuple[str, ...]
    kept_caps: tuple[str, ...]
    bonds: NDArray[np.int64]
    alternate_locations: int
    xyz: NDArray[np.float32] | None
    box: NDArray[np.float32] | None

    def protein_only(self) -> SourceTopology:
        """Return the topology for trajectories that hold the protein's atoms and no others."""
        atoms = self.all_atoms.subset(np.sort(self.columns))
        return replace(self, all_atoms=atoms, columns=np.argsort(np.argsort(self.columns)))


@dataclass(frozen=True)
class SourceResidue:
    """One residue of the protein.

    Attributes:
        chain: Index of its chain in the file.
        number: Its residue number there.
        name: Standard name of the amino acid, or of a cap.
        atoms: Standard atom names.
        elements: Element symbols.
        after_cap: A cap that was left out stands before it: here a chain begins.
    """

    chain: int
    number: int
    name: str
    atoms: tuple[str, ...]
    elements: tuple[str, ...]
    after_cap: bool = False


def read_protein(path: Path | str) -> SourceTopology:
    """Read PDB, mmCIF, GRO, PSF or mdtraj's HDF5 and pick the protein.

    Raises:
        UserError: The file cannot be read, has no protein or only a part of its heavy atoms, or
            holds residues or atoms that no sequence of the 20 amino acids has, or states a bond
            between the protein and another molecule.
    """
    path = Path(path)
    topology, xyz, box = load_topology_file(path)
    picked = _Picked(path, raw_names(path, topology))
    residues = _residues(topology)
    for atoms in residues:
        picked.add(atoms)
    _check_complete(picked.residues, topology.n_atoms, path)
    index = np.array(picked.columns, dtype=np.int64)
    return SourceTopology(
        all_atoms=topology,
        columns=index,
        residues=tuple(picked.residues),
        dropped=dict(picked.dropped.most_common()),
        renamed=dict(picked.renamed.most_common()),
        caps=tuple(picked.caps),
        kept_caps=tuple(picked.kept_caps),
        bonds=bonds_of_protein(path, topology, residues, picked.columns),
        alternate_locations=pdb_atom_lines(path)[1] if path.suffix.lower() in PDB_SUFFIXES else 0,
        xyz=None if xyz is None else xyz[index],
        box=box,
    )


def _residues(topology: mdtraj.Topology) -> list[list[_MdAtom]]:
    """Return the atoms of each residue, with its hydrogens that stand behind all heavy atoms.

    Some programs (Anton) write them so, and mdtraj makes a second residue of each group.
    """
    found: list[list[_MdAtom]] = []
    seen: dict[tuple[object, ...], list[_MdAtom]] = {}
    for residue in topology.residues:
        atoms = list(residue.atoms)
        key = (residue.chain.index, residue.segment_id, residue.resSeq, residue.name)
        hydrogens = all(_element(atom) == "H" for atom in atoms)
        if hydrogens and not {a.name for a in seen.get(key, atoms)} & {a.name for a in atoms}:
            seen[key] += atoms
            continue
        seen[key] = atoms
        found.append(atoms)
    return found


class _Picked:
    """Picks the protein's part of a topology, residue by residue.

    Args:
        path: Path of the file, for messages.
        raw: Residue and atom name of each atom as they stand in the file.
    """

    def __init__(self, path: Path, raw: list[tuple[str, str]]) -> None:
        self._path = path
        self._raw = raw
        self._after_cap = False
        self.columns: list[int] = []
        self.residues: list[SourceResidue] = []
        self.caps: list[str] = []
        self.kept_caps: list[str] = []
        self.dropped: Counter[str] = Counter()
        self.renamed: Counter[str] = Counter()

    def add(self, atoms: list[_MdAtom]) -> None:
        """Take the atoms of one residue, or count why not."""
        residue = atoms[0].residue
        own = [self._raw[atom.index][1] for atom in atoms]
        name = _amino_acid(residue, own, self._raw[atoms[0].index][0], self._path)
        if name and residue.name in CAPS:
            # A cut name: mdtraj has named the atoms as a cap's.
            for atom, atom_name in zip(atoms, own, strict=True):
                atom.name = atom_name
        if name is None and self._add_cap(residue.name, residue.resSeq, atoms):
            return
        if name is None:
            self.dropped[residue.name] += len(atoms)
            if residue.name in CAPS:
                self._after_cap = True
                self.caps.append(f"{residue.name} {residue.resSeq}")
            return
        caps = caps_within(own)
        within = {cap: [a for a, o in zip(atoms, own, strict=True) if o in caps[cap]]
                  for cap in caps}  # fmt: skip
        capped = [atom for members in within.values() for atom in members]
        kept = self._without_foreign([a for a in atoms if a not in capped], name)
        if not kept:
            return
        if "ACE" in within:
            self._add_cap("ACE", residue.resSeq - 1, within["ACE"])
        self._store(kept, _standardised(residue, name, kept, self._path, self._after_cap))
        for cap in within.keys() - {"ACE"}:
            self._add_cap(cap, residue.resSeq + 1, within[cap])

    def _add_cap(self, given: str, number: int, atoms: list[_MdAtom]) -> bool:
        """Take a cap that force fields have as a residue of its own; false for others."""
        own = [self._raw[atom.index][1] for atom in atoms]
        guess = standard_cap_name(given)
        if guess is None:
            return False
        names = [standard_cap_atom(guess, name) for name in own]
        if standard_cap(guess, names) is None or len(set(names)) < len(names):
            return False
        elements = tuple(_element(atom) for atom in atoms)
        chain = atoms[0].residue.chain.index
        self._store(atoms, SourceResidue(chain, number, guess, tuple(names), elements))
        self.kept_caps.append(f"{guess} {number}")
        return True

    def _store(self, atoms: list[_MdAtom], made: SourceResidue) -> None:
        self._after_cap = False
        self.columns += [a.index for a in atoms]
        self.residues.append(made)
        for atom, standard in zip(atoms, made.atoms, strict=True):
            if self._raw[atom.index] != (made.name, standard):
                old = " ".join(self._raw[atom.index])
                self.renamed[f"{old} -> {made.name} {standard}"] += 1

    def _without_foreign(self, atoms: list[_MdAtom], name: str) -> list[_MdAtom]:
        """Return the amino acid's own atoms; count caps and sites that are no atoms.

        Raises:
            UserError: Other atoms, a phosphate's for example.
        """
        residue = atoms[0].residue
        cap = cap_atoms(self._raw[a.index][1] for a in atoms)
        if cap:
            self.caps.append(f"{', '.join(sorted(cap))} of {residue.name} {residue.resSeq}")
        known = {*HEAVY_ATOMS[name], "OXT"}
        kept, foreign = [], []
        for atom in atoms:
            own = self._raw[atom.index][1]
            if own in cap or is_no_atom(own) or not _element(atom):
                self.dropped[f"{residue.name} {own}"] += 1
            elif _element(atom) == "H" or standard_atom(name, atom.name) in known:
                kept.append(atom)
            else:
                foreign.append(own)
        if foreign:
            raise UserError(
                f"{self._path.name}: residue {residue.name} {residue.resSeq} has "
                f"{', '.join(foreign[:4])}, which {name} has not: a modified residue",
                "Protenix's sequence has no letter for it: leave this protein out",
            )
        return kept


def _check_complete(residues: list[SourceResidue], n_atoms: int, path: Path) -> None:
    """Refuse files without a protein, or with more than 5% of its heavy atoms missing.

    Raises:
        UserError: One of these.
    """
    if not any(r.name in HEAVY_ATOMS for r in residues):
        raise UserError(
            f"no protein among the {n_atoms} atoms of {path.name}",
            "give the topology of the simulated system, with names of residues and atoms",
        )
    amino_acids = [r for r in residues if r.name in HEAVY_ATOMS]
    expected = sum(len(HEAVY_ATOMS[r.name]) for r in amino_acids)
    missing = [f"{r.name} {r.number} {a}" for r in amino_acids for a in HEAVY_ATOMS[r.name]
               if a not in r.atoms]  # fmt: skip
    if len(missing) > _MAX_MISSING_FRACTION * expected:
        raise UserError(
            f"{path.name}: {len(missing)} of {expected} heavy atoms are missing, "
            f"{', '.join(missing[:4])} ...",
            "the topology must hold all heavy atoms: a trace or a united residue is not enough",
        )


def _amino_acid(
    residue: mdtraj.core.topology.Residue, own: list[str], raw: str, path: Path
) -> str | None:
    """Return the standard name of a residue of the protein, None for anything else.

    Args:
        residue: As mdtraj reads it.
        own: Atom names as they stand in the file.
        raw: The residue's name there; PDB files cut names of four letters, and NMET is NME.
        path: Path of the file, for messages.
    """
    name = standard_residue(raw) or standard_residue(residue.name)
    backbone = set(own) >= _BACKBONE
    if name is None and backbone:
        name = uncut_residue(raw, own)
    large = residue.name not in CAPS or residue.n_atoms > _LARGEST_CAP
    if name is None and backbone and large:
        raise UserError(
            f"{path.name}: residue {raw} {residue.resSeq} has a protein's backbone, but "
            "is none of the 20 amino acids (a D-amino acid, or a modified residue)",
            "Protenix's sequence has no letter for it: leave this protein out",
        )
    return name


def _element(atom: mdtraj.core.topology.Atom) -> str:
    """Return the symbol of the element, empty for virtual sites."""
    symbol = atom.element.symbol if atom.element else "VS"
    if symbol != "VS":
        return str(symbol)
    # mdtraj reads the names of GRO files, and finds no element in "1HB".
    return "H" if re.match(r"\d*H", atom.name) else ""


def _standardised(
    residue: mdtraj.core.topology.Residue,
    name: str,
    atoms: list[_MdAtom],
    path: Path,
    after_cap: bool,
) -> SourceResidue:
    names = [standard_atom(name, a.name) for a in atoms]
    twice = [atom for atom, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(
            f"{path.name}: residue {residue.name} {residue.resSeq} has two atoms "
            f"{', '.join(twice)}",
            "give every atom of a residue a name of its own",
        )
    # Selenium stands where a methionine has its sulfur.
    elements = ["S" if n == "SD" and name == "MET" else _element(a) for n, a in
                zip(names, atoms, strict=True)]  # fmt: skip
    place = (residue.chain.index, residue.resSeq)
    return SourceResidue(*place, name, tuple(names), tuple(elements), after_cap)
