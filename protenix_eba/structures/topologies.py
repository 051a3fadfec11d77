"""All atoms of topology files under the PDB's names, and their coordinates."""

from __future__ import annotations

import io
import tempfile
import warnings
from pathlib import Path
from typing import Any, Final

import mdtraj
import numpy as np
from mdtraj.core.element import get_by_symbol, virtual
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.core.text_files import without_mark
from protenix_eba.core.units import ANGSTROM_PER_NM
from protenix_eba.protein.residue_names import standard_atom, standard_residue
from protenix_eba.structures.ascii_paths import ascii_path
from protenix_eba.structures.md_files import TOPOLOGY_SUFFIXES
from protenix_eba.structures.models import CIF_SUFFIXES, PDB_SUFFIXES, models_of
from protenix_eba.structures.packed import format_of
from protenix_eba.structures.psf_files import load_psf

__all__ = ["insertion_code", "pdb_lines", "read_cif", "read_topology"]

# Columns that mmCIF files may leave out and biotite asks for, and what they hold usually.
_OPTIONAL_COLUMNS: Final = {"group_PDB": "ATOM", "pdbx_PDB_ins_code": "?"}
Loaded = tuple[mdtraj.Topology, NDArray[np.float32] | None]


def read_topology(path: Path) -> Loaded:
    """Read PDB or mmCIF (their first model, also .gz), GRO, PSF or mdtraj's HDF5 (first frame).

    All atoms stay, in the order of the file; amino acids and their heavy atoms get the PDB's names.

    Returns:
        The topology, and `[N_atom, 3]` in angstrom; None where the file has no coordinates (PSF).

    Raises:
        UserError: The file is not there, is none of these, or cannot be read.
    """
    suffix = format_of(path)
    if suffix not in TOPOLOGY_SUFFIXES:
        raise UserError(
            f"{path}: expected a topology ({', '.join(TOPOLOGY_SUFFIXES)})", "convert it to PDB"
        )
    if not path.is_file():
        raise UserError(f"no topology file at {path}", "check the path")
    try:
        topology, xyz = _read(path, suffix)
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f"{path}: HDF5 needs PyTables: {error}", "pip install tables") from error
    except Exception as error:  # mdtraj and biotite raise many kinds for a broken file
        raise UserError(
            f"cannot read {path} as a topology: {type(error).__name__}: {error}",
            "check that the file is whole and has the format of its suffix",
        ) from error
    if not topology.n_atoms:
        raise UserError(f"no atom in {path}", "a PDB file needs ATOM lines in fixed columns")
    return _standardised(topology), xyz


def _read(path: Path, suffix: str) -> Loaded:
    if suffix in (*PDB_SUFFIXES, *CIF_SUFFIXES):
        with without_mark(path) as plain:
            text = models_of(plain, at_most=1)[0].text()
        if suffix in PDB_SUFFIXES:
            return _from_pdb_text(text)
        atoms = read_cif(text)
        return _topology_of(atoms), np.asarray(atoms.coord, dtype=np.float32)
    if suffix == ".psf":
        return _without_segments(load_psf(path)), None
    with ascii_path(path) as name:
        # mdtraj finds single frames of HDF5 files, not of GRO files.
        frame = mdtraj.load(name)[0] if suffix == ".gro" else mdtraj.load_frame(name, 0)
    return _without_segments(frame.topology), _angstrom(frame)


def _without_segments(topology: mdtraj.Topology) -> mdtraj.Topology:
    """Remove segments, which `insertion_code` would take for codes."""
    for residue in topology.residues:
        residue.segment_id = ""
    return topology


def insertion_code(residue: mdtraj.core.topology.Residue) -> str:
    """Return the A of residue 52A, empty for most; of topologies from `read_topology`.

    mdtraj has no place of its own for it. Here it stands in that of the segment, which mdtraj keeps
    when it copies a topology.
    """
    return str(residue.segment_id)


def _angstrom(frame: mdtraj.Trajectory) -> NDArray[np.float32]:
    return np.asarray(frame.xyz[0] * ANGSTROM_PER_NM, dtype=np.float32)


def pdb_lines(text: bytes) -> list[bytes]:
    """Return ATOM, HETATM and TER lines; of alternate locations of an atom only the first."""
    lines = [line for line in text.splitlines() if line.startswith((b"ATOM", b"HETATM", b"TER"))]
    if all(line[16:17] in (b" ", b"") for line in lines):
        return lines
    first: dict[bytes, bytes] = {}
    for number, line in enumerate(lines):
        # Without a letter for the location a second one is not an alternate, but a mistake.
        own = b"" if line[16:17].strip() else str(number).encode()
        first.setdefault(line[12:16] + line[17:27] + own, line)
    return list(first.values())


def _from_pdb_text(text: bytes) -> Loaded:
    lines = pdb_lines(text)
    n_atoms = sum(not line.startswith(b"TER") for line in lines)
    if not n_atoms:
        raise ValueError("it has no ATOM lines in its first model")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # mdtraj warns of each atom whose columns for the charge are blank.
        warnings.simplefilter("ignore")
        path = Path(folder) / "first.pdb"
        path.write_bytes(b"\n".join([*lines, b"END", b""]))
        frame = mdtraj.load_pdb(str(path), standard_names=True)
    if frame.n_atoms != n_atoms:
        raise ValueError(f"{n_atoms} atoms, of which {frame.n_atoms} have a name of their own")
    atoms = (line for line in lines if not line.startswith(b"TER"))
    for atom, line in zip(frame.topology.atoms, atoms, strict=True):
        atom.residue.segment_id = line[26:27].decode().strip()
    return frame.topology, _angstrom(frame)


def read_cif(text: bytes) -> Any:
    """Read an mmCIF model's atoms with the authors' chains and numbers, without alternates.

    Args:
        text: A file of one model.

    Returns:
        biotite's AtomArray.
    """
    from biotite.structure.io import pdbx

    file = pdbx.CIFFile.read(io.StringIO(text.decode()))
    atoms = file.block["atom_site"]
    for column, usual in _OPTIONAL_COLUMNS.items():
        if column not in atoms:
            atoms[column] = np.full(atoms.row_count, usual)
    return pdbx.get_structure(file, model=1)


def _topology_of(atoms: Any) -> mdtraj.Topology:
    topology = mdtraj.Topology()
    chain_id = key = None
    chain = residue = None
    for atom in atoms:
        if chain is None or atom.chain_id != chain_id:
            chain_id, key = atom.chain_id, None
            chain = topology.add_chain(chain_id=chain_id)
        if residue is None or (atom.res_id, atom.ins_code, atom.res_name) != key:
            key = (atom.res_id, atom.ins_code, atom.res_name)
            number, insertion = int(atom.res_id), str(atom.ins_code)
            residue = topology.add_residue(atom.res_name, chain, number, insertion)
        symbol = atom.element.capitalize()
        topology.add_atom(atom.atom_name, get_by_symbol(symbol) if symbol else virtual, residue)
    topology.create_standard_bonds()
    return topology


def _standardised(topology: mdtraj.Topology) -> mdtraj.Topology:
    for residue in topology.residues:
        name = standard_residue(residue.name)
        if name is None:
            continue
        residue.name = name
        for atom in residue.atoms:
            atom.name = standard_atom(name, atom.name)
    return topology
