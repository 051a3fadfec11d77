"""What an evaluation found, and its files: metrics.json and metrics.csv."""

from __future__ import annotations

import csv
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protenix_eba.eval.definitions import AGGREGATES, METRICS, aggregate, over_targets
from protenix_eba.eval.metrics import Panel
from protenix_eba.files import atomic_path, write_json

__all__ = ["EnsembleResult", "Evaluation", "Profile", "TargetResult", "write_csv"]

Float64s = NDArray[np.float64]


@dataclass(frozen=True)
class TargetResult:
    """One ensemble against the MD of one target.

    Attributes:
        values: Metric key to value, and `n_samples`, `n_md_frames`, `n_atoms`, `coverage`.
        panel: The coordinate metrics with their RMSF profiles.
        floor: The same metrics, MD against MD: each replica against the others, mean over
            replicas; empty where the MD has one replica only.
        floor_panels: The floor's coordinate metrics, one for each replica.
    """

    values: dict[str, float]
    panel: Panel
    floor: dict[str, float]
    floor_panels: tuple[Panel, ...]


@dataclass(frozen=True)
class EnsembleResult:
    """One model's samples of all targets.

    Attributes:
        targets: Name to result, those that could be evaluated.
        failed: Name to the reason why not.
    """

    targets: dict[str, TargetResult]
    failed: dict[str, str]

    def restricted_to(self, names: Collection[str]) -> EnsembleResult:
        """The same ensemble with these targets only."""
        return EnsembleResult({k: v for k, v in self.targets.items() if k in names}, self.failed)

    def aggregate(self) -> dict[str, float | int]:
        """Medians over targets, and the metrics that need all targets."""
        results = list(self.targets.values())
        return aggregate([r.values for r in results], [r.panel for r in results])

    def floor_aggregate(self) -> dict[str, float | int]:
        """The same for MD against MD; those over targets are means over replicas."""
        results = [r for r in self.targets.values() if r.floor_panels]
        if not results:
            return {}
        n_replicas = min(len(r.floor_panels) for r in results)
        rows = [over_targets([r.floor_panels[k] for r in results]) for k in range(n_replicas)]
        shared = set.intersection(*(set(row) for row in rows))
        means = {key: float(np.mean([row[key] for row in rows])) for key in sorted(shared)}
        return aggregate([r.floor for r in results], []) | means


@dataclass
class Profile:
    """What the figures of one target show.

    Attributes:
        residue_numbers: `[L]` of the matched C-alpha atoms.
        md_rmsf: `[L]` C-alpha RMSF of all MD frames, angstrom.
        md_rmsf_band: `[2, L]` lowest and highest over single replicas.
        md_pca: `[n, 2]` MD frames on the MD's first two PCs, angstrom.
        sample_rmsf: Label to `[L']` residue numbers and `[L']` RMSF.
        sample_pca: Label to `[S, 2]`.
        md_energy: `[F]` kJ/mol; empty when not known.
        md_weights: `[F]` Boltzmann weights.
        sample_energy: Label to `[S]` kJ/mol.
    """

    residue_numbers: NDArray[np.int64]
    md_rmsf: Float64s
    md_rmsf_band: Float64s
    md_pca: Float64s
    sample_rmsf: dict[str, tuple[NDArray[np.int64], Float64s]] = field(default_factory=dict)
    sample_pca: dict[str, Float64s] = field(default_factory=dict)
    md_energy: Float64s = field(default_factory=lambda: np.empty(0))
    md_weights: Float64s = field(default_factory=lambda: np.empty(0))
    sample_energy: dict[str, Float64s] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """All ensembles against one MD reference.

    Attributes:
        ensembles: Label to result, in the order given.
        profiles: Target to what its figures show.
        not_evaluated: Reference targets that no ensemble has.
        notes: Sentences on how far the numbers can be compared.
        settings: What was run.
        versions: Package to version.
    """

    ensembles: dict[str, EnsembleResult]
    profiles: dict[str, Profile]
    not_evaluated: list[str]
    notes: list[str]
    settings: dict[str, Any]
    versions: dict[str, str]

    @property
    def common_targets(self) -> list[str]:
        """Targets that every ensemble has, sorted: medians can be compared over these only."""
        names = [set(ensemble.targets) for ensemble in self.ensembles.values()]
        return sorted(set.intersection(*names))

    @property
    def failed(self) -> dict[str, dict[str, str]]:
        """Label to target to reason, labels without failures left out."""
        return {label: e.failed for label, e in self.ensembles.items() if e.failed}

    def to_json(self) -> dict[str, Any]:
        """Plain values for `metrics.json`; a metric that is not defined is null."""
        return {
            "ensembles": {
                label: {
                    "targets": {n: _finite(t.values) for n, t in result.targets.items()},
                    "aggregate": _finite(result.aggregate()),
                }
                for label, result in self.ensembles.items()
            },
            "floor": {
                label: {
                    "targets": {n: _finite(t.floor) for n, t in result.targets.items() if t.floor},
                    "aggregate": _finite(result.floor_aggregate()),
                }
                for label, result in self.ensembles.items()
            },
            "failed": self.failed,
            "not_evaluated": self.not_evaluated,
            "notes": self.notes,
            "settings": self.settings,
            "versions": self.versions,
        }

    def write(self, out_dir: Path) -> None:
        """Write `metrics.json` and `metrics.csv`."""
        write_json(out_dir / "metrics.json", self.to_json())
        write_csv(out_dir / "metrics.csv", self)


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {key: value if math.isfinite(value) else None for key, value in values.items()}


def write_csv(path: Path, evaluation: Evaluation) -> None:
    """One row for each ensemble and target, then the aggregate; the MD floor in rows of its own.

    Args:
        path: The file.
        evaluation: What to write.
    """
    counts = ["n_samples", "n_md_frames", "n_atoms", "coverage"]
    columns = counts + [metric.key for metric in METRICS + AGGREGATES]
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["kind", "ensemble", "target", *columns])
        for label, result in evaluation.ensembles.items():
            rows: list[tuple[str, str, Mapping[str, float]]] = []
            rows += [("samples", name, t.values) for name, t in result.targets.items()]
            rows.append(("samples", "(all)", result.aggregate()))
            rows += [("md_floor", name, t.floor) for name, t in result.targets.items() if t.floor]
            rows.append(("md_floor", "(all)", result.floor_aggregate()))
            for kind, name, values in rows:
                cells = _finite({key: values.get(key, math.nan) for key in columns})
                writer.writerow(
                    [kind, label, name, *("" if v is None else v for v in cells.values())]
                )
