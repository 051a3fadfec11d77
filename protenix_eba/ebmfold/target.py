"""The protein to fold, and the pair features that the networks read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protenix_eba.core.errors import UserError
from protenix_eba.ebmfold.predictions import ORIENTATION_BINS, Predictions

__all__ = ["AMINO_ACIDS", "N_FEATURES", "Target", "pair_features", "positional_encoding"]

AMINO_ACIDS: Final = "ACDEFGHIKLMNPQRSTVWY"
_D_POSITION: Final = 48
_N_ORIENTATION: Final = sum(ORIENTATION_BINS.values())
N_FEATURES: Final = 2 * len(AMINO_ACIDS) + _D_POSITION + 37 + _N_ORIENTATION + 1
"""Channels of `pair_features`: 189."""


@dataclass(frozen=True)
class Target:
    """A protein to fold.

    Attributes:
        name: Name for files and reports.
        predictions: Predictions for its pairs of residues.
        sequence: One letter per residue, others than the 20 amino acids as unknown; None if it is
            not known.
        residue_index: `[L]`, rising; residues whose numbers differ by 1 are bonded, a larger step
            is a chain break or missing residues. None for one chain without breaks.

    Raises:
        UserError: The lengths differ, or the numbers do not rise.
    """

    name: str
    predictions: Predictions
    sequence: str | None = None
    residue_index: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        length = self.predictions.n_residues
        if self.sequence is not None and len(self.sequence) != length:
            raise UserError(
                f"{self.name}: the sequence has {len(self.sequence)} residues, the predictions "
                f"have {length}",
                "give the sequence that the predictions were made for",
            )
        if self.residue_index is not None and (
            len(self.residue_index) != length or (np.diff(self.residue_index) < 1).any()
        ):
            raise UserError(f"{self.name}: expected {length} rising residue numbers")

    @property
    def n_residues(self) -> int:
        """Number of residues L."""
        return self.predictions.n_residues

    @cached_property
    def positions(self) -> Tensor:
        """Residue numbers `[L]`, from 0 if none are given."""
        given = self.residue_index
        return torch.arange(self.n_residues) if given is None else torch.as_tensor(given)

    @cached_property
    def bonded(self) -> Tensor:
        """Whether each residue is bonded to the next, `[L - 1]`."""
        return self.positions.diff() == 1

    def subset(self, residues: NDArray[np.int64]) -> Target:
        """Return the target of some of the residues, in rising order."""
        sequence = self.sequence and "".join(self.sequence[i] for i in residues)
        index = self.positions.numpy()[residues]
        return Target(self.name, self.predictions.subset(residues), sequence, index)


def positional_encoding(positions: Tensor) -> Tensor:
    """Return sine and cosine of a residue's number at 12 frequencies (Eq. 11-12).

    The paper lets r run from 0 to D/4, which gives 26 numbers of a residue where 24 are meant: a
    pair has those of both, D = 48 in all. Here r runs to D/4 - 1.

    Args:
        positions: `[L]`.

    Returns:
        `[L, 24]`.
    """
    r = torch.arange(_D_POSITION // 4)
    frequency = 10000.0 ** (-2.0 * r / (_D_POSITION // 2))
    angle = positions[:, None].float() * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def pair_features(target: Target, rows: slice = slice(None)) -> Tensor:
    """Compute the networks' inputs for some rows of the pair matrix (section 4.1).

    Channels: amino acids of i and j (20 + 20), their positional encodings (24 + 24), distance
    (37), omega (25), theta (25), phi (13), and 1 where orientations are given. Without them, or
    without a sequence, those channels are 0: one network serves both.

    Args:
        target: L residues.
        rows: Residues i to compute, so that a long chain's features need not exist at once.

    Returns:
        `[R, L, 189]` float32.
    """
    codes = torch.tensor([AMINO_ACIDS.find(code) for code in target.sequence or ""]).long()
    one_hot = torch.zeros(target.n_residues, len(AMINO_ACIDS))
    known = (codes >= 0).nonzero()[:, 0]
    one_hot[known, codes[known]] = 1.0
    position = positional_encoding(target.positions)
    predictions = target.predictions
    # A copy: the arrays may be read-only.
    distance = torch.tensor(predictions.distance[rows])
    shape = distance.shape[:2]

    def of_pairs(single: Tensor) -> list[Tensor]:
        return [single[rows, None].expand(*shape, -1), single[None].expand(*shape, -1)]

    if predictions.has_orientations:
        angles = [torch.tensor(getattr(predictions, name)[rows]) for name in ORIENTATION_BINS]
    else:
        angles = [torch.zeros(*shape, _N_ORIENTATION)]
    flag = torch.full((*shape, 1), float(predictions.has_orientations))
    return torch.cat([*of_pairs(one_hot), *of_pairs(position), distance, *angles, flag], dim=-1)
