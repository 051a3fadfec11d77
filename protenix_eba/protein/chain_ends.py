"""The distance between the ends of a chain, the coordinate of systems with a known answer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["end_atoms", "end_distance"]


def end_atoms(topology: Any) -> tuple[int, int]:
    """Return the indices of the first residue's N and of the last one's C.

    Args:
        topology: Topology of a single chain, `mdtraj.Topology` or `openmm.app.Topology`.
    """
    residues = topology.residues
    listed = list(residues() if callable(residues) else residues)
    first, last = (
        next(atom.index for atom in (atoms() if callable(atoms) else atoms) if atom.name == name)
        for atoms, name in ((listed[0].atoms, "N"), (listed[-1].atoms, "C"))
    )
    return first, last


def end_distance(topology: Any, xyz: NDArray[np.floating]) -> NDArray[np.floating]:
    """Compute the distance of the ends in each conformation, in the unit of `xyz`.

    Args:
        topology: See `end_atoms`.
        xyz: `[F, N, 3]`.

    Returns:
        `[F]`.
    """
    first, last = end_atoms(topology)
    distance: NDArray[np.floating] = np.linalg.norm(xyz[:, first] - xyz[:, last], axis=-1)
    return distance
