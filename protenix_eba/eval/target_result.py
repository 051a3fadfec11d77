"""The result of the evaluation of one target, and its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

__all__ = ["Found", "TargetResult"]

Arrays = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Found:
    """The metrics that a module adds to the result of a target; see `TargetResult`.

    Attributes:
        values: Metric key to value.
        floor: The same, for each replica of the MD.
        arrays: For the figures.
        notes: Sentences for the reader.
    """

    values: Mapping[str, float]
    floor: Sequence[Mapping[str, float]] = ()
    arrays: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class TargetResult:
    """The result for one ensemble against the MD of one target.

    Attributes:
        name: Name of the target.
        values: Metric key (`definitions.METRICS`) to value; NaN where it is not defined.
        compat: The same keys as AlphaFlow's script would print them; empty unless asked for.
        floor: The same keys, MD against MD, one mapping for each replica against the others;
            empty where the MD has one replica.
        counts: `n_samples, n_md_frames, n_replicas, n_atoms, n_residues`, `coverage`, and
            `ca_only`: 1.0 where one side has C-alpha atoms only, whose RMSF and RMWD are not to be
            mixed with those of all heavy atoms; then there are no arrays on exposure.
        arrays: What the aggregate and the figures need, each a plain array:

            `residue_numbers [L]`, `residue_names [L]`, `chain_ids [L]`, of the matched C-alphas;
            `md_rmsf [N]`, `sample_rmsf [N]` of heavy atoms, and `floor_rmsf [R, 2, N]` of as
            many frames of each replica as there are samples, and of the others, angstrom;
            `md_ca_rmsf [L]`, `md_ca_rmsf_replicas [R, L]`, `sample_ca_rmsf [L]`, angstrom;
            `md_pca [<= 1500, 2]`, `sample_pca [S, 2]` on the MD's first two axes, angstrom;
            `structure_contacts [L, L]` (bool), `md_contacts`, `sample_contacts [L, L]` (float16
            probabilities);
            `structure_exposed [L]` (bool), `md_exposed`, `sample_exposed [L]` probabilities;
            `md_frames [<= 12, N, 3]`, `sample_frames [n <= 14, N, 3]` superposed heavy atoms in
            angstrom (float16 is too coarse: float32), with `atom_names [N]`, `atom_residue [N]`
            (row in `residue_numbers`, so L rows), and the samples' numbers `sample_shown [n]` and
            C-alpha RMSD to the nearest MD frame `sample_from_md [n]`, angstrom, the smallest and
            the largest of all among them, for the view in three dimensions;
            distributions beyond the protocol as pairs `md_<key> [n]`, `sample_<key> [m]`;
            `md_energy`, `md_weights`, `sample_energy` where energies are known.
        notes: Sentences for the reader: missing atoms, thinned frames, undefined metrics.
    """

    name: str
    values: dict[str, float]
    compat: dict[str, float]
    floor: list[dict[str, float]]
    counts: dict[str, float]
    arrays: Arrays = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def with_found(self, found: Found) -> TargetResult:
        """Return the result with more metrics."""
        nothing: dict[str, float] = {}
        rows = zip_longest(self.floor, found.floor, fillvalue=nothing)
        return replace(
            self,
            values={**self.values, **found.values},
            floor=[{**row, **more} for row, more in rows],
            arrays={**self.arrays, **found.arrays},
            notes=[*self.notes, *found.notes],
        )
