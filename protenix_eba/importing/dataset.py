"""Import many targets: parallel, resumable, one row in the report for each."""

from __future__ import annotations

import csv
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from joblib import Parallel, delayed

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import atomic_path, make_folder
from protenix_eba.core.progress import progress_bar
from protenix_eba.importing.one_target import import_target
from protenix_eba.importing.record import ROW, ImportedTarget, remove_leftovers
from protenix_eba.structures.frame_choice import FrameChoice
from protenix_eba.structures.md_files import Source

__all__ = ["REPORT", "ImportReport", "import_targets"]

REPORT: Final = "import_report.csv"
# Enough that the processes seldom wait for the last target of a round.
_TARGETS_PER_PROCESS: Final = 16
_KILLED: Final = (
    "the process that read it was killed: one of its files is corrupt, or the memory was too small"
)


@dataclass(frozen=True)
class ImportReport:
    """The outcome of an import.

    Attributes:
        rows: One for each target, by name.
        not_in_split: Targets of the input that the split does not name; they were not imported.
    """

    rows: tuple[ImportedTarget, ...]
    not_in_split: int

    @property
    def complete(self) -> bool:
        """Tell whether every target was imported with all its frames."""
        return all(row.status == "ok" for row in self.rows)


def import_targets(
    sources: Sequence[Source],
    out: Path,
    choice: FrameChoice,
    *,
    split: Mapping[str, tuple[str, ...]] | None = None,
    jobs: int = 1,
) -> ImportReport:
    """Import targets into `out/NAME` and write `out/import_report.csv`.

    Targets that are there from the same files with the same choice are kept, and so are the
    report's rows of targets that are not among the sources.

    Args:
        sources: Sources from `sources.find_md`.
        out: The data set.
        choice: Which frames of each target.
        split: The targets wanted, each with the sequence of its chains; all when None. Names
            that are not among the sources become failed rows.
        jobs: Processes.

    Raises:
        UserError: `out` cannot be written to, or two sources have one name.
    """
    names = Counter(source.name for source in sources)
    if twice := sorted(name for name, count in names.items() if count > 1):
        raise UserError(f"two sources are called {', '.join(twice)}", "give each target one name")
    chosen = [s for s in sources if split is None or s.name in split]
    chosen += [Source(n, problem="the split names it, the input has it not")
               for n in split or () if n not in names]  # fmt: skip
    make_folder(out)
    rows = _run(chosen, out, choice, split or {}, jobs)
    try:
        _write_report(out / REPORT, rows)
    except OSError as error:
        raise UserError(
            f"the targets are imported, but {out / REPORT} cannot be written: {error}",
            "make room on the disk and start the command again: what is done is kept",
        ) from error
    return ImportReport(tuple(rows), len(sources) - sum(s.name in names for s in chosen))


def _run(
    sources: list[Source],
    out: Path,
    choice: FrameChoice,
    split: Mapping[str, tuple[str, ...]],
    jobs: int,
) -> list[ImportedTarget]:
    """Import all targets with a bar; return their rows by name."""
    rows: list[ImportedTarget] = []
    task = partial(_import_quietly, out=out, choice=choice, split=split)
    # One process at a time works on one target at a time.
    size = 1 if jobs == 1 else _TARGETS_PER_PROCESS * jobs
    with progress_bar() as progress:
        bar = progress.add_task("importing", total=len(sources), note="")
        for start in range(0, len(sources), size):
            for row in _in_processes(sources[start : start + size], task, out, jobs):
                rows.append(row)
                faults = sum(r.status != "ok" for r in rows)
                progress.update(bar, advance=1, note=f"{faults} with faults" if faults else "")
    return sorted(rows, key=lambda row: row.target)


def _in_processes(
    sources: Sequence[Source], task: Callable[[Source], ImportedTarget], out: Path, jobs: int
) -> Iterator[ImportedTarget]:
    """Yield rows as they come; a file that kills its process becomes one failed row.

    The readers of trajectories are C code that a corrupt file can crash. All targets that were at
    work are then tried again alone, which tells the one that did it.
    """
    waiting = {source.name: source for source in sources}
    # joblib makes processes from two jobs on, with one it would work in this one.
    parallel = Parallel(
        n_jobs=max(2, jobs), backend="loky", return_as="generator_unordered", batch_size=1
    )
    try:
        for row in parallel(delayed(task)(source) for source in sources):
            del waiting[row.target]
            yield row
        return
    except BrokenProcessPool:
        if len(sources) == 1:
            remove_leftovers(out, sources[0].name)
            yield ImportedTarget(sources[0].name, "failed", 0, _KILLED)
            return
    for source in waiting.values():
        yield from _in_processes([source], task, out, 1)


def _import_quietly(
    source: Source, out: Path, choice: FrameChoice, split: Mapping[str, tuple[str, ...]]
) -> ImportedTarget:
    """Import in a worker without what mdtraj's C readers print: the record tells it."""
    with open(os.devnull, "wb") as sink:
        os.dup2(sink.fileno(), 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_target(source, out, choice, split.get(source.name))


def _write_report(path: Path, rows: list[ImportedTarget]) -> None:
    table = {row["target"]: row for row in _read_report(path)}
    table |= {r.target: r.as_dict() for r in rows}
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as handle,
    ):
        writer = csv.DictWriter(handle, ROW)
        writer.writeheader()
        writer.writerows(table[name] for name in sorted(table))


def _read_report(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8", errors="replace") as handle:
        rows = list(csv.DictReader(handle))
    return [row for row in rows if set(row) == set(ROW)]
