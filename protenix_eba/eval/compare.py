"""One generated ensemble against the MD of one target, and MD against itself."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from protenix_eba.errors import UserError
from protenix_eba.eval.alignment import Aligned, align
from protenix_eba.eval.ensemble import AtomMatch, Ensemble, match_atoms
from protenix_eba.eval.metrics import (
    ALPHAFLOW_SEED,
    Panel,
    panel,
    principal_components,
    rmsf,
)
from protenix_eba.eval.results import Profile, TargetResult

__all__ = ["Reference", "compare", "compare_with", "pool", "profile_of"]

_MAX_PLOTTED_FRAMES = 1500


class Reference:
    """The MD of one target; alignments and the floor are kept for ensembles with equal atoms."""

    def __init__(self, ensemble: Ensemble, seed: int) -> None:
        self.ensemble = ensemble
        self._seed = seed
        self._atoms = b""
        self._replicas: dict[int, Aligned] = {}
        self._floors: dict[tuple[bytes, int], tuple[Panel, ...]] = {}

    def replicas(self, match: AtomMatch) -> dict[int, Aligned]:
        """Each replica with the matched atoms only, superposed on the reference structure."""
        atoms = match.reference_index.tobytes()
        if atoms != self._atoms:
            structure = self.ensemble.reference_xyz[match.reference_index]
            self._replicas = {
                number: align(xyz[:, match.reference_index], structure, match.ca_index)
                for number, xyz in self.ensemble.replicas.items()
            }
            self._atoms = atoms
        return self._replicas

    def floor(self, match: AtomMatch, n_samples: int) -> tuple[Panel, ...]:
        """Each replica, as many frames as there are samples, against the others."""
        key = (match.reference_index.tobytes(), n_samples)
        if key not in self._floors:
            self._floors[key] = self._floor(self.replicas(match), n_samples)
        return self._floors[key]

    def _floor(self, replicas: dict[int, Aligned], n_samples: int) -> tuple[Panel, ...]:
        if len(replicas) < 2:
            return ()
        random = np.random.RandomState(self._seed)
        panels = []
        for number, own in replicas.items():
            others = pool({k: v for k, v in replicas.items() if k != number})
            drawn = random.choice(len(own.ca), n_samples, replace=n_samples > len(own.ca))
            samples = Aligned(own.heavy[drawn], own.ca[drawn])
            panels.append(panel(others, samples, self._seed))
        return tuple(panels)


def pool(replicas: Mapping[int, Aligned]) -> Aligned:
    """The frames of all replicas, in the order of their numbers."""
    parts = list(replicas.values())
    return Aligned(np.concatenate([p.heavy for p in parts]), np.concatenate([p.ca for p in parts]))


def compare(reference: Ensemble, samples: Ensemble, *, seed: int = ALPHAFLOW_SEED) -> TargetResult:
    """The coordinate metrics of one ensemble against MD, with their MD-against-MD floor.

    Args:
        reference: MD, all replicas.
        samples: Generated conformations of the same protein, any order of atoms.
        seed: Of the draws from MD.

    Raises:
        UserError: Atoms that do not match, or fewer than two conformations on a side.
    """
    return compare_with(Reference(reference, seed), samples, seed)[0]


def compare_with(
    reference: Reference, samples: Ensemble, seed: int
) -> tuple[TargetResult, AtomMatch, Aligned]:
    """As `compare`, with the matched atoms and the aligned samples for the figures.

    Args:
        reference: MD, shared by the ensembles of one target.
        samples: Generated conformations.
        seed: Of the draws from MD.

    Raises:
        UserError: As `compare`.
    """
    for side, ensemble in (("MD", reference.ensemble), ("samples", samples)):
        if ensemble.n_frames < 2:
            raise UserError(
                f"target {samples.name}: {ensemble.n_frames} conformations in the {side}, "
                "at least two are needed",
                "sample more conformations (AlphaFlow's protocol: 250)",
            )
    match = match_atoms(reference.ensemble, samples)
    xyz = np.concatenate(list(samples.replicas.values()))[:, match.sample_index]
    structure = reference.ensemble.reference_xyz[match.reference_index]
    aligned = align(xyz, structure, match.ca_index)
    result = panel(pool(reference.replicas(match)), aligned, seed)
    counts = {
        "n_samples": samples.n_frames,
        "n_md_frames": reference.ensemble.n_frames,
        "n_atoms": len(match.reference_index),
        "coverage": match.coverage,
    }
    floor_panels = reference.floor(match, samples.n_frames)
    floor = {k: float(np.mean([p.values[k] for p in floor_panels])) for k in result.values}
    target = TargetResult(
        counts | result.values, result, floor if floor_panels else {}, floor_panels
    )
    return target, match, aligned


def profile_of(reference: Reference, match: AtomMatch, seed: int) -> Profile:
    """What the figures show of the MD; frames beyond 1,500 are thinned out in the PCA plot.

    Args:
        reference: MD.
        match: Atoms in common with the first ensemble.
        seed: Of the draw for the PCA plot.
    """
    replicas = reference.replicas(match)
    single = np.stack([rmsf(part.ca) for part in replicas.values()])
    ca = pool(replicas).ca
    n_plotted = min(len(ca), _MAX_PLOTTED_FRAMES)
    drawn = np.random.RandomState(seed).choice(len(ca), n_plotted, replace=False)
    return Profile(
        residue_numbers=match.residue_numbers,
        md_rmsf=rmsf(ca),
        md_rmsf_band=np.stack([single.min(axis=0), single.max(axis=0)]),
        md_pca=principal_components(ca).project(ca[drawn]),
    )
