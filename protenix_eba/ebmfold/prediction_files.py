"""Files of inter-residue predictions: reading those of several programs, writing our own."""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import atomic_path, require_file
from protenix_eba.ebmfold.bin_order import (
    check_neighbours,
    no_contact_is_last,
    with_trrosettas_bins,
)
from protenix_eba.ebmfold.predictions import (
    DISTANCE_EDGES,
    HOST_EDGES,
    ORIENTATION_BINS,
    Array,
    Predictions,
    check_probabilities,
    rebin_distogram,
)

__all__ = ["read_chains", "read_predictions", "read_source", "write_predictions"]

# The array that files of `write_predictions` have, and those of others have not.
_SOURCE: Final = "source"
_ALPHAFOLD: Final = ("logits", "bin_edges")
# Narrower distograms do not say what is within 20 angstrom, wider first bins not what is near.
_LOWEST, _HIGHEST = 4.0, float(DISTANCE_EDGES[-1])
_HINT: Final = (
    "store distance probabilities [L, L, 37] (trRosetta, RoseTTAFold) or [L, L, 64] (Protenix) as "
    "dist, or AlphaFold 2's distogram as logits [L, L, 64] and bin_edges [63]"
)


def read_predictions(path: Path | str, *, orientations: bool = True) -> Predictions:
    """Read predictions of trRosetta, RoseTTAFold, Protenix or AlphaFold 2.

    Args:
        path: npz file, or JSON with lists of numbers under the same names. `dist` `[L, L, 37]` and,
            if orientations are known, `omega`, `theta` and `phi`; or `dist` `[L, L, 64]` in
            Protenix's bins; or AlphaFold 2's `logits` `[L, L, bins]` with `bin_edges` `[bins - 1]`
            in angstrom, in JSON also under `distogram`. Other arrays are ignored.
        orientations: False does not look at omega, theta and phi.

    Raises:
        UserError: It cannot be read, or does not hold predictions.
    """
    names = ("dist", *_ALPHAFOLD, *(ORIENTATION_BINS if orientations else ()), _SOURCE)
    arrays, found = _read_arrays(path, names)
    own = arrays.pop(_SOURCE, None) is not None
    if "dist" not in arrays and not set(_ALPHAFOLD) <= set(arrays):
        raise UserError(
            f"predictions: expected an array `dist`, or `logits` and `bin_edges`, in {path}, found "
            f"{', '.join(found[:8]) or 'none'}",
            _HINT,
        )
    try:
        if "dist" in arrays:
            given = {name: arrays[name] for name in ("dist", *ORIENTATION_BINS) if name in arrays}
            return _from_arrays(given, own=own)
        return _from_logits(*(arrays[name] for name in _ALPHAFOLD))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _read_arrays(
    path: Path | str, names: Collection[str]
) -> tuple[dict[str, NDArray[np.generic]], list[str]]:
    """Read those of some arrays that a file has; return also the names of all."""
    path = require_file(path, "predictions")
    try:
        if path.suffix.lower() == ".json":
            values = _json_values(path)
            return {n: np.asarray(values[n]) for n in names if n in values}, list(values)
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise ValueError("a single array, not an npz archive")
        with loaded as archive:
            arrays = {name: archive[name] for name in names if name in archive.files}
            return arrays, archive.files
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error, RecursionError) as error:
        raise UserError(
            f"predictions: cannot read {path}: {error}",
            "give an npz file, written by numpy.savez, or JSON",
        ) from error


def _json_values(path: Path) -> dict[str, Any]:
    values = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError(f"expected an object with named arrays, found {type(values).__name__}")
    nested = values.get("distogram")
    return {**values, **nested} if isinstance(nested, dict) else values


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
    arrays, _ = _read_arrays(path, [_SOURCE])
    return str(arrays[_SOURCE]) if _SOURCE in arrays else None


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
    numbers = {name: _numbers(name, values, 3) for name, values in arrays.items()}
    distance = numbers.pop("dist")
    if distance.shape[-1] == len(HOST_EDGES) + 1:
        check_probabilities("dist", distance, len(distance), len(HOST_EDGES) + 1)
        distance = rebin_distogram(distance)
    elif not own:
        check_probabilities("dist", distance, len(distance), len(DISTANCE_EDGES))
        # Angles in trRosetta's bins tell the order where no two residues are far apart.
        theirs = all(v.shape[-1] == ORIENTATION_BINS[name] for name, v in numbers.items())
        if not (numbers and theirs) and no_contact_is_last(distance):
            distance = with_trrosettas_bins("dist", distance)
            numbers = {name: with_trrosettas_bins(name, v) for name, v in numbers.items()}
    if not own:
        check_neighbours(distance)
    return Predictions(distance, **numbers)


def _from_logits(logits: NDArray[np.generic], edges: NDArray[np.generic]) -> Predictions:
    """Return the predictions of a distogram as AlphaFold 2 keeps it."""
    values, bounds = _numbers("logits", logits, 3), _numbers("bin_edges", edges, 1)
    if values.shape[-1] != len(bounds) + 1:
        raise UserError(
            f"logits: expected one bin more than the {len(bounds)} bin_edges, found "
            f"{values.shape[-1]}"
        )
    for name, found in ("logits", values), ("bin_edges", bounds):
        if not np.isfinite(found).all():
            raise UserError(f"{name}: expected finite numbers, found NaN or infinite ones")
    if not (np.diff(bounds) > 0).all() or bounds[0] > _LOWEST or bounds[-1] < _HIGHEST:
        raise UserError(
            f"bin_edges: expected angstrom in rising order, from {_LOWEST:g} or below to "
            f"{_HIGHEST:g} or above, found {bounds[0]:g} to {bounds[-1]:g}"
        )
    distance = rebin_distogram(softmax(values.astype(np.float64), axis=-1), bounds)
    check_neighbours(distance)
    return Predictions(distance)


def _numbers(name: str, values: NDArray[np.generic], n_dimensions: int) -> Array:
    shape = {3: "[L, L, bins]", 1: "[bins - 1]"}[n_dimensions]
    if values.ndim != n_dimensions or values.dtype.kind not in "fiu" or not values.size:
        raise UserError(
            f"{name}: expected numbers of shape {shape}, found {values.dtype} {values.shape}"
        )
    return values.astype(np.float32)
