"""Loops over atoms and frames that numpy cannot do without large temporaries, compiled by numba.

Compiled once per machine: numba keeps the machine code beside this file, or in the user's cache
folder where that cannot be written. Without `fastmath`, so that float32 arithmetic is IEEE's, in
the order that is written here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["accessible_points", "add_moments", "carried_areas", "count_contacts", "exposed"]

Floats = NDArray[np.float32]
Float64s = NDArray[np.float64]
Ints = NDArray[np.int64]

# Dot products of unit vectors: far above what float32 rounds off, far below the size of a block.
_MARGIN = 1e-3
# Atoms within this distance (nm, squared) hide most of each other: they are tried first.
_NEAR_SQUARED = 0.3


@njit(cache=True)
def add_moments(
    xyz: Floats,
    centres: Float64s,
    turns: Float64s,
    target: Float64s,
    total: Float64s,
    squares: Float64s,
) -> None:  # pragma: no cover
    """Add the deviations `(xyz - centre) @ turn - target` of each atom, and their squares.

    Args:
        xyz: `[F, N, 3]`.
        centres: `[F, 3]`.
        turns: `[F, 3, 3]`.
        target: `[N, 3]` centred.
        total: `[N, 3]` is added to.
        squares: `[N]` is added to.
    """
    for f in range(xyz.shape[0]):
        turn = turns[f]
        cx, cy, cz = centres[f, 0], centres[f, 1], centres[f, 2]
        for n in range(xyz.shape[1]):
            x, y, z = xyz[f, n, 0] - cx, xyz[f, n, 1] - cy, xyz[f, n, 2] - cz
            a = x * turn[0, 0] + y * turn[1, 0] + z * turn[2, 0] - target[n, 0]
            b = x * turn[0, 1] + y * turn[1, 1] + z * turn[2, 1] - target[n, 1]
            c = x * turn[0, 2] + y * turn[1, 2] + z * turn[2, 2] - target[n, 2]
            total[n, 0] += a
            total[n, 1] += b
            total[n, 2] += c
            squares[n] += a * a + b * b + c * c


@njit(cache=True)
def count_contacts(xyz: Floats, cutoff: float) -> Ints:  # pragma: no cover
    """In how many frames two atoms are closer than the cutoff: `[F, L, 3]` to `[L, L]`."""
    n_frames, n_atoms = xyz.shape[0], xyz.shape[1]
    counts = np.zeros((n_atoms, n_atoms), dtype=np.int64)
    limit = cutoff * cutoff
    for f in range(n_frames):
        for i in range(n_atoms):
            x, y, z = xyz[f, i, 0], xyz[f, i, 1], xyz[f, i, 2]
            for j in range(i, n_atoms):
                dx, dy, dz = x - xyz[f, j, 0], y - xyz[f, j, 1], z - xyz[f, j, 2]
                counts[i, j] += dx * dx + dy * dy + dz * dz < limit
    for i in range(n_atoms):
        for j in range(i):
            counts[i, j] = counts[j, i]
    return counts


@njit(cache=True)
def exposed(
    xyz: Floats, radii: Floats, groups: Ints, wanted: Any, sphere: Any, per_point: Float64s,
    limit: float,
) -> Any:  # pragma: no cover  # fmt: skip
    """Whether the wanted atoms of each group have more accessible area than the limit.

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


@njit(cache=True)
def accessible_points(
    xyz: Floats, radii: Floats, groups: Ints, wanted: Any, sphere: Any
) -> Ints:  # pragma: no cover
    """How many points of each wanted atom's sphere no other atom covers: `[F, N]`.

    Args:
        xyz: `[F, N, 3]` nm.
        radii: `[N]` nm, probe included.
        groups: `[G + 1]` where each group of consecutive atoms begins.
        wanted: `[N]` atoms that are looked at; zero for the others.
        sphere: `(points [B, K, 3] float32, centres [B, 3], cosine, sine)`: unit vectors in B
            blocks, the blocks' directions, and their common angular radius.
    """
    counts = np.zeros((xyz.shape[0], xyz.shape[1]), dtype=np.int64)
    per_point = np.zeros(xyz.shape[1])
    for f in range(xyz.shape[0]):
        _count(xyz[f], radii, groups, wanted, sphere, per_point, 1.0, counts[f])
    return counts


@njit(cache=True)
def carried_areas(counts: Ints, per_point: Floats, starts: Ints) -> Floats:  # pragma: no cover
    """Areas in mdtraj's own arithmetic, whose buffer is cleared only where a thread starts.

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


@njit(cache=True)
def _count(
    xyz: Floats, radii: Floats, groups: Ints, wanted: Any, sphere: Any, per_point: Float64s,
    limit: float, counts: Ints,
) -> None:  # pragma: no cover  # fmt: skip
    """One frame; a group ends once its area is above the limit."""
    n_atoms, n_groups = len(xyz), len(groups) - 1
    centres, reach = _spheres_around(xyz, radii, groups)
    around = np.empty(n_atoms, dtype=np.int64)
    near = np.empty(n_atoms, dtype=np.int64)
    caps = np.empty((n_atoms, 5))
    counts[:] = 0
    for g in range(n_groups):
        n_around = -1
        area = 0.0
        # From the tip of a side chain, which is exposed most often.
        for i in range(groups[g + 1] - 1, groups[g] - 1, -1):
            if not wanted[i]:
                continue
            if n_around < 0:
                n_around = _candidates(g, groups, centres, reach, around)
            n_near = _neighbours(i, xyz, radii, around[:n_around], near)
            if not _caps(i, xyz, radii, near[:n_near], sphere, caps):
                continue
            room = limit - area
            counts[i] = _uncovered(i, xyz, radii, near[:n_near], caps, sphere, per_point[i], room)
            area += counts[i] * per_point[i]
            if area > limit:
                break


@njit(cache=True)
def _spheres_around(
    xyz: Floats, radii: Floats, groups: Ints
) -> tuple[Float64s, Float64s]:  # pragma: no cover
    """A sphere around each group's probe surfaces: centres `[G, 3]` and radii `[G]`."""
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


