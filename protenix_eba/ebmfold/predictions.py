"""Inter-residue predictions in trRosetta's bins: reading, checking, rebinning."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import atomic_path, require_file
from protenix_eba.ebmfold.bin_order import (
    check_neighbours,
    no_contact_is_last,
    with_trrosettas_bins,
)

__all__ = [
    "DISTANCE_EDGES",
    "HOST_EDGES",
    "ORIENTATION_BINS",
    "Predictions",
    "read_chains",
    "read_predictions",
    "read_source",
    "rebin_host_distogram",
    "write_predictions",
]

Array = NDArray[np.float32]

# trRosetta (Yang et al., PNAS 117, 1496, 2020): channel 0 says "further than 20 angstrom", the
# others are 0.5 angstrom wide from 2 to 20 (distances of C-beta atoms, C-alpha for glycine).
DISTANCE_EDGES: Final = np.linspace(2.0, 20.0, 37)
ORIENTATION_BINS: Final = {"omega": 25, "theta": 25, "phi": 13}
"""Channels of each angle; channel 0 as for distances, the others 15 degrees wide from -180 degrees
(omega and theta, dihedral angles) or from 0 (phi, an angle)."""

# What Protenix's distogram head is trained with: 63 boundaries, and open ends.
HOST_EDGES: Final = np.linspace(2.3125, 21.6875, 63)

# The array that files of `write_predictions` have, and those of others have not.
_SOURCE: Final = "source"
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
        _check("dist", self.distance, len(self.distance), len(DISTANCE_EDGES))
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
                _check(name, value, self.n_residues, ORIENTATION_BINS[name])

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


def _check(name: str, values: Array, n_residues: int, n_bins: int) -> None:
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


def read_predictions(path: Path | str, *, orientations: bool = True) -> Predictions:
    """Read an npz file of trRosetta or RoseTTAFold, or one with Protenix's distogram.

    Args:
        path: File with `dist` `[L, L, 37]` and, if orientations are known, `omega`, `theta` and
            `phi`; or with `dist` `[L, L, 64]` in Protenix's bins. Other arrays are ignored.
        orientations: False does not look at omega, theta and phi.

    Raises:
        UserError: It cannot be read, or does not hold predictions.
    """
    names = ("dist", *(ORIENTATION_BINS if orientations else ()), _SOURCE)
    arrays, found = _read_arrays(path, names)
    own = arrays.pop(_SOURCE, None) is not None
    if "dist" not in arrays:
        raise UserError(
            f"predictions: expected an array `dist` in {path}, found "
            f"{', '.join(found[:8]) or 'none'}",
            "store distance probabilities [L, L, 37] (trRosetta) or [L, L, 64] (Protenix) as dist",
        )
    try:
        return _from_arrays(arrays, own=own)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _read_arrays(
    path: Path | str, names: Sequence[str]
) -> tuple[dict[str, NDArray[np.generic]], list[str]]:
    """Read those of some arrays that an npz file has; return also the names of all."""
    path = require_file(path, "predictions")
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise ValueError("a single array, not an npz archive")
        with loaded as archive:
            arrays = {name: archive[name] for name in names if name in archive.files}
            return arrays, archive.files
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error) as error:
        raise UserError(
            f"predictions: cannot read {path}: {error}", "give an npz file, written by numpy.savez"
        ) from error


def read_chains(path: Path | str) -> tuple[str, ...]:
    """Read the sequences of chains that `write_predictions` stored; none in other files.

    Raises:
        UserError: It cannot be read.
    """
    arrays, _ = _read_arrays(path, ["chains"])
    return tuple(str(chain) for chain in arrays.get("chains", np.array([])).ravel())


def read_source(path: Path | str) -> str | None:
    """Read what `write_predictions` was told of the origin; None in other files.

    Raises:
        UserError: It cannot be read.
    """
    arrays, _ = _read_arrays(path, ["source"])
    return str(arrays["source"]) if "source" in arrays else None


def write_predictions(
    path: Path | str, predictions: Predictions, chains: Sequence[str], source: str
) -> None:
    """Write predictions for `read_predictions`, as float16; they are to be read before use.

    Args:
        path: npz file.
        predictions: Predictions for L residues.
        chains: The sequence of each chain, X for residues that are none of the 20.
        source: What they were made from.
    """
    arrays = {"dist": predictions.distance} | {
        name: getattr(predictions, name) for name in ORIENTATION_BINS
    }
    halves = {name: v.astype(np.float16) for name, v in arrays.items() if v is not None}
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **halves, chains=np.array(chains), source=np.array(source))


def _from_arrays(arrays: Mapping[str, NDArray[np.generic]], *, own: bool) -> Predictions:
    """Check arrays and bring them into trRosetta's bins, in which `own` files are already."""
    for name, values in arrays.items():
        if values.ndim != 3 or values.dtype.kind not in "fiu":
            raise UserError(
                f"{name}: expected numbers of shape [L, L, bins], found {values.dtype} "
                f"{values.shape}"
            )
    numbers = {name: values.astype(np.float32) for name, values in arrays.items()}
    distance = numbers.pop("dist")
    if distance.shape[-1] == len(HOST_EDGES) + 1:
        distance = rebin_host_distogram(distance)
    elif not own:
        _check("dist", distance, len(distance), len(DISTANCE_EDGES))
        # Angles in trRosetta's bins tell the order where no two residues are far apart.
        theirs = all(v.shape[-1] == ORIENTATION_BINS[name] for name, v in numbers.items())
        if not (numbers and theirs) and no_contact_is_last(distance):
            distance = with_trrosettas_bins("dist", distance)
            numbers = {name: with_trrosettas_bins(name, v) for name, v in numbers.items()}
        check_neighbours(distance)
    return Predictions(distance, **numbers)


def rebin_host_distogram(probability: Array) -> Array:
    """Convert Protenix's 64 distance bins to trRosetta's 37, by the overlap of bins.

    Mass is conserved. All below 2.3125 angstrom goes to the first bin, from 2 to 2.5, and all
    above 20 to channel 0.

    Args:
        probability: `[..., 64]`, softmax of the logits.

    Returns:
        `[..., 37]`.
    """
    rebinned: Array = (probability @ _rebin_matrix()).astype(np.float32)
    return rebinned


def _rebin_matrix() -> NDArray[np.float64]:
    """Return the matrix `[64, 37]` of this conversion; rows sum to 1."""
    matrix = np.zeros((len(HOST_EDGES) + 1, len(DISTANCE_EDGES)))
    matrix[0, 1] = 1.0
    low, high = HOST_EDGES[:-1, None], HOST_EDGES[1:, None]
    overlap = np.minimum(high, DISTANCE_EDGES[1:]) - np.maximum(low, DISTANCE_EDGES[:-1])
    matrix[1:-1, 1:] = np.clip(overlap / (high - low), 0.0, None)
    matrix[1:, 0] = 1.0 - matrix[1:, 1:].sum(-1)
    return matrix
