"""Reference structures of BioEmu's benchmarks, matched to the residues of samples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mdtraj
import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import require_file
from protenix_eba.core.units import ANGSTROM_PER_NM
from protenix_eba.eval.suites.bioemu.samples import BACKBONE, residue_letters
from protenix_eba.eval.suites.registry import Float64s

__all__ = [
    "Local",
    "Reference",
    "aligned_residues",
    "read_local",
    "read_reference",
    "read_references",
]


@dataclass(frozen=True)
class Reference:
    """A reference structure of one chain.

    Attributes:
        name: Name of its file.
        sequence: One-letter code.
        numbers: `[L]` residue numbers.
        backbone: `[L, 4, 3]` N, CA, C and O, angstrom.
        cell: The crystal's cell, lengths in angstrom and angles in degrees; None of none.
    """

    name: str
    sequence: str
    numbers: NDArray[np.int64]
    backbone: Float64s
    cell: Float64s | None = None

    @property
    def ca(self) -> Float64s:
        """C-alpha atoms, `[L, 3]` in angstrom."""
        return self.backbone[:, 1]

    def ca_distances(self, i: NDArray[np.int64], j: NDArray[np.int64], *, images: bool) -> Float64s:
        """Return distances of C-alpha atoms, `[P]` in angstrom.

        Args:
            i: `[P]` positions.
            j: `[P]`.
            images: Whether to the nearest image in the crystal. The package does so, by a default
                of mdtraj and not meant: a residue that is near another molecule's in the crystal
                then has a native contact with its own chain.
        """
        if not images or self.cell is None:
            result: Float64s = np.linalg.norm(self.ca[i] - self.ca[j], axis=-1)
            return result
        alone = mdtraj.Trajectory(
            self.ca[None] / ANGSTROM_PER_NM, None,
            unitcell_lengths=self.cell[None, :3] / ANGSTROM_PER_NM,
            unitcell_angles=self.cell[None, 3:],
        )  # fmt: skip
        pairs = np.stack([i, j], axis=1)
        return np.asarray(mdtraj.compute_distances(alone, pairs)[0] * ANGSTROM_PER_NM, dtype=float)


@dataclass(frozen=True)
class Local:
    """Ranges of residue numbers of a benchmark of local changes.

    Attributes:
        alignment: The residues that are superposed; None for all.
        metric: Those that are compared.
    """

    alignment: frozenset[int] | None
    metric: frozenset[int]


def read_references(folder: Path) -> list[Reference]:
    """Read the structures of a test case, by the names of their files.

    Raises:
        UserError: None are there, or one cannot be read.
    """
    paths = sorted(folder.glob("*.pdb"))
    if not paths:
        raise UserError(f"no reference structure in {folder}", "download the data again")
    return [read_reference(path) for path in paths]


def read_reference(path: Path) -> Reference:
    """Read one structure of one chain.

    Raises:
        UserError: It is not there, or a residue lacks backbone atoms.
    """
    structure = mdtraj.load_pdb(str(require_file(path, "reference structure")))
    residues = list(structure.topology.residues)
    atoms = [[{a.name: a.index for a in r.atoms}.get(n, -1) for n in BACKBONE] for r in residues]
    index = np.array(atoms)
    if (index < 0).any():
        raise UserError(f"{path}: a residue lacks backbone atoms", "download the data again")
    xyz = np.asarray(structure.xyz[0], dtype=np.float64) * ANGSTROM_PER_NM
    numbers = np.array([r.resSeq for r in residues], dtype=np.int64)
    cell = None
    if structure.unitcell_lengths is not None:
        lengths = structure.unitcell_lengths[0] * ANGSTROM_PER_NM
        cell = np.concatenate([lengths, structure.unitcell_angles[0]]).astype(np.float64)
    return Reference(path.stem, residue_letters(structure.topology), numbers, xyz[index], cell)


def aligned_residues(reference: str, sample: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Match the residues of two sequences by a global alignment.

    Identity counts 1, opening a gap -0.5, going on nothing, as the package has it. Of alignments
    that are equally good Biopython's first is taken.

    Returns:
        `[P]` positions in the reference and `[P]` in the sample.
    """
    from Bio.Align import PairwiseAligner

    aligner = PairwiseAligner(mode="global", open_gap_score=-0.5)
    blocks = aligner.align(reference, sample)[0].aligned
    pairs = [
        np.concatenate([np.arange(start, end) for start, end in side]) if len(side) else np.zeros(0)
        for side in blocks
    ]
    return pairs[0].astype(np.int64), pairs[1].astype(np.int64)


def read_local(folder: Path, case: str, references: Sequence[Reference]) -> Local | None:
    """Read the ranges of a test case; None if it has none: all residues are compared."""
    path = folder / "local_residinfo" / f"{case}.json"
    if not path.is_file():
        return None
    content = json.loads(require_file(path, "residue ranges").read_text(encoding="utf-8"))
    last = max(int(reference.numbers.max()) for reference in references)
    alignment = content["alignment_resid_ranges"]
    return Local(
        None if alignment is None else _numbers(alignment, last),
        _numbers(content["metric_resid_ranges"], last),
    )


def _numbers(ranges: Sequence[Sequence[int | None]], last: int) -> frozenset[int]:
    """Return the numbers in ranges, ends included; an open end means the first or last residue."""
    return frozenset(
        number
        for start, end in ranges
        for number in range(1 if start is None else start, min(end or last, last) + 1)
    )
