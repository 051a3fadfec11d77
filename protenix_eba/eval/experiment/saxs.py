"""Small-angle scattering of an ensemble in water, and its fit to a measured curve.

Each atom scatters as its electrons, less c1 times the water whose place it takes, plus c2 times the
dense water on its open surface. So a curve is a sum of six: the products of these three, which do
not depend on c1 and c2 and are averaged over conformations once.

Source: Schneidman-Duhovny, Hammel, Tainer and Sali, Biophys. J. 105, 962 (2013); the parameters'
ranges are those of their program FoXS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import mdtraj
import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import require_file
from protenix_eba.core.text_files import read_text
from protenix_eba.core.units import ANGSTROM_PER_NM
from protenix_eba.eval.experiment.debye import pair_counts, scattering
from protenix_eba.eval.experiment.groups import WATER, Group, displaced, expansion, in_vacuum

__all__ = ["Curve", "Fit", "fit_curve", "partial_curves", "read_curve"]

Float64s = NDArray[np.float64]

_C1: Final = np.linspace(0.95, 1.05, 21)
_C2: Final = np.linspace(-2.0, 4.0, 61)
_SPHERE_POINTS: Final = 96
_PROBE_NM: Final = 0.14


@dataclass(frozen=True)
class Curve:
    """A measured scattering curve.

    Attributes:
        q: `[Q]` 1 / angstrom.
        intensity: `[Q]` in any unit.
        error: `[Q]` standard deviations.
        n_beyond: Points of the file beyond the largest q.
    """

    q: Float64s
    intensity: Float64s
    error: Float64s
    n_beyond: int = 0


@dataclass(frozen=True)
class Fit:
    """A calculated curve on the scale of a measured one.

    Attributes:
        intensity: `[Q]`.
        chi2: Mean square deviation in standard deviations.
        scale: Factor of the calculated curve.
        background: What was added.
        c1: Radius of displaced volumes over the tables'.
        c2: Density of the water on the surface, in the unit of FoXS.
    """

    intensity: Float64s
    chi2: float
    scale: float
    background: float
    c1: float
    c2: float

    @property
    def at_end(self) -> list[str]:
        """Those of c1 and c2 that are at an end of what was tried: a better fit may lie beyond."""
        tried = {"c1": (self.c1, _C1), "c2": (self.c2, _C2)}
        return [
            f"{name} = {value:g}"
            for name, (value, grid) in tried.items()
            if value in (grid[0], grid[-1])
        ]


def read_curve(path: Path, *, per_nm: bool = False, q_max: float = 0.5) -> Curve:
    """Read a curve from three columns of text, q, intensity, error; other lines are ignored.

    Args:
        path: As instruments and the SASBDB write it.
        per_nm: Whether q is in 1 / nm.
        q_max: Points beyond are left out, 1 / angstrom.

    Raises:
        UserError: No such file, or fewer than five points that can be used.
    """
    rows = []
    text = read_text(require_file(path, "SAXS curve"), strict=False)
    for line in text.splitlines():
        try:
            numbers = [float(word) for word in line.replace(",", " ").split()[:3]]
        except ValueError:
            continue
        if len(numbers) == 3 and np.isfinite(numbers).all() and numbers[2] > 0.0:
            rows.append(numbers)
    q, intensity, error = np.array(rows).reshape(-1, 3).T
    q = q / ANGSTROM_PER_NM if per_nm else q
    kept = (q > 0.0) & (q <= q_max)
    if kept.sum() < 5:
        raise UserError(
            f"{path}: {kept.sum()} points with q up to {q_max} per angstrom and a positive error",
            "three columns: q, intensity, error; --set per_nm=true where q is in 1/nm",
        )
    return Curve(q[kept], intensity[kept], error[kept], int((q > q_max).sum()))


def partial_curves(
    xyz: NDArray[np.floating], groups: Sequence[Group], q: Float64s, open_share: Float64s
) -> Float64s:
    """Return products `[3, 3, Q]` of the three kinds of scattering of one conformation.

    Args:
        xyz: `[N, 3]` heavy atoms, angstrom.
        groups: Scattering group of each atom.
        q: `[Q]` 1 / angstrom.
        open_share: `[N]` share of each atom's surface that water reaches.

    Returns:
        The products of electrons, displaced water and surface water with each other, symmetric.
    """
    known = list(dict.fromkeys(groups))
    kinds = np.array([known.index(group) for group in groups], dtype=np.int64)
    n = len(known)
    wet = np.flatnonzero(open_share > 0.0)
    # The water on the surface is one kind more, at the place of the atom that it covers.
    counts = pair_counts(
        np.concatenate([xyz, xyz[wet]]),
        np.concatenate([kinds, np.full(len(wet), n)]),
        np.concatenate([np.ones(len(kinds)), open_share[wet]]),
    )
    sums = scattering(counts, q)
    size = sums.shape[0]
    factors = np.zeros((3, size, len(q)))
    factors[0, :n] = [in_vacuum(group, q) for group in known]
    factors[1, :n] = [displaced(group, q) for group in known]
    factors[2, n:] = in_vacuum(WATER, q)
    result: Float64s = np.einsum("akq,klq,blq->abq", factors, sums, factors)
    return result


def open_shares(trajectory: mdtraj.Trajectory) -> Float64s:
    """Return the share of each atom's surface that water reaches, `[N]`, of a single frame."""
    area = mdtraj.shrake_rupley(
        trajectory, probe_radius=_PROBE_NM, n_sphere_points=_SPHERE_POINTS, mode="atom"
    )[0]
    radius = np.array([atom.element.radius for atom in trajectory.topology.atoms]) + _PROBE_NM
    return np.asarray(area / (4.0 * np.pi * radius**2), dtype=np.float64)


def fit_curve(partials: Float64s, curve: Curve, *, background: bool = False) -> Fit:
    """Fit scale, c1, c2 and, if wanted, a constant background, for the least chi^2.

    c1 and c2 are those of a grid, scale and background are solved for each.

    Args:
        partials: `[3, 3, Q]` averaged over conformations.
        curve: Measured.
        background: Whether a constant is added.
    """
    best: Fit | None = None
    for c1 in _C1:
        water = -expansion(curve.q, float(c1))
        for c2 in _C2:
            mix = np.stack([np.ones_like(water), water, np.full_like(water, c2)])
            model = np.einsum("aq,abq,bq->q", mix, partials, mix)
            columns = [model, np.ones_like(model)] if background else [model]
            rows = np.stack(columns, axis=1) / curve.error[:, None]
            solution = np.linalg.lstsq(rows, curve.intensity / curve.error, rcond=None)[0]
            fitted = np.stack(columns, axis=1) @ solution
            chi2 = float(np.square((fitted - curve.intensity) / curve.error).mean())
            if solution[0] > 0.0 and (best is None or chi2 < best.chi2):
                constant = float(solution[1]) if background else 0.0
                best = Fit(fitted, chi2, float(solution[0]), constant, float(c1), float(c2))
    if best is None:
        raise UserError("no positive scale fits the curve", "is its intensity positive?")
    return best
