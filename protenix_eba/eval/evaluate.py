"""Evaluation of one model's ensembles against their MD: all targets, metrics and failures."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from joblib import Parallel, delayed, parallel_config
from threadpoolctl import threadpool_limits

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import fingerprint, make_folder
from protenix_eba.core.progress import tell, track
from protenix_eba.core.sharding import Shard
from protenix_eba.eval.catalogue import plugin_metrics
from protenix_eba.eval.md_cache import MdCache
from protenix_eba.eval.metrics.additions import ModelEnergies, add_energies
from protenix_eba.eval.one_target import TargetSettings, evaluate_target
from protenix_eba.eval.results import Evaluation
from protenix_eba.eval.store import (
    read_target,
    require_target,
    target_path,
    write_target,
)
from protenix_eba.eval.target_result import TargetResult
from protenix_eba.eval.weighting import WeightedDraw, read_weights, refuse_strangers
from protenix_eba.structures.sources import Conformations, find_references, find_samples

__all__ = ["evaluate"]

ALPHAFLOW_N_SAMPLES: Final = 250
_VERSIONED: Final = ("protenix-eba", "mdtraj", "numpy", "scipy")
# What bad data can cause. A defect of ours (KeyError, TypeError) shall stop the run.
_DATA_ERRORS: Final = (UserError, ValueError, ArithmeticError, MemoryError, OSError)


@dataclass(frozen=True)
class _Task:
    """The work for one target, which is sent to another process."""

    reference: Conformations
    samples: Conformations
    settings: TargetSettings
    energies: ModelEnergies
    path: Path
    inputs: str
    cache: MdCache | None
    prepare: Callable[[], object] | None

    @property
    def cost(self) -> int:
        """Bytes to read, which decide on the time and are known without opening a file."""
        return sum(path.stat().st_size for path in (*self.reference.paths, *self.samples.paths))


def evaluate(
    reference: Path | str,
    samples: Sequence[Path | str],
    out_dir: Path | str,
    *,
    label: str,
    settings: TargetSettings | None = None,
    energies: ModelEnergies | None = None,
    targets: Collection[str] | None = None,
    weights: Path | None = None,
    md_cache: Path | None = None,
    jobs: int = 1,
    shard: Shard | None = None,
    sources: Mapping[str, Path | None] | None = None,
    prepare: Callable[[], object] | None = None,
) -> Evaluation:
    """Compare one model's ensembles with MD and write `metrics.json` and `targets/NAME.npz`.

    A target whose result is there already, from the same inputs, is not computed again.

    Args:
        reference: MD, as `find_references` takes it.
        samples: Ensembles, as `find_samples` takes them.
        out_dir: Folder to write to.
        label: Name of the model.
        settings: How each target is evaluated.
        energies: Energies of the MD and of the samples.
        targets: Names that are wanted; each that lacks samples is a failure. Without them the
            targets are those of the samples, and also those of the reference as long as most of
            them have samples: a reference may hold other splits.
        weights: File of the conformations' weights; of equal weight without it.
        md_cache: Folder of what depends on the MD alone, which evaluations of other models on the
            same targets read; nothing is kept without it.
        jobs: Processes.
        shard: Evaluate this share of the targets only, and leave `metrics.json` to a run without.
        sources: Further inputs to name in the settings.
        prepare: Called in each process before its work; it registers what plugins bring.

    Raises:
        UserError: A folder without targets, or not one target that could be evaluated.

    Examples:
        The shipped MD of a peptide against itself, without the metrics beyond the protocol:

        >>> from importlib.resources import files
        >>> md = str(files("protenix_eba") / "demo_data")
        >>> only_protocol = TargetSettings(beyond=False)
        >>> found = evaluate(
        ...     md, [md], "out", label="MD", targets=["grgds"], settings=only_protocol
        ... )
        >>> round(found.targets["grgds"].values["rmsf_pearson"], 6)
        1.0
    """
    settings, energies = settings or TargetSettings(), energies or ModelEnergies({}, {})
    out_dir = Path(out_dir)
    inputs = _Inputs.find(reference, samples, weights)
    wanted, not_evaluated = inputs.wanted(targets)
    if shard:
        wanted = shard.of(wanted)
    make_folder(out_dir / "targets")  # before hours of work rather than after
    rest = (settings, energies, out_dir, _usable(md_cache), prepare)
    results, reasons = _evaluate_all(inputs, wanted, jobs, *rest)
    if not results and not shard:
        shown = "\n".join(f"{name}: {why}" for name, why in list(reasons.items())[:4])
        raise UserError(f"no target could be evaluated:\n{shown}")
    evaluation = Evaluation(
        label=label,
        targets=results,
        failed=dict(sorted(reasons.items())),
        not_evaluated=not_evaluated,
        notes=[*_notes(results, reasons), *inputs.unweighted(results)],
        settings=_recorded(
            settings, energies, reference, samples, {"weights": weights, **(sources or {})}
        ),
        versions=_versions(),
    )
    if not shard:
        evaluation.write(out_dir)
    return evaluation


def _usable(md_cache: Path | None) -> Path | None:
    """Return the folder, or None where it cannot be written: results do not depend on it."""
    try:
        if md_cache:
            make_folder(md_cache)
    except UserError as error:
        tell(f"note: what depends on the MD alone is not kept for other models: {error}")
        return None
    return md_cache


def _evaluate_all(
    inputs: _Inputs,
    wanted: Sequence[str],
    jobs: int,
    settings: TargetSettings,
    energies: ModelEnergies,
    out_dir: Path,
    md_cache: Path | None,
    prepare: Callable[[], object] | None,
) -> tuple[dict[str, TargetResult], dict[str, str]]:
    """Evaluate all targets; return the result of each, or why it has none."""
    reasons = {name: fault for name in wanted if (fault := inputs.fault(name))}
    tasks = {
        name: _task(
            inputs.references[name],
            inputs.samples[name],
            settings,
            energies,
            out_dir,
            md_cache,
            prepare,
        )
        for name in wanted
        if name not in reasons
    }
    reasons |= _run(tasks, jobs)
    results = {name: require_target(tasks[name].path) for name in wanted if name not in reasons}
    return results, reasons


def _recorded(
    settings: TargetSettings,
    energies: ModelEnergies,
    reference: Path | str,
    samples: Sequence[Path | str],
    sources: Mapping[str, Path | None],
) -> dict[str, Any]:
    """Return what `metrics.json` says of how it was made."""
    return {
        "reference": str(reference),
        "samples": [str(path) for path in samples],
        "temperature_K": energies.temperature_K,
        **asdict(settings),
        **{key: str(path) for key, path in sources.items() if path},
    }


@dataclass(frozen=True)
class _Inputs:
    """The targets of the MD and of the samples, each with its source or why it is unusable."""

    references: Mapping[str, Conformations]
    reference_failed: Mapping[str, str]
    samples: Mapping[str, Conformations]
    samples_failed: Mapping[str, str]

    @classmethod
    def find(
        cls, reference: Path | str, samples: Sequence[Path | str], weights: Path | None
    ) -> _Inputs:
        md = find_references(Path(reference))
        found, failed = find_samples([Path(path) for path in samples])
        known = read_weights(weights) if weights else {}
        if weights and found:
            refuse_strangers(known, found, str(weights))
        drawn = {n: WeightedDraw(s, known[n]) if n in known else s for n, s in found.items()}
        return cls(*md, drawn, failed)

    def wanted(self, targets: Collection[str] | None) -> tuple[list[str], list[str]]:
        """Return the targets to evaluate, and those of the reference that are left out, sorted."""
        known = {*self.references, *self.reference_failed}
        if targets is not None:
            return sorted(targets), sorted(known - set(targets))
        sampled = {*self.samples, *self.samples_failed}
        missing = known - sampled
        if 2 * len(missing) <= len(known):
            return sorted(known | sampled), []
        return sorted(sampled), sorted(missing)

    def unweighted(self, names: Collection[str]) -> list[str]:
        """Return a note if some of the targets have weights and others have none."""
        without = [n for n in names if not isinstance(self.samples[n], WeightedDraw)]
        weighted = any(isinstance(samples, WeightedDraw) for samples in self.samples.values())
        return [f"No weights, so equal ones: {', '.join(without)}."] if weighted and without else []

    def fault(self, name: str) -> str:
        """Return why a target cannot even be opened; empty if it can."""
        if name not in self.samples:
            return self.samples_failed.get(name, "no samples of this target")
        if name not in self.references:
            return f"MD reference: {self.reference_failed.get(name, 'no such target')}"
        return ""


def _task(
    reference: Conformations,
    samples: Conformations,
    settings: TargetSettings,
    energies: ModelEnergies,
    out_dir: Path,
    md_cache: Path | None,
    prepare: Callable[[], object] | None,
) -> _Task:
    name = reference.name
    # Only this target's energies travel to the other process.
    md, own = ({name: table[name]} if name in table else {} for table in
               (energies.md, energies.samples))  # fmt: skip
    energies = replace(energies, md=md, samples=own)
    of_md = {
        "reference": _state(reference),
        "settings": asdict(settings),
        "versions": _versions(),
        "code": _code(),
    }
    inputs = fingerprint(
        {
            **of_md,
            "samples": _state(samples),
            **({"drawn": samples.drawn} if isinstance(samples, WeightedDraw) else {}),
            "energies": [
                {k: [v.tolist(), table.n_residues] for k, v in table.replicas.items()}
                for side in (md, own)
                for table in side.values()
            ],
            "temperature_K": energies.temperature_K,
            **_plugin_code(),
        }
    )
    path = target_path(out_dir, name)
    cache = MdCache(md_cache, fingerprint(of_md)) if md_cache else None
    return _Task(reference, samples, settings, energies, path, inputs, cache, prepare)


def _state(conformations: Conformations) -> list[tuple[str, int, int]]:
    """Return name, size and time of each file, so that changes show without reading any."""
    stats = [(path, path.stat()) for path in conformations.paths]
    return [(str(path.resolve()), stat.st_size, stat.st_mtime_ns) for path, stat in stats]


@functools.cache
def _code() -> str:
    """Return a fingerprint of the source: a metric may change without a new version."""
    package = Path(__file__).parents[1]
    sources = sorted(
        path
        for room in ("core", "protein", "structures", "eval")
        for path in (package / room).rglob("*.py")
    )
    return fingerprint([source.read_text(encoding="utf-8") for source in sources])


def _plugin_code() -> dict[str, str]:
    """Return fingerprints of the sources of metrics from plugins, if there are any."""
    computed = (inspect.unwrap(m.compute) for m in plugin_metrics() if m.compute)
    plain = (f.func if isinstance(f, functools.partial) else f for f in computed)
    return {name: _source(name) for name in sorted({f.__module__ for f in plain})}


def _source(module: str) -> str:
    """Return a fingerprint of a module's text, or of its name if it has none."""
    try:
        return fingerprint(inspect.getsource(sys.modules[module]))
    except (OSError, TypeError):  # compiled, or typed in
        return fingerprint(module)


