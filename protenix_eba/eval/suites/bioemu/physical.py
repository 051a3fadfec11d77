"""Which conformations are whole: BioEmu's limits for its own benchmarks.

Source: `bioemu_benchmarks.utils.filter_unphysical_traj`, whose three numbers these are. The limits
of `protenix_eba.validity` are others: those of this package's sampler.
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["physical"]

CA_CA_ANGSTROM: Final = 4.5
C_N_ANGSTROM: Final = 2.0
CLASH_ANGSTROM: Final = 1.0
# Neighbours nearer along the chain than this cannot clash.
_SEPARATION: Final = 2


def physical(
    xyz: NDArray[np.float32], owner: NDArray[np.int64], backbone: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """`[S]` whether each conformation has an unbroken chain and no clash.

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


def _compiled(function: Any) -> Any:
    return numba.njit(cache=True)(function)


@_compiled
def _clashes(xyz: NDArray[Any], starts: NDArray[Any], ca: NDArray[Any]) -> NDArray[Any]:
    """`[S]` whether two atoms of residues that are no neighbours touch."""
    n_frames, n_residues = ca.shape[0], ca.shape[1]
    found = np.zeros(n_frames, dtype=np.bool_)
    reach = np.empty(n_residues)
    for s in range(n_frames):
        for i in range(n_residues):
            reach[i] = 0.0
            for a in range(starts[i], starts[i + 1]):
                reach[i] = max(reach[i], np.sqrt(((xyz[s, a] - ca[s, i]) ** 2).sum()))
        for i in range(n_residues):
            if found[s]:
                break
            for j in range(i + _SEPARATION + 1, n_residues):
                apart = np.sqrt(((ca[s, i] - ca[s, j]) ** 2).sum())
                if apart > reach[i] + reach[j] + CLASH_ANGSTROM:
                    continue
                if _touch(xyz[s], starts[i], starts[i + 1], starts[j], starts[j + 1]):
                    found[s] = True
                    break
    return found


@_compiled
def _touch(xyz: NDArray[Any], a0: int, a1: int, b0: int, b1: int) -> bool:
    for a in range(a0, a1):
        for b in range(b0, b1):
            total = 0.0
            for k in range(3):
                total += (xyz[a, k] - xyz[b, k]) ** 2
            if total <= CLASH_ANGSTROM * CLASH_ANGSTROM:
                return True
    return False
