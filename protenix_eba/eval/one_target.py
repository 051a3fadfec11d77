"""Evaluation of one target: its ensemble against MD, and MD against itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.eval.definitions import floor_rows, metric_values
from protenix_eba.eval.md_cache import MdArrays, MdCache
from protenix_eba.eval.metrics.additions import add_beyond
from protenix_eba.eval.protocol.alphaflow_script import ALPHAFLOW_1_9_9, alphaflow_values
from protenix_eba.eval.protocol.arrays import residue_arrays, shown_frames, side_arrays
from protenix_eba.eval.protocol.drawn import Drawn
from protenix_eba.eval.protocol.draws import ALPHAFLOW_SEED, Draws
from protenix_eba.eval.protocol.ensemble import match_atoms
from protenix_eba.eval.protocol.exposure import SideChains
from protenix_eba.eval.protocol.metrics import principal_components
from protenix_eba.eval.protocol.panel import PROTOCOL_METRICS, Panel, Side
from protenix_eba.eval.protocol.reference_side import (
    ReferenceSide,
    check_size,
    reference_arrays,
)
from protenix_eba.eval.protocol.stream import Kept, Placement, pool, read_moments
from protenix_eba.eval.target_result import Arrays, TargetResult
from protenix_eba.eval.weighting import WeightedDraw
from protenix_eba.structures.sources import Conformations

__all__ = ["TargetSettings", "evaluate_target"]


@dataclass(frozen=True)
class TargetSettings:
    """Settings of the evaluation of one target.

    Attributes:
        seed: Seed of the draws from MD; 137 is AlphaFlow's.
        compat: `alphaflow-1.9.9` to repeat AlphaFlow's script under mdtraj 1.9.9 beside ours.
        compat_threads: OpenMP threads of the run to repeat; its areas depend on them.
        n_plotted: Most MD frames in the figure of the principal components.
        beyond: Add the metrics beyond the protocol; without them the MD is read once.
    """

    seed: int = ALPHAFLOW_SEED
    compat: str | None = None
    compat_threads: int = 1
    n_plotted: int = 1500
    beyond: bool = True

    def __post_init__(self) -> None:
        if self.compat not in (None, ALPHAFLOW_1_9_9):
            raise UserError(
                f"compat: expected {ALPHAFLOW_1_9_9}, found {self.compat}",
                "this is the one published behaviour that can be repeated",
            )
        if self.compat_threads < 1:
            raise UserError(
                f"compat_threads: expected 1 or more, found {self.compat_threads}",
                "give the OMP_NUM_THREADS of the run to repeat",
            )


def evaluate_target(
    reference: Conformations,
    samples: Conformations,
    settings: TargetSettings,
    cache: MdCache | None = None,
) -> TargetResult:
    """Compute the coordinate metrics of one ensemble against MD, with their floor.

    The protocol reads every frame of the MD once and keeps none but those that it draws: memory
    does not depend on their number.

    Args:
        reference: The MD, all replicas.
        samples: Generated conformations of the same protein, any order of atoms.
        settings: Draws, and whether AlphaFlow's own numbers are wanted beside ours.
        cache: Where to look for, and leave, what depends on the MD alone. The numbers are the same
            without it.

    Raises:
        UserError: Atoms that do not match, fewer than two conformations on a side, or files that
            cannot be read.
    """
    comparison = _Comparison(reference, samples, settings, cache)
    result = comparison.result()
    if settings.beyond:
        match, kept = comparison.match, comparison.kept
        result = add_beyond(result, comparison.drawn, match, reference, samples, kept)
    comparison.kept.write()
    return result


class _Comparison:
    """Two ensembles whose frames have been read."""

    def __init__(
        self,
        reference: Conformations,
        samples: Conformations,
        settings: TargetSettings,
        cache: MdCache | None,
    ) -> None:
        self.reference, self.samples, self.settings = reference, samples, settings
        name, n_samples = reference.name, sum(samples.n_frames.values())
        check_size(name, "samples", n_samples)
        self.match = match_atoms(reference.topology, samples.topology, name)
        self.placement = Placement.on(reference.structure_xyz, self.match)
        # Without side chains nothing can be exposed.
        atoms = [reference.topology.atom(int(i)) for i in self.match.reference_atoms]
        self.side_chains = None if self.match.ca_only else SideChains.of(atoms, self.match.residue)
        self.kept = cache.of(name, self.match, samples) if cache else MdArrays()
        self.md = ReferenceSide(self.kept.get("protocol", self._read_md))
        everything = {"all": np.arange(n_samples)}
        self.sample_kept = Kept(everything, everything, self.placement)
        theirs = self.match.sample_atoms
        self.sample = pool(read_moments(samples, theirs, self.placement, self.sample_kept).values())

    def _read_md(self) -> dict[str, NDArray[Any]]:
        n_frames, n_samples = self.reference.n_frames, sum(self.samples.n_frames.values())
        check_size(self.reference.name, "MD", sum(n_frames.values()))
        draws = Draws.of(n_frames, n_samples, self.settings.n_plotted, self.settings.seed)
        sides = self.placement, self.side_chains
        return reference_arrays(self.reference, self.match, *sides, draws)

    def result(self) -> TargetResult:
        """Compute all metrics and arrays."""
        structure, md, samples = self.md.structure, self.md.side, self._sample_side()
        values = metric_values(PROTOCOL_METRICS, Panel(structure, md, samples))
        compat, compat_notes = self._compat(values)
        arrays = {
            **residue_arrays(self.reference.topology, self.match),
            **side_arrays(structure, md, samples),
            **self._profiles(),
            **shown_frames(self.drawn, self._sample_numbers()),
        }
        return TargetResult(
            name=self.reference.name,
            values=values,
            compat=compat,
            floor=floor_rows(PROTOCOL_METRICS, self.md.arrays["floor"]),
            counts=self._counts(),
            arrays=arrays,
            notes=[
                *self._source_notes(),
                *compat_notes,
                *self._notes(values),
            ],
        )

    @property
    def drawn(self) -> Drawn:
        """Frames for metrics beyond the protocol."""
        return Drawn(
            self.reference.topology.subset(self.match.reference_atoms),
            self.md.arrays["heavy"],
            self.md.arrays["heavy_replica"],
            self.sample_kept.heavy["all"],
        )

    def _sample_numbers(self) -> NDArray[np.int64]:
        """Return each sample's number in its files, `[S]`: with weights some are there twice."""
        drawn = self.samples.drawn if isinstance(self.samples, WeightedDraw) else None
        return np.arange(self.sample.n) if drawn is None else np.array(drawn, dtype=np.int64)

    def _sample_side(self) -> Side:
        heavy, ca = self.sample_kept.heavy["all"], self.sample_kept.ca["all"]
        return Side(
            rmsf=self.sample.rmsf,
            axes=principal_components(ca),
            heavy=heavy,
            ca=ca,
            second_ca=ca,
            exposed=self.side_chains.exposed(heavy) if self.side_chains else None,
        )

    def _compat(self, values: dict[str, float]) -> tuple[dict[str, float], list[str]]:
        if self.settings.compat is None:
            return {}, []
        return alphaflow_values(
            values,
            match=self.match,
            topologies=(self.reference.topology, self.samples.topology),
            side_chains=self.side_chains,
            buried=self.md.structure.buried,
            frames=(self.md.arrays["heavy"], self.sample_kept.heavy["all"]),
            n_threads=self.settings.compat_threads,
        )

    def _profiles(self) -> Arrays:
        md = self.md.arrays
        return {
            "floor_rmsf": md["floor_rmsf"],
            "md_ca_rmsf": md["ca_rmsf"],
            "md_ca_rmsf_replicas": md["ca_rmsf_replicas"],
            "sample_ca_rmsf": self.sample.ca_rmsf,
            "md_pca": md["pca"],
        }

    def _source_notes(self) -> list[str]:
        return [*self.reference.notes, *self.samples.notes, *self.match.notes]

    def _counts(self) -> dict[str, float]:
        return {
            "n_samples": self.sample.n,
            "n_md_frames": sum(self.md.n_frames),
            "n_replicas": len(self.md.n_frames),
            "n_atoms": len(self.match.residue),
            "n_residues": len(self.match.ca),
            "coverage": self.match.coverage,
            "ca_only": float(self.match.ca_only),
        }

    def _notes(self, values: dict[str, float]) -> list[str]:
        undefined = [
            f"{metric.key} is not defined: {metric.undefined}."
            for metric in PROTOCOL_METRICS
            if not np.isfinite(values[metric.key])
        ]
        if len(self.md.n_frames) > 1:
            return undefined
        return [*undefined, "The MD has one replica: there is no floor of MD against MD."]
