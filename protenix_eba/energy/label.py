"""Label every frame of many targets: parallel, resumable, one row for each frame come what may.

The unit of work is a chunk of frames of one replica. Its rows are kept one by one in a journal of
its own in `<out>.parts/`, so that a run that was stopped, or killed, goes on where it was.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import mdtraj
import numpy as np
from joblib import delayed
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.core.progress import progress_bar
from protenix_eba.core.sharding import Shard
from protenix_eba.energy.functions import check_energy
from protenix_eba.energy.md_files import MdFiles
from protenix_eba.energy.md_structure import md_structure
from protenix_eba.energy.outliers import flag_outliers
from protenix_eba.energy.parallel import run_parallel
from protenix_eba.energy.protocol import PROTOCOLS, EnergyProtocol
from protenix_eba.energy.protonation_choice import Protonation
from protenix_eba.energy.resume import KnownLabels, LabelFiles, merged, parts_folder
from protenix_eba.energy.shards import shard_table
from protenix_eba.energy.sources import FrameSource, find_frame_sources
from protenix_eba.energy.structure import CompleteStructure, complete_structure
from protenix_eba.energy.system import FrameEnergy, TargetEnergy
from protenix_eba.energy.table import (
    EnergyLabels,
    frame_hash,
    labels_from_rows,
    write_labels,
)
from protenix_eba.energy.work import Chunk, Job, label_chunk, label_frames, provenance
from protenix_eba.structures.frame_choice import FrameChoice

__all__ = [
    "LabelReport",
    "Workers",
    "label_targets",
    "minimised_energies",
]

# Frames in one unit of work: few enough that all processes have work until the end.
_CHUNK = 10


@dataclass(frozen=True, kw_only=True)
class Workers:
    """The processes that compute labels, and their limits.

    Attributes:
        jobs: Processes, one thread each.
        platform: OpenMM platform, or "auto".
        backend: joblib's: "loky", "dask" or "ray"; workers on other machines need the input and
            the output under the same paths.
        scheduler: Address of a running dask or ray cluster; None starts one on this machine.
        frame_timeout_s: Time after which a frame is given up, s; None for no limit.
        prepare: Called in each process before its work; it registers what plugins bring.
    """

    jobs: int = 1
    platform: str = "auto"
    backend: str = "loky"
    scheduler: str | None = None
    frame_timeout_s: float | None = None
    prepare: Callable[[], None] | None = None


_ALL_FRAMES: Final = FrameChoice()
_ONE_PROCESS: Final = Workers()


@dataclass(frozen=True)
class LabelReport:
    """The outcome of a labelling run.

    Attributes:
        labels: All rows now in the table.
        computed: Rows that this run computed; the others were there.
        problems: Trajectories that could not be read, one sentence each.
    """

    labels: EnergyLabels
    computed: int
    problems: list[str] = field(default_factory=list)


def label_targets(
    inputs: Path | str | Sequence[Path | str],
    out: Path | str,
    protocol: EnergyProtocol = PROTOCOLS["default"],
    *,
    systems: MdFiles | None = None,
    reference_dir: Path | str | None = None,
    choice: FrameChoice = _ALL_FRAMES,
    workers: Workers = _ONE_PROCESS,
    shard: Shard | None = None,
    name: str | None = None,
) -> LabelReport:
    """Label trajectories or structure files and write one table.

    Frames already in `out`, its shares or parts under the same protocol are kept and not computed
    again, except those without an energy, which are tried again.

    Args:
        inputs: Folders of targets or structure files, see `sources.find_frame_sources`.
        out: Parquet file of all labels.
        protocol: What an energy means.
        systems: Files of the MD's own force field, by target, if the protocol is of these.
        reference_dir: Folder of targets of the same names whose PDB files decide protonation,
            disulfides and termini, so that the energies compare with labels made there; the
            frames' own PDB files by default.
        choice: Which frames to label.
        workers: Processes, platform and time limits of the computation.
        shard: Label this share of the targets only, into a table of its own beside `out`.
        name: Name of the target, where the inputs are structure files of a single one.

    Raises:
        UserError: No target, no frame at all, an energy function that is not known or lacks its
            package, or labels in `out` of another protocol, of another topology or of other
            trajectories.

    Examples:
        The energy of a shipped structure as it is, without minimisation:

        >>> from dataclasses import replace
        >>> from importlib.resources import files
        >>> structure = str(files("protenix_eba") / "demo_data" / "grgds" / "grgds.pdb")
        >>> as_it_is = replace(PROTOCOLS["default"], minimise=False)
        >>> report = label_targets([structure], "labels.parquet", as_it_is)
        >>> report.labels.status.tolist()
        ['ok']
    """
    check_energy(protocol)
    sources, out = find_frame_sources(inputs, name), Path(out)
    structures = _Structures.for_targets(sources, protocol, systems, reference_dir)
    if shard:
        sources = shard.of(sources)
    table = shard_table(shard, out) if shard else out
    job = Job(
        protocol,
        workers.platform,
        parts_folder(table),
        reference_dir is not None,
        workers.frame_timeout_s,
        workers.prepare,
    )
    known = KnownLabels.load(out, protocol)
    problems: list[str] = []
    wanted = _count_frames(sources, choice, problems)
    chunks = _chunks(sources, structures, wanted, known, problems, workers.jobs)
    computed = _run(chunks, job, workers, sum(len(f) for f in wanted.values()), known)
    labels = _collect(out, table, sources, job, problems)
    return LabelReport(labels, computed, problems)


def _references(sources: list[FrameSource], reference_dir: Path | str | None) -> Mapping[str, Path]:
    chosen = find_frame_sources(reference_dir) if reference_dir is not None else sources
    return {source.name: source.topology_path for source in chosen}


def _collect(
    out: Path, table: Path, sources: list[FrameSource], job: Job, problems: list[str]
) -> EnergyLabels:
    """Write the table of this run from all that is there, and remove what has become part of it.

    A share takes the rows of its own targets, and removes only its own parts.
    """
    files = LabelFiles.beside(out)
    tables = files.read()
    if table == out and not tables:
        raise UserError(
            "no frame to label" + "".join(f"\n  {p}" for p in problems),
            "check the trajectories and the choice of frames",
        )
    labels = merged(tables) if tables else labels_from_rows([], provenance(job.protocol, "none"))
    if table != out:
        labels = labels.select(np.isin(labels.target, [source.name for source in sources]))
        mine = [path for path in files.parts if path.parent == job.parts]
        files = LabelFiles([], [], mine)
    labels = flag_outliers(labels)
    write_labels(table, labels)
    files.remove(keep=out)
    return labels


def _count_frames(
    sources: list[FrameSource], choice: FrameChoice, problems: list[str]
) -> dict[tuple[str, int], NDArray[np.int64]]:
    """Count the frames wanted of each replica; unreadable replicas become problems."""
    wanted = {}
    for source in sources:
        counts = {}
        for replica in source.replicas:
            try:
                counts[replica] = source.count(replica)
                remark = source.remark(replica)
            except UserError as error:
                remark = str(error)
            if remark:
                problems.append(remark)
        for replica, frames in choice.of(source.name, counts).items():
            wanted[source.name, replica] = frames
    return wanted


def _chunks(
    sources: list[FrameSource],
    structures: _Structures,
    wanted: Mapping[tuple[str, int], NDArray[np.int64]],
    known: KnownLabels,
    problems: list[str],
    jobs: int,
) -> Iterator[Chunk]:
    """Yield the work that is left, read lazily; few frames are shared out to all processes."""
    for source in sources:
        structure = structures.of(source)
        if isinstance(structure, CompleteStructure):
            known.check_topology(source.name, structure.topology_hash)
        for replica in source.replicas:
            frames = wanted.get((source.name, replica), np.empty(0, dtype=np.int64))
            if not len(frames):
                continue
            try:
                xyz, faults = source.read(replica, frames)
            except UserError as error:
                problems.append(str(error))
                continue
            missing = [
                i
                for i, frame in enumerate(frames.tolist())
                if not known.has(source.name, replica, frame, frame_hash(xyz[i]))
            ]
            size = min(_CHUNK, math.ceil(len(missing) / jobs))
            for start in range(0, len(missing), size or 1):
                rows = missing[start : start + size]
                chosen = [faults[i] for i in rows]
                yield Chunk(source.name, replica, frames[rows], xyz[rows], chosen, structure)


@dataclass(frozen=True)
class _Structures:
    """What the systems of targets are made from.

    Attributes:
        references: Structure file of each target.
        protonation: Of residues that show no hydrogens.
        systems: Files of the MD's own force field, or None.
    """

    references: Mapping[str, Path]
    protonation: Protonation
    systems: MdFiles | None

    @classmethod
    def for_targets(
        cls,
        sources: list[FrameSource],
        protocol: EnergyProtocol,
        systems: MdFiles | None,
        reference_dir: Path | str | None,
    ) -> _Structures:
        """Take what `label_targets` was given; raise UserError where it names no such target."""
        protonation = Protonation.parse(protocol.protonation)
        names = [source.name for source in sources]
        protonation.check_targets(names)
        if systems is not None:
            systems.check_targets(names)
        return cls(_references(sources, reference_dir), protonation, systems)

    def of(self, source: FrameSource) -> CompleteStructure | str:
        """Return the structure of a target, or the reason why there is none."""
        if source.name not in self.references:
            return "the reference folder has no target of this name"
        reference, protonation = self.references[source.name], self.protonation.of(source.name)
        try:
            if self.systems is None:
                structure = complete_structure(reference, str(protonation))
            else:
                structure = md_structure(self.systems.of(source.name), reference, str(protonation))
            if reference == source.topology_path:
                return structure
            return structure.read_from(source.atoms())
        except UserError as error:
            return str(error).split("\n")[0]


def _run(
    chunks: Iterator[Chunk], job: Job, workers: Workers, total: int, known: KnownLabels
) -> int:
    """Run all chunks with a bar and return the number of rows computed."""
    computed = without = 0
    tasks = (delayed(label_chunk)(chunk, job) for chunk in chunks)
    results = run_parallel(tasks, workers.jobs, workers.backend, workers.scheduler)
    with progress_bar() as progress:
        task = progress.add_task("labelling", total=total, completed=known.used, note="")
        for rows, bad in results:
            computed, without = computed + rows, without + bad
            note = f"{without} without energy" if without else ""
            progress.update(task, completed=computed + known.used, note=note)
        progress.update(task, completed=computed + known.used)
    return computed


def minimised_energies(
    topology: mdtraj.Trajectory,
    xyz_angstrom: NDArray[np.floating],
    protocol: EnergyProtocol = PROTOCOLS["default"],
    *,
    platform: str = "auto",
) -> list[FrameEnergy]:
    """Label conformations that are in memory, for example generated ones.

    Args:
        topology: One frame with N atoms, heavy atoms at least; it decides protonation and
            disulfides for all conformations.
        xyz_angstrom: `[F, N, 3]` in the topology's atom order, angstrom. Hydrogens that the
            topology lacks are added, without random numbers.
        protocol: What an energy means.
        platform: OpenMM platform, or "auto".

    Returns:
        F labels; a conformation that cannot be used has status "skipped" or "failed" and a reason.

    Raises:
        UserError: The force field cannot describe the topology.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "topology.pdb"
        topology.save_pdb(str(path))
        target = TargetEnergy(complete_structure(path, protocol.protonation), protocol, platform)
    return list(label_frames(target, np.asarray(xyz_angstrom)))
