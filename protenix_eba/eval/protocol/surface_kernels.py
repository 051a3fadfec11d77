"""Loops of accessible surfaces over atoms and their points, compiled by numba, see `kernels`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.compiled import compiler
from protenix_eba.eval.protocol.kernels import compiled

__all__ = ["accessible_points", "carried_areas", "exposed"]

Floats = NDArray[np.float32]
Float64s = NDArray[np.float64]
Ints = NDArray[np.int64]

# Dot products of unit vectors: far above what float32 rounds off, far below the size of a block.
_MARGIN = 1e-3
# Atoms within this distance (nm, squared) hide most of each other: they are tried first.
_NEAR_SQUARED = 0.3
# Caps are tested by so many at a time, in the processor's wide registers.
_WIDTH = 32


@compiled
def exposed(
    xyz: Floats, radii: Floats, groups: Ints, wanted: Any, sphere: Any, per_point: Float64s,
    limit: float,
) -> Any:  # pragma: no cover  # fmt: skip
    """Find whether the wanted atoms of each group have more accessible area than the limit.

    Stops counting a group once it has. Arguments as in `accessible_points`.

    Args:
        xyz: `[F, N, 3]` nm.
        radii: `[N]` nm, probe included.
        groups: `[G + 1]` where each group of consecutive atoms begins.
        wanted: `[N]` atoms whose area counts; the others only hide.
        sphere: Points and blocks.
        per_point: `[N]` area that one point stands for, nm2.
        limit: nm2.

    Returns:
        `[F, G]` bool.
    """
    result = np.zeros((xyz.shape[0], len(groups) - 1), dtype=np.bool_)
    counts = np.zeros(xyz.shape[1], dtype=np.int64)
    for f in range(xyz.shape[0]):
        _count(xyz[f], radii, groups, wanted, sphere, per_point, limit, counts)
        for g in range(len(groups) - 1):
            area = 0.0
            for i in range(groups[g], groups[g + 1]):
                area += counts[i] * per_point[i]
            result[f, g] = area > limit
    return result


@compiled
def accessible_points(
    xyz: Floats, radii: Floats, groups: Ints, wanted: Any, sphere: Any
) -> Ints:  # pragma: no cover
    """Count the points of each wanted atom's sphere that no other atom covers: `[F, N]`.

    Args:
        xyz: `[F, N, 3]` nm.
        radii: `[N]` nm, probe included.
        groups: `[G + 1]` where each group of consecutive atoms begins.
        wanted: `[N]` atoms that are looked at; zero for the others.
        sphere: `(points [B, K, 3] float32, centres [B, 3], cosine, sine)`: unit vectors in B
            blocks, the blocks' directions, and their common angular radius; then `(first [A + 1],
            centres [A, 3], cosine, sine)`: the same of the areas that the blocks make up.
    """
    counts = np.zeros((xyz.shape[0], xyz.shape[1]), dtype=np.int64)
    per_point = np.ones(xyz.shape[1])
    for f in range(xyz.shape[0]):
        _count(xyz[f], radii, groups, wanted, sphere, per_point, np.inf, counts[f])
    return counts


@compiled
def carried_areas(counts: Ints, per_point: Floats, starts: Ints) -> Floats:  # pragma: no cover
    """Compute areas as mdtraj does, whose buffer is cleared only where a thread starts.

    Each frame counts its points on top of the area of the frame before, in float32.

    Args:
        counts: `[F, N]` accessible points.
        per_point: `[N]` float32.
        starts: Frames at which a thread begins.

    Returns:
        `[F, N]` nm2.
    """
    areas = np.zeros(counts.shape, dtype=np.float32)
    for i in range(counts.shape[1]):
        area = np.float32(0.0)
        for f in range(counts.shape[0]):
            if f in starts:
                area = np.float32(0.0)
            for _ in range(counts[f, i]):
                area = np.float32(area + np.float32(1.0))
            area = np.float32(area * per_point[i])
            areas[f, i] = area
    return areas


@compiled
def _count(
    xyz: Floats, radii: Floats, groups: Ints, wanted: Any, sphere: Any, per_point: Float64s,
    limit: float, counts: Ints,
) -> None:  # pragma: no cover  # fmt: skip
    """Count the points of one frame; a group ends once its area is above the limit."""
    n_atoms = len(xyz)
    centres, reach = _spheres_around(xyz, radii, groups)
    # Coordinates by axis, then radii: the loops over them run in the processor's wide registers.
    around, near = np.empty((6, n_atoms), np.float32), np.empty((4, n_atoms), np.float32)
    caps, work = np.empty((6, n_atoms + _WIDTH), np.float32), np.empty((2, n_atoms), np.int32)
    counts[:] = 0
    for g in range(len(groups) - 1):
        n_around = -1
        area = 0.0
        # From the tip of a side chain, which is exposed most often.
        for i in range(groups[g + 1] - 1, groups[g] - 1, -1):
            if not wanted[i]:
                continue
            if n_around < 0:
                n_around = _candidates(g, xyz, radii, groups, centres, reach, around)
            n_close, n_near = _neighbours(xyz[i], radii[i], around, n_around, near, work)
            enough = (limit - area) / per_point[i]
            counts[i] = _uncovered(
                xyz[i], radii[i], near, n_close, n_near, caps, sphere, enough, work
            )
            area += counts[i] * per_point[i]
            if area > limit:
                break


@compiled
def _spheres_around(
    xyz: Floats, radii: Floats, groups: Ints
) -> tuple[Float64s, Float64s]:  # pragma: no cover
    """Return a sphere around each group's surfaces: centres `[G, 3]` and radii `[G]`."""
    n_groups = len(groups) - 1
    centres, reach = np.zeros((n_groups, 3)), np.zeros(n_groups)
    for g in range(n_groups):
        for i in range(groups[g], groups[g + 1]):
            for k in range(3):
                centres[g, k] += xyz[i, k] / (groups[g + 1] - groups[g])
        for i in range(groups[g], groups[g + 1]):
            square = 0.0
            for k in range(3):
                square += (xyz[i, k] - centres[g, k]) ** 2
            reach[g] = max(reach[g], np.sqrt(square) + radii[i])
    return centres, reach


@compiled
def _candidates(
    g: int, xyz: Floats, radii: Floats, groups: Ints, centres: Float64s, reach: Float64s,
    around: Floats,
) -> int:  # pragma: no cover  # fmt: skip
    """Copy the atoms whose sphere meets that of group g; return how many."""
    n = 0
    for h in range(len(groups) - 1):
        square = 0.0
        for k in range(3):
            square += (centres[g, k] - centres[h, k]) ** 2
        if square <= (reach[g] + reach[h] + _MARGIN) ** 2:
            for j in range(groups[h], groups[h + 1]):
                square = 0.0
                for k in range(3):
                    square += (centres[g, k] - xyz[j, k]) ** 2
                around[0, n], around[1, n], around[2, n] = xyz[j, 0], xyz[j, 1], xyz[j, 2]
                around[3, n] = radii[j]
                n += square <= (reach[g] + radii[j] + _MARGIN) ** 2
    return n


@compiled
def _neighbours(
    at: Floats, radius: float, around: Floats, n_around: int, near: Floats, order: Any
) -> tuple[int, int]:  # pragma: no cover
    """Copy the atoms whose sphere meets the one at `at`, those close by first.

    Returns:
        The number of atoms that are close by, and the number of all that were copied.
    """
    x, y, z = at[0], at[1], at[2]
    for j in range(n_around):
        dx, dy, dz = around[0, j] - x, around[1, j] - y, around[2, j] - z
        reach = around[3, j] + radius
        around[4, j] = dx * dx + dy * dy + dz * dz
        around[5, j] = reach * reach + np.float32(_MARGIN)
    first, last = 0, 0
    for j in range(n_around):
        square = around[4, j]
        close = square < np.float32(_NEAR_SQUARED)
        # Written in any case, counted where it holds: a branch here is guessed wrong too often.
        order[0, first] = j
        order[1, last] = j
        # The atom itself is at no distance.
        first += close & (square > np.float32(0.0))
        last += (square < around[5, j]) & (not close)
    for k in range(first):
        for axis in range(4):
            near[axis, k] = around[axis, order[0, k]]
    for k in range(last):
        for axis in range(4):
            near[axis, first + k] = around[axis, order[1, k]]
    return first, first + last


@compiled
def _caps(
    at: Floats, radius: float, near: Floats, first: int, last: int, sphere: Any, caps: Floats
) -> None:  # pragma: no cover
    """Compute the caps that some neighbours cover: direction and three limits.

    Above the first a block is covered entirely, below the second not at all; above the third an
    area is covered entirely.
    """
    one, two, margin = np.float32(1.0), np.float32(2.0), np.float32(_MARGIN)
    cosine, sine = np.float32(sphere[2]), np.float32(sphere[3])
    wide_cosine, wide_sine = np.float32(sphere[6]), np.float32(sphere[7])
    x, y, z = at[0], at[1], at[2]
    for n in range(first, last):
        dx, dy, dz = near[0, n] - x, near[1, n] - y, near[2, n] - z
        square = dx * dx + dy * dy + dz * dz
        inverse = one / np.sqrt(square)
        edge = (square + radius * radius - near[3, n] * near[3, n]) * inverse / (radius + radius)
        edge = one if edge > one else edge
        edge = -one if edge < -one else edge
        slope = np.sqrt(one - edge * edge)
        width = sine * slope
        caps[0, n], caps[1, n], caps[2, n] = dx * inverse, dy * inverse, dz * inverse
        caps[3, n] = edge * cosine + width + margin if edge < cosine else two
        caps[4, n] = edge * cosine - width - margin if edge > -cosine else -two
        wide = edge * wide_cosine + wide_sine * slope + margin
        caps[5, n] = wide if edge < wide_cosine else two


@compiled
def _uncovered(
    at: Floats, radius: float, near: Floats, n_close: int, n_near: int, caps: Floats, sphere: Any,
    enough: float, work: Any,
) -> int:  # pragma: no cover  # fmt: skip
    """Count accessible points of one atom; stop when they are more than enough.

    Nearly every area or block of a buried atom is covered by a neighbour close by: the others are
    looked at only where points are left.
    """
    centres, first, areas = sphere[1], sphere[4], sphere[5]
    left = np.empty(sphere[0].shape[1], np.int32)
    count, far = 0, False
    _caps(at, radius, near, 0, n_close, sphere, caps)
    n_caps = _filled_up(caps, n_close)
    for a in range(len(areas)):
        if _is_covered(areas[a, 0], areas[a, 1], areas[a, 2], caps, 5, n_caps):
            continue
        for b in range(first[a], first[a + 1]):
            x, y, z = centres[b, 0], centres[b, 1], centres[b, 2]
            if _is_covered(x, y, z, caps, 3, n_caps):
                continue
            for p in range(len(left)):
                left[p] = p
            n_partly = _partly(x, y, z, caps, 0, n_close, work)
            n_left = _still_open(at, radius, near, work, n_partly, sphere[0][b], left, len(left))
            if n_left and not far:
                _caps(at, radius, near, n_close, n_near, sphere, caps)
                n_caps, far = _filled_up(caps, n_near), True
                if _is_covered(x, y, z, caps, 3, n_caps):
                    continue
            if n_left:
                n_partly = _partly(x, y, z, caps, n_close, n_near, work)
                n_left = _still_open(at, radius, near, work, n_partly, sphere[0][b], left, n_left)
            count += n_left
            if count > enough:
                return count
    return count


@compiled
def _filled_up(caps: Floats, n: int) -> int:  # pragma: no cover
    """Fill up n caps with some that cover nothing; return how many there are then."""
    last = (n + _WIDTH - 1) // _WIDTH * _WIDTH
    caps[:3, n:last] = np.float32(0.0)
    caps[3:, n:last] = np.float32(2.0)
    return last


@compiler(error_model="numpy", fastmath=True)
def _is_covered(
    x: float, y: float, z: float, caps: Floats, limit: int, n: int
) -> bool:  # pragma: no cover
    """Return whether one of n caps covers a block or an area entirely."""
    found = np.int32(0)
    for k in range(n):
        beyond = x * caps[0, k] + y * caps[1, k] + z * caps[2, k] - caps[limit, k]
        found |= np.int32(beyond > np.float32(0.0))
    return bool(found > 0)


@compiled
def _partly(
    x: float, y: float, z: float, caps: Floats, first: int, last: int, work: Any
) -> int:  # pragma: no cover
    """Return how many of some caps reach into a block; `work` says which."""
    n_partly = 0
    for n in range(first, last):
        # Written in any case, counted where it holds, as above.
        work[0, n_partly] = n
        n_partly += x * caps[0, n] + y * caps[1, n] + z * caps[2, n] > caps[4, n]
    return n_partly


@compiled
def _still_open(
    at: Floats, radius: float, near: Floats, work: Any, n_partly: int, points: Floats, left: Any,
    n_left: int,
) -> int:  # pragma: no cover  # fmt: skip
    """Keep the points of a block that no neighbour covers, in mdtraj's float32 arithmetic."""
    kept, hint = 0, 0
    for p in left[:n_left]:
        x = at[0] + radius * points[p, 0]
        y = at[1] + radius * points[p, 1]
        z = at[2] + radius * points[p, 2]
        is_open = True
        for n in range(n_partly):
            k = n + hint
            if k >= n_partly:
                k -= n_partly
            j = work[0, k]
            dx, dy, dz = x - near[0, j], y - near[1, j], z - near[2, j]
            if dx * dx + dy * dy + dz * dz < near[3, j] * near[3, j]:
                is_open, hint = False, k
                break
        if is_open:
            left[kept] = p
            kept += 1
    return kept
