"""One unit of work: a chunk of frames of one replica, labelled in a process of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import fingerprint
from protenix_eba.energy.journal import JOURNAL_SUFFIX, add_to_journal
from protenix_eba.energy.protocol import EnergyProtocol
from protenix_eba.energy.structure import CompleteStructure
from protenix_eba.energy.system import FrameEnergy, TargetEnergy
from protenix_eba.energy.table import FINISHED, frame_hash

__all__ = ["Chunk", "Job", "label_chunk", "label_frames", "provenance"]


@dataclass(frozen=True)
class Chunk:
    """A range of frames of one replica for one worker.

    Attributes:
        target: Its name.
        replica: Its number.
        frames: `[F]` indices.
        xyz_angstrom: `[F, N, 3]` coordinates.
        faults: Reason why each frame cannot be used; empty when it can.
        structure: What the system is made from and how the frames' atoms fill it, or the reason
            why there is none.
    """

    target: str
    replica: int
    frames: NDArray[np.int64]
    xyz_angstrom: NDArray[np.float32]
    faults: list[str]
    structure: CompleteStructure | str


@dataclass(frozen=True)
class Job:
    """The settings that all chunks share.

    Attributes:
        protocol: What an energy means.
        platform: Name of the OpenMM platform, or "auto".
        parts: Folder for the rows of chunks, see `energy.journal`.
        generated: The frames are a model's, see `TargetEnergy`.
        timeout_s: Time limit for each frame, s; None for no limit.
        prepare: Called in each process before its work.
    """

    protocol: EnergyProtocol
    platform: str
    parts: Path
    generated: bool
    timeout_s: float | None
    prepare: Callable[[], None] | None = field(default=None, compare=False)


def label_chunk(chunk: Chunk, job: Job) -> tuple[int, int]:
    """Compute one chunk, in a worker, and keep each row as soon as it is there.

    Returns:
        Rows, and how many of them have no energy.
    """
    if job.prepare:
        job.prepare()
    results, platform = _energies(chunk, job)
    name = f"{chunk.target}-R{chunk.replica}-{fingerprint(chunk.frames.tolist())}{JOURNAL_SUFFIX}"
    made, without = provenance(job.protocol, platform), 0
    for row in _rows(chunk, results, job.protocol):
        add_to_journal(job.parts / name, row, made)
        without += row["status"] not in FINISHED
    return len(chunk.frames), without


def _rows(
    chunk: Chunk, results: Iterable[FrameEnergy], protocol: EnergyProtocol
) -> Iterator[dict[str, Any]]:
    """Yield the rows of the label table, each when its energy is there."""
    known = chunk.structure if isinstance(chunk.structure, CompleteStructure) else None
    notes = known.notes if known else ()
    for frame, xyz, result in zip(chunk.frames, chunk.xyz_angstrom, results, strict=True):
        yield {
            "target": chunk.target,
            "replica": chunk.replica,
            "frame": int(frame),
            **result._asdict(),
            "reason": "; ".join(filter(None, (result.reason, *notes))),
            "n_residues": known.n_residues if known else 0,
            "built_fraction": known.built_fraction if known else np.nan,
            "topology_hash": known.topology_hash if known else "",
            "protocol_hash": protocol.hash,
            "frame_hash": frame_hash(xyz),
        }


def _energies(chunk: Chunk, job: Job) -> tuple[Iterable[FrameEnergy], str]:
    """Return results for all frames, and the platform; whatever goes wrong is in the rows."""
    count = len(chunk.frames)
    if not isinstance(chunk.structure, CompleteStructure):
        return [FrameEnergy.without("skipped", chunk.structure)] * count, "none"
    try:
        target = _target_energy(chunk.structure, job)
    except UserError as error:
        return [FrameEnergy.without("failed", str(error).split("\n")[0])] * count, "none"
    named = (
        result._replace(reason=fault) if fault and result.status == "skipped" else result
        for result, fault in zip(
            label_frames(target, chunk.xyz_angstrom), chunk.faults, strict=True
        )
    )
    return named, target.platform


@functools.lru_cache(maxsize=2)
def _target_energy(structure: CompleteStructure, job: Job) -> TargetEnergy:
    """Build a target's energy, once in each worker."""
    return TargetEnergy(
        structure,
        job.protocol,
        job.platform,
        generated=job.generated,
        timeout_s=job.timeout_s,
    )


def label_frames(target: TargetEnergy, xyz_angstrom: NDArray[np.floating]) -> Iterator[FrameEnergy]:
    """Label frames `[F, N, 3]` whose atoms fill the target's structure, one by one."""
    structure = target.structure
    if xyz_angstrom.shape[1] != structure.input_atoms:
        found, expected = xyz_angstrom.shape[1], structure.input_atoms
        reason = f"frame has {found} atoms, its topology {expected}"
        yield from [FrameEnergy.without("skipped", reason)] * len(xyz_angstrom)
        return
    for xyz_nm in structure.fill(xyz_angstrom):
        yield target.label(xyz_nm)


def provenance(protocol: EnergyProtocol, platform: str) -> dict[str, Any]:
    """Return how labels were made, for the table's schema."""
    return {
        "protocol": protocol.as_dict(),
        "protocol_hash": protocol.hash,
        "platform": platform,
        "openmm": openmm.__version__,
        "protenix_eba": version("protenix-eba"),
    }
