"""Minimisation of conformations that are kept where it ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from joblib import delayed
from numpy.typing import NDArray

from protenix_eba.core.units import ANGSTROM_PER_NM
from protenix_eba.energy.parallel import run_parallel
from protenix_eba.energy.protocol import EnergyProtocol
from protenix_eba.energy.structure import CompleteStructure, complete_structure
from protenix_eba.energy.system import FrameEnergy, TargetEnergy
from protenix_eba.energy.table import FINISHED

__all__ = ["Relaxed", "relax"]


class Relaxed(NamedTuple):
    """The result of one minimisation.

    Attributes:
        number: Number of the conformation.
        energy: As a label has it.
        xyz_angstrom: `[N, 3]` in the order of the topology file; None where it failed.
    """

    number: int
    energy: FrameEnergy
    xyz_angstrom: NDArray[np.float32] | None


def relax(
    topology_path: Path,
    conformations: Mapping[int, NDArray[np.floating]],
    protocol: EnergyProtocol,
    *,
    jobs: int = 1,
    platform: str = "auto",
) -> Iterator[Relaxed]:
    """Minimise conformations as energy labels are, and keep where they end.

    Args:
        topology_path: PDB or mmCIF file of one conformation, heavy atoms at least; it decides
            protonation and disulfides for all.
        conformations: Number to `[N, 3]` in the file's order, angstrom, as a model made them.
        protocol: Force field and minimisation.
        jobs: Processes.
        platform: OpenMM platform, or "auto".

    Yields:
        Each result as it is ready, in any order; those that failed say why.

    Raises:
        UserError: The force field cannot describe the topology.
    """
    how = (complete_structure(topology_path, protocol.protonation), protocol, platform)
    _target(*how)  # fails here, not in each process
    tasks = (delayed(_relax)(number, xyz, *how) for number, xyz in conformations.items())
    yield from run_parallel(tasks, jobs)


class _Target(TargetEnergy):
    """An energy that remembers where its last minimisation ended."""

    def end_nm(self) -> NDArray[np.float64]:
        return self._final.positions_nm()


@lru_cache(maxsize=1)
def _target(structure: CompleteStructure, protocol: EnergyProtocol, platform: str) -> _Target:
    """Build a target's energy, once in each process."""
    return _Target(structure, protocol, platform, generated=True)


def _relax(number: int, xyz_angstrom: NDArray[np.floating], *how: Any) -> Relaxed:
    target = _target(*how)
    structure = target.structure
    energy = target.label(structure.fill(xyz_angstrom[None])[0])
    if energy.status not in FINISHED:
        return Relaxed(number, energy, None)
    end = np.full((structure.input_atoms, 3), np.nan, dtype=np.float32)
    given = structure.source >= 0
    end[structure.source[given]] = ANGSTROM_PER_NM * target.end_nm()[given]
    return Relaxed(number, energy, end)
