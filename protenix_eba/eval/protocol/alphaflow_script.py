"""The exposure metrics as AlphaFlow's own script prints them under mdtraj 1.9.9.

Two properties of that pair make its numbers depend on what they should not depend on. They are
repeated here only so that published tables can be compared with:

- `atom_slice` gives the predicted coordinates the reference's order but leaves the predicted
  topology in the file's order. Radii and side-chain masks of the predictions belong to other
  atoms, unless the file happens to have the reference's order.
- `shrake_rupley` adds the points of a frame to the area of the frame before; its buffer is cleared
  only where an OpenMP thread begins. The result depends on the order of frames and on the number
  of threads.
"""

from __future__ import annotations

from typing import Final

import mdtraj
import numpy as np
from numpy.typing import NDArray

from protenix_eba.eval.protocol import surface_kernels
from protenix_eba.eval.protocol.alignment import Floats
from protenix_eba.eval.protocol.ensemble import AtomMatch
from protenix_eba.eval.protocol.exposure import EXPOSED_NM2, SideChains
from protenix_eba.eval.protocol.panel import exposure_metrics

__all__ = ["ALPHAFLOW_1_9_9", "alphaflow_values", "thread_starts"]

ALPHAFLOW_1_9_9: Final = "alphaflow-1.9.9"
# The script's matrix square root is NaN where a covariance is singular, as it is of so few.
_SINGULAR_UP_TO: Final = 3

Bools = NDArray[np.bool_]


def alphaflow_values(
    values: dict[str, float],
    *,
    match: AtomMatch,
    topologies: tuple[mdtraj.Topology, mdtraj.Topology],
    side_chains: SideChains | None,
    buried: Bools | None,
    frames: tuple[Floats, Floats],
    n_threads: int,
) -> tuple[dict[str, float], list[str]]:
    """Return what AlphaFlow's script prints: our values where both agree, else its own.

    Args:
        values: Our values of the metrics.
        match: Pairs of atoms of the MD and the samples.
        topologies: Topologies of the MD and of the samples, in the order of their files.
        side_chains: Side chains of the matched atoms, reference order; None without side chains.
        buried: `[L]` in the reference structure.
        frames: `[1000, N, 3]` drawn MD frames in the order of the draw, and `[S, N, 3]` samples in
            the order of their file, angstrom.
        n_threads: OpenMP threads of the run to repeat.

    Returns:
        The values, NaN for all of them where the script mixes up chains, and notes.
    """
    md, samples = (
        [str(topology.atom(int(i))) for i in np.sort(atoms)]
        for topology, atoms in zip(
            topologies, (match.reference_atoms, match.sample_atoms), strict=True
        )
    )
    # The script has no such metric.
    values = {key: value for key, value in values.items() if key != "exposed_mi_spearman_exact"}
    if len(set(md)) < len(md) or len(set(samples)) < len(samples):
        note = "AlphaFlow's script ignores chains and mixes these up: its values are left out."
        return dict.fromkeys(values, float("nan")), [note]
    found = values
    if side_chains is not None:
        exposed = (
            _exposed(side_chains, frames[0], n_threads),
            _exposed(_in_file_order(topologies[1], match), frames[1], n_threads),
        )
        found |= {k: v for k, v in exposure_metrics(buried, *exposed).items() if k in found}
    if len(frames[1]) <= _SINGULAR_UP_TO:
        found |= dict.fromkeys(("rmwd", "rmwd_variance"), float("nan"))
    return found, []


def _in_file_order(topology: mdtraj.Topology, match: AtomMatch) -> SideChains:
    """Return the atoms that the script takes for those of the predicted coordinates."""
    atoms = [topology.atom(int(i)) for i in np.sort(match.sample_atoms)]
    rows: dict[int, int] = {}
    residue = np.array([rows.setdefault(atom.residue.index, len(rows)) for atom in atoms])
    return SideChains.of(atoms, residue)


def _exposed(side_chains: SideChains, xyz: Floats, n_threads: int) -> Bools:
    """Return exposure `[F, L]` from areas that carry over from frame to frame."""
    areas = surface_kernels.carried_areas(
        side_chains.points(xyz), side_chains.nm2_per_point, thread_starts(len(xyz), n_threads)
    )
    result: Bools = side_chains.by_residue(areas) > EXPOSED_NM2
    return result


def thread_starts(n_frames: int, n_threads: int) -> NDArray[np.int64]:
    """Return the first frame of each thread, shared out by OpenMP: the first threads get more."""
    each, rest = divmod(n_frames, n_threads)
    sizes = np.full(n_threads, each) + (np.arange(n_threads) < rest)
    return np.concatenate([[0], np.cumsum(sizes)[:-1]])