@njit(cache=True)
def _candidates(
    g: int, groups: Ints, centres: Float64s, reach: Float64s, around: Ints
) -> int:  # pragma: no cover
    """All atoms of the groups whose sphere meets that of group g; returns how many."""
    n = 0
    for h in range(len(groups) - 1):
        square = 0.0
        for k in range(3):
            square += (centres[g, k] - centres[h, k]) ** 2
        if square <= (reach[g] + reach[h] + _MARGIN) ** 2:
            for j in range(groups[h], groups[h + 1]):
                around[n] = j
                n += 1
    return n


@njit(cache=True)
def _neighbours(
    i: int, xyz: Floats, radii: Floats, around: Ints, near: Ints
) -> int:  # pragma: no cover
    """Atoms whose sphere meets that of atom i, those close by first; returns how many."""
    n, n_close = 0, 0
    for j in around:
        square = 0.0
        for k in range(3):
            square += (np.float64(xyz[j, k]) - xyz[i, k]) ** 2
        if j != i and square < (np.float64(radii[i]) + radii[j]) ** 2 + _MARGIN:
            near[n] = j
            if square < _NEAR_SQUARED:
                near[n], near[n_close] = near[n_close], near[n]
                n_close += 1
            n += 1
    return n


@njit(cache=True)
def _caps(
    i: int, xyz: Floats, radii: Floats, near: Ints, sphere: Any, caps: Float64s
) -> bool:  # pragma: no cover
    """The cap that each neighbour covers: its direction, and two limits for a block's direction.

    Above the first a block is covered entirely, below the second not at all.

    Returns:
        False if one neighbour covers the whole sphere.
    """
    cosine, sine = sphere[2], sphere[3]
    for n in range(len(near)):
        j = near[n]
        x = np.float64(xyz[j, 0]) - xyz[i, 0]
        y = np.float64(xyz[j, 1]) - xyz[i, 1]
        z = np.float64(xyz[j, 2]) - xyz[i, 2]
        distance = max(np.sqrt(x * x + y * y + z * z), 1e-6)
        own, other = np.float64(radii[i]), np.float64(radii[j])
        edge = (distance * distance + own * own - other * other) / (2.0 * distance * own)
        if edge < -1.0 - _MARGIN:
            return False
        edge = min(max(edge, -1.0), 1.0)
        width = sine * np.sqrt(1.0 - edge * edge)
        caps[n, 0], caps[n, 1], caps[n, 2] = x / distance, y / distance, z / distance
        caps[n, 3] = edge * cosine + width + _MARGIN if edge < cosine else 2.0
        caps[n, 4] = edge * cosine - width - _MARGIN if edge > -cosine else -2.0
    return True


@njit(cache=True)
def _uncovered(
    i: int, xyz: Floats, radii: Floats, near: Ints, caps: Float64s, sphere: Any,
    per_point: float, room: float,
) -> int:  # pragma: no cover  # fmt: skip
    """Accessible points of atom i; stops when their area is above `room`."""
    points, centres = sphere[0], sphere[1]
    partly = np.empty(len(near), dtype=np.int64)
    count, last = 0, 0
    for b in range(len(centres)):
        x, y, z = centres[b, 0], centres[b, 1], centres[b, 2]
        covered = False
        if len(near) > 0:
            # Neighbouring blocks are often hidden by the same atom.
            covered = x * caps[last, 0] + y * caps[last, 1] + z * caps[last, 2] > caps[last, 3]
        n_partly = 0
        if not covered:
            for n in range(len(near)):
                dot = x * caps[n, 0] + y * caps[n, 1] + z * caps[n, 2]
                if dot > caps[n, 3]:
                    covered, last = True, n
                    break
                if dot > caps[n, 4]:
                    partly[n_partly] = near[n]
                    n_partly += 1
        if not covered:
            count += _open_points(i, xyz, radii, partly[:n_partly], points[b])
            if count * per_point > room:
                break
    return count


@njit(cache=True)
def _open_points(
    i: int, xyz: Floats, radii: Floats, near: Ints, points: Floats
) -> int:  # pragma: no cover
    """The points of one block that no neighbour covers, in mdtraj's float32 arithmetic."""
    count, last = 0, 0
    own = radii[i]
    for p in range(len(points)):
        x = xyz[i, 0] + own * points[p, 0]
        y = xyz[i, 1] + own * points[p, 1]
        z = xyz[i, 2] + own * points[p, 2]
        is_open = True
        for n in range(len(near)):
            k = n + last
            if k >= len(near):
                k -= len(near)
            j = near[k]
            dx, dy, dz = x - xyz[j, 0], y - xyz[j, 1], z - xyz[j, 2]
            if dx * dx + dy * dy + dz * dz < radii[j] * radii[j]:
                is_open, last = False, k
                break
        if is_open:
            count += 1
    return count
