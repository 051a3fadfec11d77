"""C-alpha traces from and to structure files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protenix_eba.errors import UserError
from protenix_eba.files import atomic_path, require_file

__all__ = ["Trace", "match_residues", "read_trace", "write_trace"]

# Fewer equal residues than this share of the trace: it is another protein.
_LEAST_IDENTITY: Final = 0.7
_FEWEST: Final = 4


@dataclass(frozen=True)
class Trace:
    """C-alpha atoms of a structure file.

    Attributes:
        path: The file.
        ca: `[N, 3]` in angstrom.
        sequence: One letter per residue, X where it is not one of the 20 amino acids.
        numbers: `[N]` residue numbers in the file.
    """

    path: Path
    ca: Tensor
    sequence: str
    numbers: NDArray[np.int64]


def read_trace(path: Path | str) -> Trace:
    """The C-alpha atoms of the first model of a PDB or mmCIF file, all its chains.

    Raises:
        UserError: It cannot be read or has no C-alpha atom.
    """
    from biotite.sequence import ProteinSequence
    from biotite.structure.io import load_structure

    path = require_file(path, "structure")
    try:
        atoms: Any = load_structure(path, model=1)
    except Exception as error:  # whatever biotite's parsers raise on what is not their format
        raise UserError(
            f"structure: cannot read {path}: {error}", "give a PDB or mmCIF file"
        ) from error
    atoms = atoms[(atoms.atom_name == "CA") & (atoms.element != "CA")]
    if len(atoms) == 0 or not np.isfinite(atoms.coord).all():
        raise UserError(f"structure: no C-alpha atoms in {path}", "give a protein structure")
    letters = [_one_letter(ProteinSequence, name) for name in atoms.res_name]
    numbers = atoms.res_id.astype(np.int64)
    return Trace(path, torch.tensor(atoms.coord), "".join(letters), numbers)


def _one_letter(table: Any, name: str) -> str:
    try:
        letter = str(table.convert_letter_3to1(name))
    except KeyError:
        return "X"
    return letter if letter in "ACDEFGHIKLMNPQRSTVWY" else "X"


def match_residues(
    trace: Trace, n_residues: int, sequence: str | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which residues of a trace are which of the predictions.

    By alignment of the sequences; without a sequence, in order if there are as many, else by the
    numbers in the file, which then must be those of the predictions, from 1.

    Args:
        trace: Residues may be missing.
        n_residues: L.
        sequence: That the predictions were made for, or None.

    Returns:
        Indices into the predictions and into the trace, of equal length.

    Raises:
        UserError: They do not match.
    """
    if len(trace.sequence) < _FEWEST:
        raise UserError(
            f"{trace.path}: expected at least {_FEWEST} residues, found {len(trace.sequence)}",
            "give a longer structure",
        )
    if sequence is not None:
        return _aligned(trace, sequence)
    everything = np.arange(len(trace.sequence))
    if len(trace.sequence) == n_residues:
        return everything, everything
    index = trace.numbers - 1
    if index.min() < 0 or index.max() >= n_residues or len(set(index)) < len(index):
        raise UserError(
            f"{trace.path} has {len(index)} residues with numbers from {trace.numbers.min()} to "
            f"{trace.numbers.max()}, the predictions have {n_residues}",
            "give the sequence, or number the residues as in the predictions, from 1",
        )
    return index, everything


def _aligned(trace: Trace, sequence: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    from biotite.sequence import ProteinSequence
    from biotite.sequence.align import SubstitutionMatrix, align_optimal

    matrix = SubstitutionMatrix.std_protein_matrix()
    pair = (ProteinSequence(sequence), ProteinSequence(trace.sequence))
    aligned = align_optimal(*pair, matrix, gap_penalty=(-10, -1), terminal_penalty=False)[0].trace
    both = aligned[(aligned >= 0).all(-1)]
    ours, theirs = both[:, 0], both[:, 1]
    equal = sum(sequence[i] == trace.sequence[j] for i, j in both)
    known = sum(letter != "X" for letter in trace.sequence)
    if len(both) < _FEWEST or equal < _LEAST_IDENTITY * known:
        raise UserError(
            f"{trace.path}: {equal} of its {len(trace.sequence)} residues are those of the "
            "sequence",
            "give the structure of the same protein",
        )
    return ours.astype(np.int64), theirs.astype(np.int64)


def write_trace(
    path: Path | str,
    ca: Tensor,
    sequence: str | None,
    chains: Sequence[int] | None = None,
    numbers: NDArray[np.int64] | None = None,
) -> None:
    """Write a C-alpha trace as a PDB file; residues without a known letter are called UNK.

    Args:
        path: File to write.
        ca: `[L, 3]` in angstrom.
        sequence: One letter per residue, or None.
        chains: Length of each chain, named A, B, ...; None for one chain.
        numbers: `[L]` residue numbers; None for 1, 2, ... in each chain.
    """
    from biotite.sequence import ProteinSequence
    from biotite.structure import AtomArray
    from biotite.structure.io.pdb import PDBFile

    lengths = [len(ca)] if chains is None else list(chains)
    atoms = AtomArray(len(ca))
    # PDB columns end at 999.999; the origin is the centre.
    atoms.coord = (ca - ca.mean(0)).cpu().numpy()
    counted = np.concatenate([np.arange(1, length + 1) for length in lengths])
    atoms.res_id = counted if numbers is None else numbers
    atoms.chain_id = np.repeat([chr(ord("A") + k % 26) for k in range(len(lengths))], lengths)
    atoms.atom_name[:], atoms.element[:] = "CA", "C"
    codes = sequence or "X" * len(ca)
    atoms.res_name = np.array(
        [ProteinSequence.convert_letter_1to3(c) if c != "X" else "UNK" for c in codes]
    )
    file = PDBFile()
    file.set_structure(atoms)
    with atomic_path(path) as temporary:
        file.write(str(temporary))