def _run(tasks: Mapping[str, _Task], jobs: int) -> dict[str, str]:
    """Evaluate the targets that have no result, longest first; return why some failed."""
    missing = {name: t for name, t in tasks.items() if read_target(t.path, t.inputs) is None}
    queue = sorted(missing, key=lambda name: (-missing[name].cost, name))
    outcomes = _outcomes([missing[name] for name in queue], jobs)
    tracked = track(outcomes, "evaluating", len(queue), visible=bool(queue))
    return {name: reason for name, reason in tracked if reason}


def _outcomes(tasks: Sequence[_Task], jobs: int) -> Iterator[tuple[str, str]]:
    # A process for each target: numpy's own threads would only fight over the same cores.
    with parallel_config(backend="loky", inner_max_num_threads=1):
        parallel = Parallel(n_jobs=min(jobs, max(len(tasks), 1)), return_as="generator_unordered",
                            pre_dispatch="2*n_jobs", batch_size=1)  # fmt: skip
        yield from parallel(delayed(_evaluate)(task) for task in tasks)


def _evaluate(task: _Task) -> tuple[str, str]:
    """Evaluate a target and store the result; return its name and why it failed, if it did."""
    name = task.reference.name
    if task.prepare:
        task.prepare()
    try:
        # One job runs in this process, which the limits of the others do not reach.
        with threadpool_limits(1):
            result = evaluate_target(task.reference, task.samples, task.settings, task.cache)
            result = add_energies(result, task.energies, task.settings.seed)
        write_target(task.path, result, task.inputs)
    except _DATA_ERRORS as error:
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        return name, f"{kind}{error}"
    return name, ""


def _notes(results: Mapping[str, TargetResult], failed: Mapping[str, str]) -> list[str]:
    notes = []
    sizes = sorted({int(t.counts["n_samples"]) for t in results.values()})
    if sizes and sizes != [ALPHAFLOW_N_SAMPLES]:
        shown = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        notes.append(
            f"{shown} conformations for each target. Published tables use {ALPHAFLOW_N_SAMPLES}, "
            "and most metrics depend on this number."
        )
    if failed:
        notes.append(
            f"{len(failed)} of {len(results) + len(failed)} targets failed and are in no median."
        )
    kinds = {bool(t.counts.get("ca_only")) for t in results.values()}
    if True in kinds:
        notes.append(
            "Targets with C-alpha atoms only: their fluctuations and RMWD are of these atoms and "
            "cannot be compared with all-atom numbers"
            + ("; they are aggregated apart." if False in kinds else ".")
        )
    without = sum(not t.floor for t in results.values())
    if without:
        notes.append(f"{without} targets have one MD replica and thus no MD floor.")
    return notes


def _versions() -> dict[str, str]:
    found: dict[str, Any] = {}
    for name in _VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
