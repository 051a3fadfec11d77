"""Import many targets: parallel, resumable, one row in the report for each."""

from __future__ import annotations

import csv
import os
import platform
import re
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError

from protenix_eba.errors import UserError
from protenix_eba.files import atomic_path
from protenix_eba.importing.frames import FrameChoice
from protenix_eba.importing.sources import Source
from protenix_eba.importing.target import ImportedTarget, import_target
from protenix_eba.progress import progress_bar

__all__ = ["REPORT", "ImportReport", "import_targets"]

REPORT: Final = "import_report.csv"
_COLUMNS: Final = ("target", "status", "n_frames", "reason")


@dataclass(frozen=True)
class ImportReport:
    """What an import did.

    Attributes:
        rows: One for each target, by name.
        not_in_split: Targets of the input that the split does not name; they were not imported.
    """

    rows: tuple[ImportedTarget, ...]
    not_in_split: int

    @property
    def complete(self) -> bool:
        """Whether every target was imported with all its frames."""
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
        sources: From `sources.find_sources`.
        out: The data set.
        choice: Which frames of each target.
        split: The targets wanted, each with the sequence of its chains; all when None. Names
            that are not among the sources become failed rows.
        jobs: Processes.

    Raises:
        UserError: `out` cannot be written to, or a process was killed.
    """
    twice = sorted({s.name for s in sources if sum(s.name == t.name for t in sources) > 1})
    if twice:
        raise UserError(f"two sources are called {', '.join(twice)}", "give each target one name")
    chosen = [s for s in sources if split is None or s.name in split]
    names = {source.name for source in sources}
    chosen += [Source(n, problem="the split names it, the input has it not")
               for n in split or () if n not in names]  # fmt: skip
    _check_writable(out)
    _remove_leftovers(out)
    rows = _run(chosen, out, choice, split or {}, jobs)
    _write_report(out / REPORT, rows)
    return ImportReport(tuple(rows), len(sources) - sum(s.name in names for s in chosen))


def _check_writable(out: Path) -> None:
    with atomic_path(out / ".import_test") as probe:
        probe.touch()
    (out / ".import_test").unlink()


def _remove_leftovers(out: Path) -> None:
    """Delete half-written targets of processes of this machine that were killed."""
    pattern = re.compile(rf"\..*\.{re.escape(platform.node())}\.(\d+)\.tmp")
    for folder in out.glob(".*.tmp*"):
        match = pattern.match(folder.name)
        if match and folder.is_dir() and not _is_running(int(match.group(1))):
            shutil.rmtree(folder, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _run(
    sources: list[Source],
    out: Path,
    choice: FrameChoice,
    split: Mapping[str, tuple[str, ...]],
    jobs: int,
) -> list[ImportedTarget]:
    parallel = Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)
    tasks = (delayed(_import_quietly)(s, out, choice, split.get(s.name)) for s in sources)
    rows: list[ImportedTarget] = []
    with progress_bar() as progress:
        task = progress.add_task("importing", total=len(sources), note="")
        try:
            for row in parallel(tasks):
                rows.append(row)
                failed = sum(r.status != "ok" for r in rows)
                progress.update(task, advance=1, note=f"{failed} with faults" if failed else "")
        except TerminatedWorkerError as error:
            raise UserError(
                f"a process was killed, for want of memory perhaps ({len(rows)} targets are done)",
                "start the command again, with fewer --jobs: what is done is kept",
            ) from error
    return sorted(rows, key=lambda row: row.target)


def _import_quietly(
    source: Source, out: Path, choice: FrameChoice, chains: tuple[str, ...] | None
) -> ImportedTarget:
    """Import without the warnings of mdtraj: the record tells what they tell."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_target(source, out, choice, chains)


def _write_report(path: Path, rows: list[ImportedTarget]) -> None:
    table = {row["target"]: row for row in _read_report(path)}
    table |= {r.target: {column: getattr(r, column) for column in _COLUMNS} for r in rows}
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as handle,
    ):
        writer = csv.DictWriter(handle, _COLUMNS)
        writer.writeheader()
        writer.writerows(table[name] for name in sorted(table))


def _read_report(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    return [row for row in rows if set(row) == set(_COLUMNS)]
