"""Inter-residue predictions in trRosetta's bins: checking and rebinning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError

__all__ = [
    "DISTANCE_CENTRES",
    "DISTANCE_EDGES",
    "HOST_EDGES",
    "ORIENTATION_BINS",
    "Predictions",
    "check_probabilities",
    "rebin_distogram",
]

Array = NDArray[np.float32]

# trRosetta (Yang et al., PNAS 117, 1496, 2020): channel 0 says "further than 20 angstrom", the
# others are 0.5 angstrom wide from 2 to 20 (distances of C-beta atoms, C-alpha for glycine).
DISTANCE_EDGES: Final = np.linspace(2.0, 20.0, 37)
DISTANCE_CENTRES: Final = (DISTANCE_EDGES[1:] + DISTANCE_EDGES[:-1]) / 2
ORIENTATION_BINS: Final = {"omega": 25, "theta": 25, "phi": 13}
"""Channels of each angle; channel 0 as for distances, the others 15 degrees wide from -180 degrees
(omega and theta, dihedral angles) or from 0 (phi, an angle)."""

# What the distogram heads of Protenix and AlphaFold 2 are trained with: 63 boundaries, open ends.
HOST_EDGES: Final = np.linspace(2.3125, 21.6875, 63)

# Sums of probabilities that were stored as float16 are off by less.
_SUM_TOLERANCE: Final = 0.02


@dataclass(frozen=True)
class Predictions:
    """Predicted probabilities of distances and orientations, for each pair of residues.

    Attributes:
        distance: `[L, L, 37]`, channel 0 for more than 20 angstrom.
        omega: `[L, L, 25]`, the dihedral angle CA_i CB_i CB_j CA_j, or None.
        theta: `[L, L, 25]`, the dihedral angle N_i CA_i CB_i CB_j, or None.
        phi: `[L, L, 13]`, the angle CA_i CB_i CB_j, or None.

    Raises:
        UserError: A shape is wrong, some but not all orientations are given, or numbers are not
            probabilities.
    """

    distance: Array
    omega: Array | None = None
    theta: Array | None = None
    phi: Array | None = None

    def __post_init__(self) -> None:
        check_probabilities("dist", self.distance, len(self.distance), len(DISTANCE_EDGES))
        given = {name: getattr(self, name) for name in ORIENTATION_BINS}
        missing = [name for name, value in given.items() if value is None]
        if 0 < len(missing) < len(given):
            raise UserError(
                f"orientations: expected all of {', '.join(given)} or none, missing "
                f"{', '.join(missing)}",
                "give the missing ones, or leave all out to fold from distances",
            )
        for name, value in given.items():
            if value is not None:
                check_probabilities(name, value, self.n_residues, ORIENTATION_BINS[name])

    @property
    def n_residues(self) -> int:
        """Number of residues L."""
        return len(self.distance)

    @property
    def has_orientations(self) -> bool:
        """Whether there are omega, theta and phi."""
        return self.omega is not None

    def without_orientations(self) -> Predictions:
        """Return the predictions of distances alone."""
        return Predictions(self.distance)

    def subset(self, residues: NDArray[np.integer]) -> Predictions:
        """Return the predictions among some residues, in their order."""
        pairs = np.ix_(residues, residues)
        parts = (self.distance, self.omega, self.theta, self.phi)
        return Predictions(*(cast(Array, None if p is None else p[pairs]) for p in parts))


def check_probabilities(name: str, values: Array, n_residues: int, n_bins: int) -> None:
    """Refuse what are not probabilities of the bins of each pair of residues.

    Args:
        name: Of the array, for the message.
        values: To be `[L, L, bins]`.
        n_residues: Number of residues L.
        n_bins: Number of bins.

    Raises:
        UserError: The shape is another, or numbers are negative, NaN or do not sum to 1.
    """
    expected = (n_residues, n_residues, n_bins)
    if values.shape != expected or n_residues < 1:
        raise UserError(f"{name}: expected an array of shape {expected}, found {values.shape}")
    if not np.isfinite(values).all() or values.min() < 0:
        raise UserError(f"{name}: expected probabilities, found negative numbers or NaN")
    off = float(np.abs(values.sum(-1) - 1).max())
    if off > _SUM_TOLERANCE:
        raise UserError(
            f"{name}: the probabilities of a pair sum to 1, found a sum that is off by {off:.3g}",
            "give probabilities (after softmax), not logits",
        )


def rebin_distogram(probability: Array, edges: NDArray[np.floating] = HOST_EDGES) -> Array:
    """Convert distance bins with open ends to trRosetta's 37, by the overlap of bins.

    Mass is conserved. All below 2 angstrom or the first edge goes to the first bin, from 2 to 2.5
    angstrom, and all above 20 to channel 0.

    Args:
        probability: `[..., bins]`, softmax of the logits.
        edges: `[bins - 1]` boundaries in angstrom, those of Protenix.

    Returns:
        `[..., 37]`.
    """
    rebinned: Array = (probability @ _overlaps(edges)).astype(np.float32)
    return rebinned


def _overlaps(edges: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the matrix `[bins, 37]` of this conversion; rows sum to 1."""
    matrix = np.zeros((len(edges) + 1, len(DISTANCE_EDGES)))
    matrix[0, 1] = 1.0
    low, high = edges[:-1, None], edges[1:, None]
    lowest = np.array([-np.inf, *DISTANCE_EDGES[1:-1]])  # what is nearer is not far
    overlap = np.minimum(high, DISTANCE_EDGES[1:]) - np.maximum(low, lowest)
    matrix[1:-1, 1:] = np.clip(overlap / (high - low), 0.0, None)
    matrix[1:, 0] = 1.0 - matrix[1:, 1:].sum(-1)
    return matrix
