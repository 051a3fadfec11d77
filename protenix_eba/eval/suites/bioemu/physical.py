"""Physical validity of conformations, by BioEmu's limits for its own benchmarks.

Source: `bioemu_benchmarks.utils.filter_unphysical_traj`, whose three numbers these are. The limits
of `protenix_eba.protein.validity` are others: those of this package's sampler.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.compiled import compiler

__all__ = ["physical"]

CA_CA_ANGSTROM: Final = 4.5
C_N_ANGSTROM: Final = 2.0
CLASH_ANGSTROM: Final = 1.0
# Neighbours nearer along the chain than this cannot clash.
_SEPARATION: Final = 2


def physical(
    xyz: NDArray[np.float32], owner: NDArray[np.int64], backbone: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Return whether each conformation has an unbroken chain and no clash, `[S]`.

    Args:
        xyz: `[S, N, 3]` heavy atoms, angstrom.
        owner: `[N]` the residue of each, 0 to L - 1, ascending.
        backbone: `[S, L, 4, 3]` N, CA, C and O.
    """
    ca = backbone[:, :, 1]
    ca_ca = np.linalg.norm(np.diff(ca, axis=1), axis=-1)
    c_n = np.linalg.norm(backbone[:, 1:, 0] - backbone[:, :-1, 2], axis=-1)
    whole = (ca_ca < CA_CA_ANGSTROM).all(axis=1) & (c_n < C_N_ANGSTROM).all(axis=1)
    starts = np.searchsorted(owner, np.arange(backbone.shape[1] + 1)).astype(np.int64)
    result: NDArray[np.bool_] = whole & ~_clashes(
        np.ascontiguousarray(xyz, dtype=np.float64), starts, np.asarray(ca, dtype=np.float64)
    )
    return result


_compiled = compiler()


# Scalars rather than slices: those make an array for each pair, which takes ten times as long.
@_compiled
def _squared(a: NDArray[Any], i: int, b: NDArray[Any], j: int) -> float:
    x, y, z = a[i, 0] - b[j, 0], a[i, 1] - b[j, 1], a[i, 2] - b[j, 2]
    return x * x + y * y + z * z  # type: ignore[no-any-return]


@_compiled
def _clashes(xyz: NDArray[Any], starts: NDArray[Any], ca: NDArray[Any]) -> NDArray[Any]:
    """Return whether two atoms of residues that are no neighbours touch, `[S]`."""
    found = np.zeros(len(xyz), dtype=np.bool_)
    for s in range(len(xyz)):
        found[s] = _clash(xyz[s], starts, ca[s])
    return found


@_compiled
def _clash(xyz: NDArray[Any], starts: NDArray[Any], ca: NDArray[Any]) -> bool:
    n_residues = len(ca)
    reach = np.zeros(n_residues)
    for i in range(n_residues):
        for a in range(starts[i], starts[i + 1]):
            reach[i] = max(reach[i], np.sqrt(_squared(xyz, a, ca, i)))
    for i in range(n_residues):
        for j in range(i + _SEPARATION + 1, n_residues):
            limit = reach[i] + reach[j] + CLASH_ANGSTROM
            if _squared(ca, i, ca, j) > limit * limit:
                continue
            for a in range(starts[i], starts[i + 1]):
                for b in range(starts[j], starts[j + 1]):
                    if _squared(xyz, a, xyz, b) <= CLASH_ANGSTROM * CLASH_ANGSTROM:
                        return True
    return False
