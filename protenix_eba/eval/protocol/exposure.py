"""Exposure of side chains: accessible area by Shrake and Rupley, as mdtraj computes it.

Source of the method: Shrake and Rupley, J Mol Biol 79 (1973). The sphere's points, the radii and
the float32 arithmetic are mdtraj's, so that a side chain is exposed here if and only if
`mdtraj.shrake_rupley` says so of that frame alone. (Given several frames, mdtraj adds the area of
the frame before: `protenix_eba.eval.protocol.alphaflow_script` repeats that where it is asked for.)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import mdtraj
import numpy as np
from mdtraj.geometry.sasa import _ATOMIC_RADII
from numpy.typing import NDArray

from protenix_eba.core.units import ANGSTROM_PER_NM
from protenix_eba.eval.protocol import surface_kernels

__all__ = ["EXPOSED_NM2", "Bools", "SideChains", "mutual_information"]

EXPOSED_NM2: Final = 0.02
_PROBE_NM: Final = 0.28
_N_POINTS: Final = 960
_POINTS_PER_BLOCK: Final = 8
_POINTS_PER_AREA: Final = 64
_MAIN_CHAIN: Final = frozenset({"CA", "C", "N", "O", "OXT"})

Bools = NDArray[np.bool_]
Float64s = NDArray[np.float64]


@dataclass(frozen=True)
class SideChains:
    """The atoms that hide others, and those that count for each residue.

    Attributes:
        radii_nm: `[N]` van der Waals radius and probe, float32.
        residue: `[N]` row of the residue, 0 to L - 1.
        counted: `[N]` atoms of side chains.
    """

    radii_nm: NDArray[np.float32]
    residue: NDArray[np.int64]
    counted: Bools

    @classmethod
    def of(cls, atoms: list[mdtraj.core.topology.Atom], residue: NDArray[np.int64]) -> SideChains:
        """Make side chains from atoms, in the order of coordinates, and the row of each residue."""
        van_der_waals = np.array([_ATOMIC_RADII[a.element.symbol] for a in atoms], np.float32)
        counted = np.array([atom.name not in _MAIN_CHAIN for atom in atoms])
        return cls(van_der_waals + np.float32(_PROBE_NM), residue, counted)

    def exposed(self, xyz: NDArray[np.floating]) -> Bools:
        """Find the side chains with more than 0.02 nm2 of accessible area.

        Args:
            xyz: `[F, N, 3]` angstrom.

        Returns:
            `[F, L]`.
        """
        order, groups, xyz_nm = self._grouped(xyz)
        found: Bools = surface_kernels.exposed(
            xyz_nm, self.radii_nm[order], groups, self.counted[order], _sphere(),
            self.nm2_per_point[order].astype(np.float64), EXPOSED_NM2,
        )  # fmt: skip
        return found

    def points(self, xyz: NDArray[np.floating]) -> NDArray[np.int64]:
        """Count accessible points of each side-chain atom: `[F, N, 3]` angstrom to `[F, N]`."""
        order, groups, xyz_nm = self._grouped(xyz)
        arguments = (self.radii_nm[order], groups, self.counted[order], _sphere())
        counts = np.empty(xyz.shape[:2], dtype=np.int64)
        counts[:, order] = surface_kernels.accessible_points(xyz_nm, *arguments)
        return counts

    def buried(self, structure_xyz: NDArray[np.floating]) -> Bools:
        """Find the side chains of one structure `[N, 3]` (angstrom) with less than 0.02 nm2."""
        areas = (self.points(structure_xyz[None]) * self.nm2_per_point).astype(np.float32)
        result: Bools = self.by_residue(areas)[0] < EXPOSED_NM2
        return result

    def by_residue(self, areas_nm2: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sum atoms `[F, N]` to side chains `[F, L]`, in float32 as AlphaFlow's script does."""
        result = np.zeros((len(areas_nm2), int(self.residue.max()) + 1), dtype=np.float32)
        for row in range(result.shape[1]):
            result[:, row] = areas_nm2[:, self.counted & (self.residue == row)].sum(axis=1)
        return result

    @property
    def nm2_per_point(self) -> NDArray[np.float32]:
        """Area that one point stands for, `[N]`, rounded as mdtraj rounds it."""
        return np.float32(4.0 * np.pi / _N_POINTS) * self.radii_nm * self.radii_nm

    def _grouped(
        self, xyz: NDArray[np.floating]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Return the order that groups residues, where each begins, and the coordinates in nm."""
        order = np.argsort(self.residue, kind="stable")
        groups = np.searchsorted(self.residue[order], np.arange(self.residue.max() + 2))
        xyz_nm = np.ascontiguousarray(xyz[:, order] / ANGSTROM_PER_NM, dtype=np.float32)
        return order, groups, xyz_nm


@cache
def _sphere() -> tuple[Any, ...]:
    """Return the points in compact blocks, the blocks in compact areas, as `kernels` takes them."""
    areas = [_split(area, _POINTS_PER_BLOCK) for area in _split(_spiral(), _POINTS_PER_AREA)]
    blocks = [block for area in areas for block in area]
    first = np.cumsum([0, *map(len, areas)])
    return np.array(blocks), *_round(blocks), first, *_round([np.concatenate(a) for a in areas])


def _round(parts: list[NDArray[np.float32]]) -> tuple[NDArray[np.float32], float, float]:
    """Return directions of the parts of a sphere, cosine and sine of the radius around them."""
    centres = np.array([part.mean(axis=0, dtype=np.float64) for part in parts])
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    cosine = min(float((part @ centre).min()) for part, centre in zip(parts, centres, strict=True))
    return centres.astype(np.float32), cosine, float(np.sqrt(1.0 - cosine**2))


def _spiral() -> NDArray[np.float32]:
    """Return mdtraj's golden spiral `[960, 3]`, each step rounded as its C++ does."""
    index = np.arange(_N_POINTS, dtype=np.float32)
    offset = np.float32(2.0 / _N_POINTS)
    y = np.asarray((index * offset).astype(np.float64) - 1.0 + offset / 2.0, np.float32)
    r = np.sqrt(1.0 - (y * y).astype(np.float64)).astype(np.float32).astype(np.float64)
    phi = (index * np.float32(np.pi * (3.0 - np.sqrt(5.0)))).astype(np.float64)
    return np.stack([np.cos(phi) * r, y, np.sin(phi) * r], axis=1).astype(np.float32)


def _split(points: NDArray[np.float32], most: int) -> list[NDArray[np.float32]]:
    """Halve along the widest axis, in multiples of eight, until all parts are small enough."""
    if len(points) <= most:
        return [points]
    widest = int(np.ptp(points, axis=0).argmax())
    in_order = points[np.argsort(points[:, widest], kind="stable")]
    middle = len(points) // _POINTS_PER_BLOCK // 2 * _POINTS_PER_BLOCK
    return _split(in_order[:middle], most) + _split(in_order[middle:], most)


def mutual_information(exposed: Bools) -> Float64s:
    """Return the mutual information of residues' exposure in nats; the diagonal is zero.

    Args:
        exposed: `[F, L]`.

    Returns:
        `[L, L]`.
    """
    states = exposed.astype(np.float64)
    n = len(states)
    both = states.T @ states
    single = np.diag(both)
    joint = {
        (0, 0): n - single[:, None] - single[None, :] + both,
        (0, 1): single[None, :] - both,
        (1, 0): single[:, None] - both,
        (1, 1): both,
    }
    marginal = (1.0 - single / n, single / n)
    result = np.zeros_like(both)
    for (a, b), count in joint.items():
        independent = marginal[a][:, None] * marginal[b][None, :]
        occurs = count > 0
        ratio = np.divide(count / n, independent, out=np.ones_like(both), where=occurs)
        result += np.where(occurs, count / n * np.log(ratio), 0.0)
    np.fill_diagonal(result, 0.0)
    return result
