"""Similarity of structures: RMSD after superposition and TM-score, for paired residues."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.compiled import compiler
from protenix_eba.eval.protocol.alignment import Floats, centred, superpose
from protenix_eba.eval.suites.registry import Float64s

__all__ = ["rmsd", "tm_scale_angstrom", "tm_scores"]

_MIN_FRAGMENT: Final = 4
_MAX_ROUNDS: Final = 20


def rmsd(xyz: Floats, reference_xyz: Floats) -> Float64s:
    """Return the least root mean square deviation from the reference, `[S]` in angstrom.

    Args:
        xyz: `[S, L, 3]` angstrom.
        reference_xyz: `[L, 3]`.

    Source: Kabsch, Acta Cryst. A32, 922 (1976).
    """
    placed = superpose(np.asarray(xyz, dtype=np.float64), reference_xyz)
    squares = np.square(placed - centred(reference_xyz)).sum(axis=-1)
    result: Float64s = np.sqrt(squares.mean(axis=-1))
    return result


def tm_scale_angstrom(n_residues: int) -> float:
    """Return the distance d0 at which a residue counts half in the TM-score, in angstrom.

    1.24 (L - 15)^(1/3) - 1.8, at least 0.5 as in the authors' program.

    Source: Zhang and Skolnick, Proteins 57, 702 (2004), Eq. 2.
    """
    if n_residues <= 15:
        return 0.5
    return max(0.5, 1.24 * float(np.cbrt(n_residues - 15)) - 1.8)


def tm_scores(xyz: Floats, reference_xyz: Floats, n_residues: int | None = None) -> Float64s:
    """Return TM-scores `[S]` of structures whose residues are paired with the reference's.

    The score is the largest over superpositions. As in the authors' program, these start from
    fragments of the chain, and each goes on to the residues that it brings close, until these do
    not change; so what is found is a lower bound, in practice the maximum.

    Args:
        xyz: `[S, L, 3]` angstrom.
        reference_xyz: `[L, 3]`, L of 3 or more.
        n_residues: Length of the reference, by which the score is normalised; L when None.
            Residues that have no partner count 0.

    Source: Zhang and Skolnick, Proteins 57, 702 (2004).
    """
    target = np.ascontiguousarray(reference_xyz, dtype=np.float64)
    length = n_residues or len(target)
    scale = tm_scale_angstrom(length)
    frames = np.ascontiguousarray(xyz, dtype=np.float64)
    return np.array([_tm_score(frame, target, scale) / length for frame in frames])


_compiled = compiler()


@_compiled
def _placement(
    mobile: NDArray[Any], target: NDArray[Any], rows: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return rotation and centres that superpose some rows of one point set on another's."""
    mobile_centre, target_centre = np.zeros(3), np.zeros(3)
    for row in rows:
        mobile_centre += mobile[row]
        target_centre += target[row]
    mobile_centre /= len(rows)
    target_centre /= len(rows)
    products = np.zeros((3, 3))
    for row in rows:
        for i in range(3):
            for j in range(3):
                products[i, j] += (mobile[row, i] - mobile_centre[i]) * (
                    target[row, j] - target_centre[j]
                )
    u, _, vt = np.linalg.svd(products)
    if np.linalg.det(u @ vt) < 0.0:  # a reflection: turn the axis of the smallest singular value
        u[:, 2] *= -1.0
    return u @ vt, mobile_centre, target_centre


@_compiled
def _squared_distances(
    mobile: NDArray[Any], target: NDArray[Any], rows: NDArray[Any]
) -> NDArray[Any]:
    """Return squared distances of all residues, `[L]`, after the superposition of some."""
    turn, mobile_centre, target_centre = _placement(mobile, target, rows)
    found = np.empty(len(mobile))
    for n in range(len(mobile)):
        total = 0.0
        for j in range(3):
            moved = target_centre[j]
            for i in range(3):
                moved += (mobile[n, i] - mobile_centre[i]) * turn[i, j]
            total += (moved - target[n, j]) ** 2
        found[n] = total
    return found


@_compiled
def _close(squares: NDArray[Any], cutoff: float) -> NDArray[Any]:
    """Return the residues within a distance, which grows until there are three."""
    while True:
        rows = np.flatnonzero(squares < cutoff * cutoff)
        if len(rows) >= 3:
            return rows
        cutoff += 0.5


@_compiled
def _tm_score(mobile: NDArray[Any], target: NDArray[Any], scale: float) -> float:
    """Return the largest sum over residues of 1 / (1 + (d / scale)^2)."""
    length, best = len(mobile), 0.0
    # The cutoff of the search: the authors' program keeps it between these.
    search = min(max(scale, 4.5), 8.0)
    fragment = length
    while True:
        step = max(1, fragment // 8)
        for start in range(0, length - fragment + 1, step):
            rows = np.arange(start, start + fragment)
            cutoff = search - 1.0
            for _ in range(_MAX_ROUNDS):
                squares = _squared_distances(mobile, target, rows)
                best = max(best, (1.0 / (1.0 + squares / scale**2)).sum())
                found = _close(squares, cutoff)
                cutoff = search + 1.0
                if len(found) == len(rows) and (found == rows).all():
                    break
                rows = found
        if fragment <= _MIN_FRAGMENT:
            return best
        fragment = max(fragment // 2, _MIN_FRAGMENT)
