"""Data for `viewer.js`: C-alpha traces of a few frames, small enough for one HTML file."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from protenix_eba.eval.report.plots.style import MD, Targets, label_colours
from protenix_eba.eval.target_result import TargetResult

__all__ = ["viewer_data", "viewer_script"]

# Hundredths of an angstrom in 16 bits: up to 327 angstrom from the centre.
_STEP_ANGSTROM: Final = 0.01
_MAX_FRAMES: Final = 12


def viewer_script() -> str:
    """Return the viewer's source, to stand in the page."""
    return resources.files("protenix_eba.eval.report").joinpath("viewer.js").read_text("utf-8")


def viewer_data(targets: Targets, labels: Sequence[str]) -> dict[str, Any]:
    """Return the traces of these targets, for JSON.

    Args:
        targets: Those with frames.
        labels: Models, in the order of their colours.
    """
    colours = label_colours(labels)
    return {"targets": [_target(name, results, colours) for name, results in targets.items()]}


def _target(
    name: str, results: Mapping[str, TargetResult], colours: Mapping[str, str]
) -> dict[str, Any]:
    first = next(iter(results.values()))
    residues = _residues(first)
    md = _trace(first, "md_frames", residues)
    # Straight on the two widest directions.
    points = md.reshape(-1, 3)
    axes = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2]
    axes[2] *= np.sign(np.linalg.det(axes))  # a mirror image would be another protein
    turned = points @ axes.T
    centre = 0.5 * (turned.min(axis=0) + turned.max(axis=0))
    groups = [("MD", MD, md)]
    for label, result in results.items():
        if _residues(result) == residues:
            groups.append((label, colours[label], _trace(result, "sample_frames", residues)))
    chains = [residue[0] for residue in residues]
    return {
        "name": name,
        "length": len(residues),
        "chain_starts": [i for i in range(1, len(chains)) if chains[i] != chains[i - 1]],
        "groups": [
            {
                "label": label,
                "colour": colour,
                "frames": len(xyz),
                "packed": _pack(xyz @ axes.T - centre),
            }
            for label, colour, xyz in groups
        ],
    }


def _residues(result: TargetResult) -> list[tuple[str, int]]:
    chains = [str(chain) for chain in result.arrays["chain_ids"]]
    numbers = [int(number) for number in result.arrays["residue_numbers"]]
    return list(zip(chains, numbers, strict=True))


def _trace(
    result: TargetResult, key: str, residues: Sequence[tuple[str, int]]
) -> NDArray[np.float32]:
    """Return the C-alpha atoms in the order of the residues, `[<= 12, L, 3]`."""
    row = np.asarray(result.arrays["atom_residue"], dtype=np.int64)
    ca = np.flatnonzero((np.asarray(result.arrays["atom_names"]) == "CA") & (row >= 0))
    ca = ca[np.argsort(row[ca], kind="stable")]
    if len(ca) != len(residues):
        raise ValueError(f"expected {len(residues)} C-alpha atoms, got {len(ca)}")
    return np.asarray(result.arrays[key][:_MAX_FRAMES, ca], dtype=np.float32)


def _pack(xyz: NDArray[np.floating]) -> str:
    limits = np.iinfo(np.int16)
    steps = np.clip(np.rint(xyz / _STEP_ANGSTROM), limits.min, limits.max).astype("<i2")
    return base64.b64encode(steps.tobytes()).decode("ascii")
