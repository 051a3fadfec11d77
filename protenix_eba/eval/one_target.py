"""Evaluation of one target: its ensemble against MD, and MD against itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.eval.definitions import compute_metrics
from protenix_eba.eval.metrics.additions import add_beyond
from protenix_eba.eval.protocol import kernels
from protenix_eba.eval.protocol.alignment import Floats
from protenix_eba.eval.protocol.alphaflow_script import ALPHAFLOW_1_9_9, alphaflow_values
from protenix_eba.eval.protocol.arrays import residue_arrays, shown_frames, side_arrays
from protenix_eba.eval.protocol.drawn import Drawn
from protenix_eba.eval.protocol.draws import ALPHAFLOW_SEED, Draws
from protenix_eba.eval.protocol.ensemble import match_atoms
from protenix_eba.eval.protocol.exposure import Bools, SideChains
from protenix_eba.eval.protocol.metrics import (
    PrincipalComponents,
    leading_axes,
    principal_components,
    rmsf,
)
from protenix_eba.eval.protocol.panel import (
    CONTACT_ANGSTROM,
    PROTOCOL_METRICS,
    Panel,
    Side,
    Structure,
)
from protenix_eba.eval.protocol.stream import Kept, Moments, Placement, pool, read_moments
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
    reference: Conformations, samples: Conformations, settings: TargetSettings
) -> TargetResult:
    """Compute the coordinate metrics of one ensemble against MD, with their floor.

    The protocol reads every frame of the MD once and keeps none but those that it draws: memory
    does not depend on their number.

    Args:
        reference: The MD, all replicas.
        samples: Generated conformations of the same protein, any order of atoms.
        settings: Draws, and whether AlphaFlow's own numbers are wanted beside ours.

    Raises:
        UserError: Atoms that do not match, fewer than two conformations on a side, or files that
            cannot be read.
    """
    _check_sizes(reference, samples)
    comparison = _Comparison(reference, samples, settings)
    result = comparison.result()
    if not settings.beyond:
        return result
    return add_beyond(result, comparison.drawn, comparison.match, reference, samples)


def _check_sizes(reference: Conformations, samples: Conformations) -> None:
    for side, ensemble in (("MD", reference), ("samples", samples)):
        n_frames = sum(ensemble.n_frames.values())
        if n_frames < 2:
            raise UserError(
                f"target {reference.name}: {n_frames} conformations in the {side}, "
                "at least two are needed",
                "sample more conformations (AlphaFlow's protocol: 250)",
            )


class _Comparison:
    """Two ensembles whose frames have been read."""

    def __init__(
        self, reference: Conformations, samples: Conformations, settings: TargetSettings
    ) -> None:
        self.reference, self.samples, self.settings = reference, samples, settings
        self.match = match_atoms(reference.topology, samples.topology, reference.name)
        self.placement = Placement.on(reference.structure_xyz, self.match)
        n_samples = sum(samples.n_frames.values())
        self.draws = Draws.of(reference.n_frames, n_samples, settings.n_plotted, settings.seed)
        self.md_kept = _kept(self.draws, self.placement)
        everything = {"all": np.arange(n_samples)}
        self.sample_kept = Kept(everything, everything, self.placement)
        ours, theirs = self.match.reference_atoms, self.match.sample_atoms
        self.md_parts = read_moments(reference, ours, self.placement, self.md_kept)
        sample_parts = read_moments(samples, theirs, self.placement, self.sample_kept)
        self.md, self.sample = pool(self.md_parts.values()), pool(sample_parts.values())
        atoms = [reference.topology.atom(int(i)) for i in ours]
        # Without side chains nothing can be exposed.
        self.side_chains = None if self.match.ca_only else SideChains.of(atoms, self.match.residue)

    def result(self) -> TargetResult:
        """Compute all metrics and arrays."""
        structure, md, samples = self._structure(), self._md_side(), self._sample_side()
        floor_sides = [self._floor_sides(replica, md) for replica in self.draws.floor]
        panel = Panel(structure, md, samples, floor_sides)
        values, floor = compute_metrics(PROTOCOL_METRICS, panel)
        compat, compat_notes = self._compat(values, structure)
        arrays = {
            **residue_arrays(self.reference.topology, self.match),
            **side_arrays(structure, md, samples),
            **self._profiles(md, floor_sides),
            **shown_frames(self.drawn, self._sample_numbers()),
        }
        return TargetResult(
            name=self.reference.name,
            values=values,
            compat=compat,
            floor=floor,
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
            self.md_kept.heavy["gaussian"],
            self.draws.gaussian_replica,
            self.sample_kept.heavy["all"],
        )

    def _sample_numbers(self) -> NDArray[np.int64]:
        """Return each sample's number in its files, `[S]`: with weights some are there twice."""
        drawn = self.samples.drawn if isinstance(self.samples, WeightedDraw) else None
        return np.arange(self.sample.n) if drawn is None else np.array(drawn, dtype=np.int64)

    def _structure(self) -> Structure:
        contacts = kernels.count_contacts(self.placement.ca[None], CONTACT_ANGSTROM) > 0
        heavy = self.placement.heavy.astype(np.float32)
        return Structure(contacts, self.side_chains.buried(heavy) if self.side_chains else None)

    def _exposed(self, heavy: Floats) -> Bools | None:
        return self.side_chains.exposed(heavy) if self.side_chains else None

    def _md_side(self) -> Side:
        heavy, ca = self.md_kept.heavy["gaussian"], self.md_kept.ca
        return Side(
            rmsf=self.md.rmsf,
            axes=self._axes(self.md),
            heavy=heavy,
            ca=ca["first"],
            second_ca=ca["second"],
            exposed=self._exposed(heavy),
        )

    def _sample_side(self) -> Side:
        heavy, ca = self.sample_kept.heavy["all"], self.sample_kept.ca["all"]
        return Side(
            rmsf=self.sample.rmsf,
            axes=principal_components(ca),
            heavy=heavy,
            ca=ca,
            second_ca=ca,
            exposed=self._exposed(heavy),
        )

    def _floor_sides(self, replica: int, md: Side) -> tuple[Side, Side]:
        """Return the other replicas as MD, and as many frames of this one as there are samples.

        Exposure costs too much to be computed again: it is of the frames that the protocol draws
        anyway, this replica's against the others'.
        """
        others = pool(part for number, part in self.md_parts.items() if number != replica)
        mine = self.draws.gaussian_replica == replica
        ca, own = self.md_kept.ca, self.md_kept.heavy[f"own {replica}"]
        own_ca = ca[f"own {replica}"]
        return Side(
            rmsf=others.rmsf,
            axes=self._axes(others),
            heavy=md.heavy[~mine],
            ca=ca[f"others {replica}"],
            second_ca=ca[f"second others {replica}"],
            exposed=None if md.exposed is None else md.exposed[~mine],
        ), Side(
            rmsf=rmsf(own),
            axes=principal_components(own_ca),
            heavy=own,
            ca=own_ca,
            second_ca=own_ca,
            exposed=None if md.exposed is None else md.exposed[mine],
        )

    def _axes(self, moments: Moments) -> PrincipalComponents:
        mean = self.placement.ca.ravel() + moments.ca / moments.n
        return leading_axes(mean, moments.ca_covariance)

    def _compat(
        self, values: dict[str, float], structure: Structure
    ) -> tuple[dict[str, float], list[str]]:
        if self.settings.compat is None:
            return {}, []
        return alphaflow_values(
            values,
            match=self.match,
            topologies=(self.reference.topology, self.samples.topology),
            side_chains=self.side_chains,
            buried=structure.buried,
            frames=(self.md_kept.heavy["gaussian"], self.sample_kept.heavy["all"]),
            n_threads=self.settings.compat_threads,
        )

    def _profiles(self, md: Side, floor_sides: list[tuple[Side, Side]]) -> Arrays:
        shape = (len(floor_sides), 2, len(self.match.residue))
        floor = [(own.rmsf, others.rmsf) for others, own in floor_sides]
        return {
            "floor_rmsf": np.array(floor).reshape(shape),
            "md_ca_rmsf": self.md.ca_rmsf,
            "md_ca_rmsf_replicas": np.array([part.ca_rmsf for part in self.md_parts.values()]),
            "sample_ca_rmsf": self.sample.ca_rmsf,
            "md_pca": md.axes.project(self.md_kept.ca["plotted"]),
        }

    def _source_notes(self) -> list[str]:
        return [*self.reference.notes, *self.samples.notes, *self.match.notes]

    def _counts(self) -> dict[str, float]:
        return {
            "n_samples": self.sample.n,
            "n_md_frames": self.md.n,
            "n_replicas": len(self.md_parts),
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
        if self.draws.floor:
            return undefined
        return [*undefined, "The MD has one replica: there is no floor of MD against MD."]


def _kept(draws: Draws, placement: Placement) -> Kept:
    heavy = {"gaussian": draws.gaussian}
    ca = {"first": draws.first, "second": draws.second, "plotted": draws.plotted}
    for replica, floor in draws.floor.items():
        heavy[f"own {replica}"] = ca[f"own {replica}"] = floor.own
        ca[f"others {replica}"] = floor.others
        ca[f"second others {replica}"] = floor.second_others
    return Kept(heavy, ca, placement)
