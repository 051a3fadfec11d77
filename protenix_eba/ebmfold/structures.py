"""C-alpha traces from and to structure files, and how their residues match a target's."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_letters
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import atomic_path, require_file

__all__ = [
    "Trace",
    "check_sizes",
    "joined_numbers",
    "match_residues",
    "one_letter",
    "open_models",
    "read_trace",
    "whole_numbers",
    "write_trace",
]

Indices = NDArray[np.int64]
Match = tuple[Indices, Indices]

# Fewer equal residues than this share of the trace: it is another protein.
_LEAST_IDENTITY: Final = 0.7
_FEWEST: Final = 4
# Between the residue numbers of two chains: features and bonds then see a break.
_CHAIN_STEP: Final = 200
_CHAIN_NAMES: Final = ascii_letters[26:] + ascii_letters[:26]  # A to Z first
_MOST_RESIDUES: Final = 9_999  # of a chain in a PDB file
# Of what stands in PDB files. NaN in an XTC file is read as some 10^7 angstrom.
_FARTHEST: Final = 1e4
_FORMATS: Final = {
    ".pdb": "PDB", ".ent": "PDB", ".cif": "CIF", ".mmcif": "CIF", ".bcif": "BinaryCIF"
}  # fmt: skip


@dataclass(frozen=True)
class Trace:
    """The C-alpha atoms of one conformation.

    Attributes:
        path: Its file.
        ca: `[N, 3]` in angstrom.
        sequence: One letter per residue, X where it is not one of the 20 amino acids.
        numbers: `[N]` residue numbers in the file.
        chains: `[N]` which chain of the file, rising.

    Raises:
        UserError: There are no atoms, or their coordinates are no structure's.
    """

    path: Path
    ca: Tensor
    sequence: str
    numbers: Indices
    chains: Indices

    def __post_init__(self) -> None:
        if not self.sequence:
            raise UserError(
                f"structure: no C-alpha atoms in {self.path}", "give a protein structure"
            )
        if not bool((self.ca.abs() < _FARTHEST).all()):  # nor NaN
            raise UserError(
                f"structure: C-alpha atoms in {self.path} have no coordinates, or some beyond "
                f"{_FARTHEST:.0f} angstrom",
                "leave this conformation out",
            )


def read_trace(path: Path | str) -> Trace:
    """Read the C-alpha atoms of all chains in the first model of a PDB or mmCIF file.

    Raises:
        UserError: It cannot be read or has no C-alpha atom.
    """
    return open_models(path)[1](1)


def open_models(path: Path | str) -> tuple[int, Callable[[int], Trace]]:
    """Open a PDB or mmCIF file.

    Returns:
        The number of its models, and a function that reads the n-th, from 1.

    Raises:
        UserError: It cannot be read; the reader raises it for a model without C-alpha atoms.
    """
    from biotite.structure.io import pdb, pdbx

    path = require_file(path, "structure")
    kind = _FORMATS.get(path.suffix.lower())
    hint = "give a PDB or mmCIF file"
    if kind is None:
        raise UserError(f"structure: {path} ends in none of {', '.join(_FORMATS)}", hint)
    module: Any = pdb if kind == "PDB" else pdbx

    def read(model: int) -> Trace:
        try:
            return _trace_of(path, module.get_structure(file, model=model))
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"structure: cannot read model {model} of {path}: {error}", hint
            ) from error

    try:
        file = getattr(module, f"{kind}File").read(path)
        # Text of another kind has no model: reading the first says so.
        return max(int(module.get_model_count(file)), 1), read
    except Exception as error:  # whatever biotite's parsers raise on what is not their format
        raise UserError(f"structure: cannot read {path}: {error}", hint) from error


def _trace_of(path: Path, atoms: Any) -> Trace:
    atoms = atoms[(atoms.atom_name == "CA") & (atoms.element != "CA")]
    letters = "".join(map(one_letter, atoms.res_name))
    chains = np.cumsum(np.r_[0, atoms.chain_id[1:] != atoms.chain_id[:-1]][: len(atoms)])
    return Trace(path, torch.tensor(atoms.coord), letters, atoms.res_id.astype(np.int64), chains)


def one_letter(name: str) -> str:
    """Return the letter of a residue name, X for what is not one of the 20 amino acids."""
    from biotite.sequence import ProteinSequence

    try:
        letter = str(ProteinSequence.convert_letter_3to1(name))
    except KeyError:
        return "X"
    return letter if letter in "ACDEFGHIKLMNPQRSTVWY" else "X"


def joined_numbers(numbers: Indices, chains: Indices) -> Indices:
    """Return residue numbers that rise through all chains, with wide gaps between chains.

    Args:
        numbers: `[L]`, rising in each chain.
        chains: `[L]` which chain; the residues of one follow each other.

    Returns:
        `[L]` from 0, for `Target.residue_index`.
    """
    step = np.where(np.diff(chains) != 0, _CHAIN_STEP + 1, np.diff(numbers))
    joined: Indices = np.concatenate([[0], np.cumsum(step)]).astype(np.int64)
    return joined


def whole_numbers(lengths: Sequence[int]) -> Indices:
    """Return `joined_numbers` of whole chains, of which only the lengths are known."""
    chain = np.repeat(np.arange(len(lengths)), lengths)
    return joined_numbers(np.arange(len(chain)), chain)


def match_residues(
    trace: Trace, n_residues: int, sequence: str | None, chains: Sequence[int] | None = None
) -> Match:
    """Match the residues of a trace to those of the predictions.

    With a sequence, by the numbers in the file where these are numbers in the sequence from 1,
    else by alignment; of several chains, each of the trace is that of the sequence which it agrees
    with best, the first of equal ones. Without a sequence, in order if there are as many residues,
    else by the numbers in the file.

    Args:
        trace: Residues, and whole chains, may be missing.
        n_residues: L.
        sequence: Sequence that the predictions were made for, or None.
        chains: Lengths of its chains; None for one.

    Returns:
        Indices into the predictions, rising, and into the trace, of equal length.

    Raises:
        UserError: They do not match.
    """
    if len(trace.sequence) < _FEWEST:
        raise UserError(
            f"{trace.path}: expected at least {_FEWEST} residues, found {len(trace.sequence)}",
            "give a longer structure",
        )
    if sequence is None:
        return _by_number(trace, n_residues)
    labels = list(dict.fromkeys(trace.chains.tolist()))
    if len(labels) == 1 or chains is None or len(chains) == 1:  # names of chains may be lost
        found = _match_chain(trace.sequence, trace.numbers, sequence)
        if found is None:
            raise _another_protein(trace, trace.chains == trace.chains)
        return found
    return _match_chains(trace, labels, sequence, chains)


def _by_number(trace: Trace, n_residues: int) -> Match:
    everything = np.arange(len(trace.sequence))
    if len(trace.sequence) == n_residues:
        return everything, everything
    index = trace.numbers - 1
    if index.min() < 0 or index.max() >= n_residues or (np.diff(index) < 1).any():
        raise UserError(
            f"{trace.path} has {len(index)} residues with numbers from {trace.numbers.min()} to "
            f"{trace.numbers.max()}, the predictions have {n_residues}",
            "give the sequence, or number the residues as in the predictions, from 1",
        )
    return index, everything


def _match_chains(
    trace: Trace, labels: Sequence[int], sequence: str, lengths: Sequence[int]
) -> Match:
    """Match chain by chain; each chain of the sequence is used once."""
    starts = np.cumsum([0, *lengths])
    free = {int(a): sequence[a:b] for a, b in itertools.pairwise(starts)}
    ours: list[Indices] = []
    theirs: list[Indices] = []
    for label in labels:
        rows = np.flatnonzero(trace.chains == label)
        part = "".join(trace.sequence[row] for row in rows)
        tried = {a: _match_chain(part, trace.numbers[rows], chain) for a, chain in free.items()}
        found = {a: match for a, match in tried.items() if match is not None}
        if not found:
            raise _another_protein(trace, trace.chains == label)
        best = max(found, key=lambda a: _n_equal(part, free[a], found[a]))
        del free[best]
        ours.append(best + found[best][0])
        theirs.append(rows[found[best][1]])
    order = np.argsort(np.concatenate(ours))
    return np.concatenate(ours)[order], np.concatenate(theirs)[order]


def _n_equal(part: str, chain: str, match: Match) -> int:
    return sum(chain[i] == part[j] for i, j in zip(*match, strict=True))


def _another_protein(trace: Trace, chosen: NDArray[np.bool_]) -> UserError:
    first, last = trace.numbers[chosen][[0, -1]]
    return UserError(
        f"{trace.path}: too few of the residues {first} to {last} are those of the sequence",
        "give the structure of the same protein, without other chains",
    )


def _match_chain(part: str, numbers: Indices, chain: str) -> Match | None:
    """Match one chain of a trace to one of the sequence; None for different proteins."""
    within = numbers[0] >= 1 and numbers[-1] <= len(chain) and (np.diff(numbers) > 0).all()
    if within and all(
        "X" in (letter, chain[n - 1]) or letter == chain[n - 1]
        for n, letter in zip(numbers, part, strict=True)
    ):
        return numbers - 1, np.arange(len(part))
    return _aligned(part, chain)


def _aligned(part: str, chain: str) -> Match | None:
    from biotite.sequence import ProteinSequence
    from biotite.sequence.align import SubstitutionMatrix, align_optimal

    matrix = SubstitutionMatrix.std_protein_matrix()
    pair = (ProteinSequence(chain), ProteinSequence(part))
    aligned = align_optimal(*pair, matrix, gap_penalty=(-10, -1), terminal_penalty=False)[0].trace
    both = aligned[(aligned >= 0).all(-1)].astype(np.int64)
    match = both[:, 0], both[:, 1]
    known = sum(letter != "X" for letter in part)
    if len(both) == 0 or _n_equal(part, chain, match) < max(_LEAST_IDENTITY * known, 1):
        return None
    return match


def check_sizes(lengths: Sequence[int]) -> None:
    """Check that chains of these lengths suffice for a dihedral angle, and fit a PDB file.

    Raises:
        UserError: They are not.
    """
    if sum(lengths) < _FEWEST:
        raise UserError(
            f"expected at least {_FEWEST} residues, found {sum(lengths)}", "give a longer protein"
        )
    if len(lengths) > len(_CHAIN_NAMES) or max(lengths) > _MOST_RESIDUES:
        raise UserError(
            f"a PDB file holds {len(_CHAIN_NAMES)} chains of {_MOST_RESIDUES} residues, found "
            f"{len(lengths)} with up to {max(lengths)}",
            "fold some of the chains",
        )


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

    Raises:
        UserError: A PDB file cannot hold it.
    """
    from biotite.sequence import ProteinSequence
    from biotite.structure import AtomArray
    from biotite.structure.io.pdb import PDBFile

    lengths = [len(ca)] if chains is None else list(chains)
    check_sizes(lengths)
    atoms = AtomArray(len(ca))
    # PDB columns end at 999.999; the origin is the centre.
    atoms.coord = (ca - ca.mean(0)).cpu().numpy()
    counted = np.concatenate([np.arange(1, length + 1) for length in lengths])
    atoms.res_id = counted if numbers is None else numbers
    atoms.chain_id = np.repeat(list(_CHAIN_NAMES[: len(lengths)]), lengths)
    atoms.atom_name[:], atoms.element[:] = "CA", "C"
    codes = sequence or "X" * len(ca)
    atoms.res_name = np.array(
        [ProteinSequence.convert_letter_1to3(c) if c != "X" else "UNK" for c in codes]
    )
    file = PDBFile()
    file.set_structure(atoms)
    with atomic_path(path) as temporary:
        file.write(str(temporary))
