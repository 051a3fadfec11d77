"""Topology files of MD programs as they stand: atoms, coordinates, box, and names."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import mdtraj
import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.core.text_files import read_text, without_mark
from protenix_eba.core.units import ANGSTROM_PER_NM
from protenix_eba.structures.md_files import TOPOLOGY_SUFFIXES
from protenix_eba.structures.models import CIF_SUFFIXES, PDB_SUFFIXES
from protenix_eba.structures.pdb_text import atom_lines, has_atoms, with_models
from protenix_eba.structures.psf_files import load_psf

__all__ = ["load_topology_file", "pdb_atom_lines", "raw_names"]

_WITH_COORDINATES: Final = (*PDB_SUFFIXES, *CIF_SUFFIXES, ".gro")


def load_topology_file(
    path: Path,
) -> tuple[mdtraj.Topology, NDArray[np.float32] | None, NDArray[np.float32] | None]:
    """Load all atoms of the system, their coordinates `[N_system, 3]` and box `[3, 3]`, angstrom.

    The box is None where the file has none, and so are the coordinates.

    Raises:
        UserError: The file is not there, has another format, or cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix not in TOPOLOGY_SUFFIXES:
        raise UserError(
            f"{path.name}: expected a topology ({', '.join(TOPOLOGY_SUFFIXES)}), found {suffix!r}",
            "convert the topology, for example to PDB",
        )
    if not path.is_file():
        raise UserError(f"no topology file at {path}", "check the path")
    try:
        if suffix == ".psf":
            return load_psf(path), None, None
        if suffix not in _WITH_COORDINATES:
            return mdtraj.load_topology(str(path)), None, None
        load = mdtraj.load_pdb if suffix in PDB_SUFFIXES else mdtraj.load
        with without_mark(path) as plain:
            if suffix in PDB_SUFFIXES and not has_atoms(plain.read_bytes()):
                raise ValueError("it has no ATOM lines")
            frame = load(str(plain))[0]
    except ImportError as error:
        raise UserError(
            f"{path.name}: HDF5 needs PyTables: {error}", "pip install tables"
        ) from error
    except Exception as error:  # mdtraj raises many kinds for a broken file
        raise UserError(
            f"cannot read {path.name} as a topology: {type(error).__name__}: {error}",
            "check that the file is whole and has the format of its suffix",
        ) from error
    vectors = frame.unitcell_vectors
    return (
        frame.topology,
        np.asarray(frame.xyz[0] * ANGSTROM_PER_NM, dtype=np.float32),
        None if vectors is None else np.asarray(vectors[0] * ANGSTROM_PER_NM, dtype=np.float32),
    )


def raw_names(path: Path, topology: mdtraj.Topology) -> list[tuple[str, str]]:
    """Return residue and atom names as they stand in the file, where that is cheap to know.

    mdtraj renames while it reads. Its names are given for mmCIF and HDF5.
    """
    suffix, n_atoms = path.suffix.lower(), topology.n_atoms
    names: list[tuple[str, str]] = []
    if suffix in PDB_SUFFIXES:
        lines, _ = pdb_atom_lines(path)
        names = [(line[17:21].strip(), line[12:16].strip()) for line in lines]
    elif suffix == ".gro":
        lines = _lines(path)[2 : 2 + n_atoms]
        names = [(line[5:10].strip(), line[10:15].strip()) for line in lines]
    elif suffix == ".psf":
        lines = _lines(path)
        start = next(i for i, line in enumerate(lines) if "!NATOM" in line) + 1
        words = (line.split() for line in lines[start : start + n_atoms])
        names = [(word[3], word[4]) for word in words]
    if len(names) == n_atoms:
        return names
    return [(a.residue.name, a.name) for a in topology.atoms]


def _lines(path: Path) -> list[str]:
    return read_text(path, strict=False).splitlines()


def pdb_atom_lines(path: Path) -> tuple[list[str], int]:
    """Return a PDB's first model's atom lines, and the number of alternates left out."""
    return atom_lines(with_models(read_text(path, strict=False)))
