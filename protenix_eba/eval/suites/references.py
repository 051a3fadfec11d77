"""Reference structures of a user: crystal forms, apo and holo, the models of an NMR entry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import mdtraj
import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.eval.protocol.ensemble import match_atoms
from protenix_eba.eval.report.scene import Residue
from protenix_eba.eval.suites.ensembles import ca_topology, coordinates
from protenix_eba.eval.suites.registry import Float64s
from protenix_eba.structures.models import CIF_SUFFIXES, PDB_SUFFIXES
from protenix_eba.structures.packed import format_of
from protenix_eba.structures.sources import Conformations
from protenix_eba.structures.structure_files import StructureConformations

__all__ = ["SharedResidues", "Structure", "find_structures", "shared_residues"]

_LAYOUT: Final = (
    "give a folder NAME with its PDB or mmCIF files for each target, or files NAME.pdb and "
    "NAME_*.pdb; for one target any files"
)


@dataclass(frozen=True)
class Structure:
    """One reference structure.

    Attributes:
        name: Its file, and the number of the model where the file has several.
        topology: Its C-alpha atoms.
        xyz: `[L, 3]` angstrom.
    """

    name: str
    topology: mdtraj.Topology
    xyz: NDArray[np.float32]


@dataclass(frozen=True)
class SharedResidues:
    """The C-alpha atoms that all structures and the samples have.

    Attributes:
        samples: `[S, L, 3]` angstrom.
        references: `[R, L, 3]` angstrom.
        residues: `L` of them, as the samples name them.
        notes: What was left out.
    """

    samples: NDArray[np.float32]
    references: Float64s
    residues: tuple[Residue, ...]
    notes: tuple[str, ...]


def find_structures(folder: Path, target: str, alone: bool) -> list[Structure]:
    """Find the reference structures of a target.

    Args:
        folder: See `_LAYOUT`; also a file.
        target: Its name.
        alone: Whether it is the only target, so that all files are its own.

    Raises:
        UserError: None are there, or a file cannot be read.
    """
    paths = _structure_files(folder / target) or [
        path for path in _structure_files(folder) if alone or _belongs(path, target)
    ]
    if not paths:
        raise UserError(f"target {target}: no reference structures in {folder}", _LAYOUT)
    return [structure for path in paths for structure in _models(path)]


def _structure_files(path: Path) -> list[Path]:
    files = sorted(path.iterdir()) if path.is_dir() else [path] if path.is_file() else []
    return [file for file in files if format_of(file) in (*PDB_SUFFIXES, *CIF_SUFFIXES)]


def _belongs(path: Path, target: str) -> bool:
    stem = path.name.partition(".")[0]
    return stem == target or stem.startswith(f"{target}_")


def _models(path: Path) -> list[Structure]:
    source = StructureConformations(path.name.partition(".")[0], [path])
    topology, atoms = ca_topology(source.topology)
    if not len(atoms):
        raise UserError(f"{path}: no C-alpha atom of an amino acid", "give a protein's structure")
    xyz = coordinates(source, atoms)
    names = [source.name] if len(xyz) == 1 else [f"{source.name}:{n + 1}" for n in range(len(xyz))]
    return [Structure(name, topology, x) for name, x in zip(names, xyz, strict=True)]


def shared_residues(samples: Conformations, structures: Sequence[Structure]) -> SharedResidues:
    """Find the residues that the samples and all reference structures have.

    Matched as `evaluate` matches samples and MD: by chain and number, else whole chains by their
    sequences.

    Raises:
        UserError: A structure is of another protein, or fewer than three residues are shared.
    """
    topology, atoms = ca_topology(samples.topology)
    matches, notes = [], []
    for structure in structures:
        label = f"{samples.name}, reference {structure.name}"
        found = match_atoms(structure.topology, topology, label)
        partner = dict(zip(found.sample_atoms, found.reference_atoms, strict=True))
        matches.append(partner)
        if len(partner) < len(atoms):
            notes.append(
                f"{structure.name} has {len(partner)} of the samples' {len(atoms)} residues."
            )
    shared = sorted(set.intersection(*(set(match) for match in matches)))
    if len(shared) < 3:
        raise UserError(
            f"target {samples.name}: {len(shared)} residues are in all reference structures, at "
            "least 3 are needed",
            "leave out the structure of another part of the protein",
        )
    references = [
        structure.xyz[[match[row] for row in shared]]
        for structure, match in zip(structures, matches, strict=True)
    ]
    xyz = coordinates(samples, atoms[np.array(shared)])
    named = [topology.atom(row).residue for row in shared]
    residues = tuple(Residue((r.chain.chain_id or "").strip(), r.resSeq, r.name) for r in named)
    return SharedResidues(xyz, np.array(references, dtype=np.float64), residues, tuple(notes))
