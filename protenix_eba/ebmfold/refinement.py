"""Refinement of structures of one protein, one by one, into a folder with their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protenix_eba.core.errors import UserError
from protenix_eba.core.progress import track
from protenix_eba.core.seeds import stream_seed
from protenix_eba.ebmfold.conformations import Conformation, find_conformations
from protenix_eba.ebmfold.fold import score_table
from protenix_eba.ebmfold.likelihood import PairLikelihood
from protenix_eba.ebmfold.metrics import lddt_ca
from protenix_eba.ebmfold.score_folder import ScoreFolder
from protenix_eba.ebmfold.structures import match_residues, write_trace
from protenix_eba.ebmfold.target import Target

if TYPE_CHECKING:
    from protenix_eba.ebmfold.heads import Head

__all__ = ["Refinement", "all_conformations", "refine_missing"]

Indices = NDArray[np.int64]
Match = tuple[Indices, Indices]


@dataclass(frozen=True)
class Refinement:
    """Refines any structure of a protein with the same predictions and settings.

    Attributes:
        target: The predictions.
        chains: Lengths of its chains.
        head: Refines each.
        native: See `compared_with`.
        level: To start from in angstrom, or None.
    """

    target: Target
    chains: Sequence[int]
    head: Head
    native: tuple[Tensor, Match] | None
    level: float | None

    def __call__(self, conformation: Conformation, path: Path, seed: int) -> dict[str, Any]:
        """Refine one structure and write it; return its scores before and after.

        Raises:
            UserError: It cannot be read, or is another protein.
        """
        trace = conformation.read()
        target = self.target
        present, rows = match_residues(trace, target.n_residues, target.sequence, self.chains)
        part, ca = target.subset(present), trace.ca[torch.from_numpy(rows)]
        refined, start = self.head.refine_trace(part, ca, seed, self.level)
        compared = self._compared(present)
        scores = score_table(refined, *compared)[0] | {
            "starting_level_angstrom": start,
            "n_residues": len(present),
            "negative_log_likelihood_before": float(PairLikelihood(part)(ca)),
            "lddt_ca_before": None,
        }
        if compared:
            native, (ours, theirs) = compared
            scores["lddt_ca_before"] = float(lddt_ca(ca[None, ours], native[theirs])[0])
        self._write(path, refined.ca[0], part.sequence, present)
        return scores

    def _compared(self, present: Indices) -> tuple[Any, ...]:
        """Return the native atoms and which residues of both are compared, or an empty tuple."""
        if self.native is None:
            return ()
        ca, (known, rows) = self.native
        _, ours, both = np.intersect1d(present, known, return_indices=True)
        if len(ours) < len(present) / 2:
            raise UserError(
                f"the native structure has {len(ours)} of the {len(present)} residues",
                "compare with a structure that has more of them",
            )
        return ca, (ours, rows[both])

    def _write(self, path: Path, ca: Tensor, sequence: str | None, present: Indices) -> None:
        """Write a trace with the numbers that its residues have in their chains."""
        ends = np.cumsum(self.chains)
        chain = np.searchsorted(ends, present, side="right")
        lengths = np.bincount(chain, minlength=len(ends))
        numbers = present + 1 - (ends - np.array(self.chains))[chain]
        write_trace(path, ca, sequence, lengths.tolist(), numbers)


def refine_missing(
    folder: ScoreFolder, found: Sequence[Conformation], refine_one: Refinement, seed: int
) -> dict[str, str]:
    """Refine the missing structures with a progress bar; return why some failed, by name."""
    failures: dict[str, str] = {}
    missing = folder.missing
    for number, conformation in enumerate(track(found, "refining", len(found))):
        file = f"{conformation.name}.pdb"
        if file in missing:
            try:
                row = refine_one(conformation, folder.out / file, stream_seed(seed, number))
                folder.add(file, row)
            except UserError as error:
                failures[conformation.name] = str(error)
    folder.write(failures)
    return failures


def all_conformations(structures: Sequence[Path]) -> list[Conformation]:
    """Find all conformations of all paths.

    Raises:
        UserError: There are none at a path, or two have one name.
    """
    found = [conformation for path in structures for conformation in find_conformations(path)]
    names = [conformation.name for conformation in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(
            f"--structures: {', '.join(twice[:5])} occurs twice", "rename the files or folders"
        )
    return found
