"""Label every frame of many targets: parallel, resumable, one row for each frame come what may.

The unit of work is a chunk of frames of one replica. A finished chunk is a Parquet file of its own
in `<out>.parts/`, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import functools
import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import mdtraj
import numpy as np
import openmm
from joblib import Parallel, delayed
from numpy.typing import NDArray

from protenix_eba.energy.outliers import flag_outliers
from protenix_eba.energy.protocol import PROTOCOLS, EnergyProtocol
from protenix_eba.energy.resume import KnownLabels
from protenix_eba.energy.selection import FrameSelection
from protenix_eba.energy.structure import CompleteStructure, complete_structure
from protenix_eba.energy.system import FrameEnergy, TargetEnergy
from protenix_eba.energy.table import (
    EnergyLabels,
    frame_hash,
    labels_from_rows,
    write_labels,
)
from protenix_eba.errors import UserError
from protenix_eba.files import fingerprint
from protenix_eba.progress import progress_bar
from protenix_eba.trajectories import (
    Target,
    find_targets,
    frame_count,
    load_topology,
    read_frames,
)

__all__ = ["FrameSelection", "LabelReport", "label_targets", "minimised_energies"]

# Frames in one unit of work: minutes on a CPU for a protein, so that little is lost when stopped.
_CHUNK = 10


_ALL_FRAMES: Final = FrameSelection()


@dataclass(frozen=True)
class LabelReport:
    """What a labelling run did.

    Attributes:
        labels: All rows now in the table.
        computed: Rows that this run computed; the others were there.
        problems: Trajectories that could not be read, one sentence each.
    """

    labels: EnergyLabels
    computed: int
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Chunk:
    """Frames of one replica for one worker.

    `topology_path` is the PDB file that the system is made from, `structure` says how the frames'
    atoms fill it, or is the reason where there is none.
    """

    target: str
    replica: int
    frames: NDArray[np.int64]
    xyz_angstrom: NDArray[np.float32]
    topology_path: Path
    structure: CompleteStructure | str


@dataclass(frozen=True)
class _Job:
    """What is common to all chunks."""

    protocol: EnergyProtocol
    platform: str
    parts: Path
    generated: bool


def label_targets(
    input_dir: Path | str,
    out: Path | str,
    protocol: EnergyProtocol = PROTOCOLS["default"],
    *,
    reference_dir: Path | str | None = None,
    selection: FrameSelection = _ALL_FRAMES,
    jobs: int = 1,
    platform: str = "auto",
) -> LabelReport:
    """Label trajectories in ATLAS layout and write one table.

    Frames already in `out` or its parts under the same protocol are kept and not computed again,
    except failed ones, which are tried again.

    Args:
        input_dir: Folder of targets, see `trajectories.find_targets`.
        out: Parquet file of all labels.
        protocol: What an energy means.
        reference_dir: Folder of targets of the same names whose PDB files decide protonation,
            disulfides and termini, so that the energies compare with labels made there; the
            frames' own PDB files by default.
        selection: Which frames.
        jobs: Processes, one thread each.
        platform: OpenMM platform, or "auto".

    Raises:
        UserError: No target, no frame at all, or labels in `out` of another protocol, of another
            topology or of other trajectories.
    """
    targets, out = find_targets(input_dir), Path(out)
    references = {t.name: t.topology_path for t in find_targets(reference_dir or input_dir)}
    generated = reference_dir is not None
    job = _Job(protocol, platform, out.with_name(out.name + ".parts"), generated)
    known = KnownLabels.load(out, job.parts, protocol)
    problems: list[str] = []
    wanted = _count_frames(targets, selection, problems)
    chunks = _chunks(targets, references, wanted, known, job, problems)
    computed = _run(chunks, job, jobs, sum(len(f) for f in wanted.values()), known)
    labels = KnownLabels.load(out, job.parts, protocol).labels
    if labels is None:
        raise UserError(
            f"no frame to label in {input_dir}" + "".join(f"\n  {p}" for p in problems),
            "check the trajectories and the choice of frames",
        )
    labels = flag_outliers(labels)
    write_labels(out, labels)
    for part in job.parts.glob("*.parquet"):
        part.unlink()
    if job.parts.is_dir() and not any(job.parts.iterdir()):
        job.parts.rmdir()
    return LabelReport(labels, computed, problems)


def _count_frames(
    targets: list[Target], selection: FrameSelection, problems: list[str]
) -> dict[tuple[str, int], NDArray[np.int64]]:
    """Frames wanted of each replica; replicas that cannot be read become problems."""
    wanted = {}
    for target in targets:
        counts = {}
        for replica in target.trajectory_paths:
            try:
                counts[replica] = frame_count(target, replica)
            except UserError as error:
                problems.append(str(error))
        for replica, frames in selection.of(target.name, counts).items():
            wanted[target.name, replica] = frames
    return wanted


def _chunks(
    targets: list[Target],
    references: Mapping[str, Path],
    wanted: Mapping[tuple[str, int], NDArray[np.int64]],
    known: KnownLabels,
    job: _Job,
    problems: list[str],
) -> Iterator[_Chunk]:
    """The work that is left, read lazily."""
    out = job.parts.with_name(job.parts.name.removesuffix(".parts"))
    for target in targets:
        reference = references.get(target.name, target.topology_path)
        structure = _structure_or_reason(target, references)
        if isinstance(structure, CompleteStructure):
            known.check_topology(target.name, structure.topology_hash, out)
        for replica in target.trajectory_paths:
            frames = wanted.get((target.name, replica), np.empty(0, dtype=np.int64))
            if not len(frames):
                continue
            try:
                xyz = read_frames(target, replica, frames)
            except UserError as error:
                problems.append(str(error))
                continue
            missing = [
                i
                for i, frame in enumerate(frames.tolist())
                if not known.has(target.name, replica, frame, frame_hash(xyz[i]), out)
            ]
            for start in range(0, len(missing), _CHUNK):
                rows = missing[start : start + _CHUNK]
                yield _Chunk(target.name, replica, frames[rows], xyz[rows], reference, structure)


def _structure_or_reason(target: Target, references: Mapping[str, Path]) -> CompleteStructure | str:
    if target.name not in references:
        return "the reference folder has no target of this name"
    reference = references[target.name]
    try:
        structure = complete_structure(reference)
        if reference == target.topology_path:
            return structure
        atoms = load_topology(target).topology.atoms
        return structure.read_from([(atom.residue.index, atom.name) for atom in atoms])
    except UserError as error:
        return str(error).split("\n")[0]


def _run(chunks: Iterator[_Chunk], job: _Job, jobs: int, total: int, known: KnownLabels) -> int:
    """Run all chunks with a bar; returns the number of rows computed."""
    parallel = Parallel(
        n_jobs=jobs, return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs"
    )
    computed = failed = 0
    with progress_bar() as progress:
        task = progress.add_task("labelling", total=total, note="")
        for rows, bad in parallel(delayed(_label_chunk)(chunk, job) for chunk in chunks):
            computed, failed = computed + rows, failed + bad
            note = f"{failed} failed" if failed else ""
            progress.update(task, completed=computed + known.used, note=note)
        progress.update(task, completed=computed + known.used)
    return computed


def _label_chunk(chunk: _Chunk, job: _Job) -> tuple[int, int]:
    """Compute one chunk and write its part; runs in a worker. Returns rows and failed rows."""
    results, platform = _chunk_energies(chunk, job)
    known = chunk.structure if isinstance(chunk.structure, CompleteStructure) else None
    rows = [
        {
            "target": chunk.target,
            "replica": chunk.replica,
            "frame": int(frame),
            **result._asdict(),
            "n_residues": known.n_residues if known else 0,
            "topology_hash": known.topology_hash if known else "",
            "protocol_hash": job.protocol.hash,
            "frame_hash": frame_hash(xyz),
        }
        for frame, xyz, result in zip(chunk.frames, chunk.xyz_angstrom, results, strict=True)
    ]
    labels = labels_from_rows(rows, _provenance(job.protocol, platform))
    name = f"{chunk.target}-R{chunk.replica}-{fingerprint(chunk.frames.tolist())}.parquet"
    write_labels(job.parts / name, labels)
    return len(rows), sum(result.status == "failed" for result in results)


def _chunk_energies(chunk: _Chunk, job: _Job) -> tuple[list[FrameEnergy], str]:
    if not isinstance(chunk.structure, CompleteStructure):
        return [_failure(chunk.structure)] * len(chunk.frames), "none"
    try:
        modified = chunk.topology_path.stat().st_mtime_ns
        target = _target_energy(
            str(chunk.topology_path), modified, job.protocol, job.platform, job.generated
        )
        return _label_frames(target, chunk.structure, chunk.xyz_angstrom), target.platform
    except UserError as error:
        return [_failure(str(error).split("\n")[0])] * len(chunk.frames), "none"


@functools.lru_cache(maxsize=2)
def _target_energy(
    topology_path: str,
    modified_ns: int,
    protocol: EnergyProtocol,
    platform: str,
    generated: bool,
) -> TargetEnergy:
    """Built once in each worker; `modified_ns` only keeps a replaced file from being confused."""
    return TargetEnergy(complete_structure(topology_path), protocol, platform, generated=generated)


def _label_frames(
    target: TargetEnergy, structure: CompleteStructure, xyz_angstrom: NDArray[np.floating]
) -> list[FrameEnergy]:
    if xyz_angstrom.shape[1] != structure.input_atoms:
        found, expected = xyz_angstrom.shape[1], structure.input_atoms
        return [_failure(f"frame has {found} atoms, its topology {expected}")] * len(xyz_angstrom)
    return [target.label(xyz_nm) for xyz_nm in structure.fill(xyz_angstrom)]


def _failure(reason: str) -> FrameEnergy:
    return FrameEnergy(math.nan, math.nan, math.nan, "failed", reason)


def _provenance(protocol: EnergyProtocol, platform: str) -> dict[str, Any]:
    return {
        "protocol": protocol.as_dict(),
        "protocol_hash": protocol.hash,
        "platform": platform,
        "openmm": openmm.__version__,
        "protenix_eba": version("protenix-eba"),
    }


def minimised_energies(
    topology: mdtraj.Trajectory,
    xyz_angstrom: NDArray[np.floating],
    protocol: EnergyProtocol = PROTOCOLS["default"],
    *,
    platform: str = "auto",
) -> list[FrameEnergy]:
    """Energies of conformations that are in memory, for example generated ones.

    Args:
        topology: One frame with N atoms, heavy atoms at least; it decides protonation and
            disulfides for all conformations.
        xyz_angstrom: `[F, N, 3]` in the topology's atom order, angstrom. Hydrogens that the
            topology lacks are added, without random numbers.
        protocol: What an energy means.
        platform: OpenMM platform, or "auto".

    Returns:
        F labels; a conformation that cannot be used has status "failed" and a reason.

    Raises:
        UserError: The force field cannot describe the topology.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "topology.pdb"
        topology.save_pdb(str(path))
        target = TargetEnergy(complete_structure(path), protocol, platform)
    return _label_frames(target, target.structure, np.asarray(xyz_angstrom))
