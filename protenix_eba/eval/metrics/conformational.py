"""Metrics that AlphaFlow's protocol lacks: torsions, size, secondary structure, coverage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from protenix_eba.eval.definitions import Metric
from protenix_eba.eval.md_cache import MdArrays
from protenix_eba.eval.metrics.distributions import Coverage, coverage, evenly, histogram, jsd_bits
from protenix_eba.eval.metrics.features import (
    HELIX,
    STRAND,
    UNKNOWN,
    Features,
    features_of,
    torsions_of,
)
from protenix_eba.eval.protocol.drawn import Drawn
from protenix_eba.eval.target_result import Found

__all__ = ["CONFORMATIONAL", "conformational"]

Arrays = dict[str, NDArray[np.generic]]

_RAMACHANDRAN_BINS: Final = 18
_CHI_BINS: Final = 36
# C-alpha atoms of bonded residues are 3.8 angstrom apart, 2.9 across a cis bond.
_NEIGHBOUR_ANGSTROM: Final = 4.5
_TORN_ANGSTROM: Final = 10.0
_EQUAL: Final = (
    "Equal numbers of conformations are compared, since few of them look different by chance: "
    "read it beside the floor."
)


@dataclass(frozen=True)
class Featured:
    """The input of these metrics: features of samples and of MD.

    Attributes:
        md: Features of F conformations.
        md_replica: `[F]` the replica that each of them comes from.
        samples: Features of S conformations.
    """

    md: Features
    md_replica: NDArray[np.int64]
    samples: Features

    @cached_property
    def same_number(self) -> tuple[Features, Features]:
        """Features of MD and samples, cut to equal numbers of conformations."""
        return _thinned(self.md, self.samples)

    @cached_property
    def coverage(self) -> Coverage:
        """Coverage of the MD by the samples, and of the samples by the MD."""
        return coverage(self.md.ca, self.md_replica, self.samples.ca)

    def structure_error(self, code: int) -> float:
        """Return the mean over residues of the difference in a secondary structure's fraction."""
        return _mean(np.abs(_fraction(self.md, code) - _fraction(self.samples, code)))

    def floors(self) -> Iterator[Featured]:
        """Yield each replica in the place of the samples, with as many frames if it has them."""
        replicas = np.unique(self.md_replica)
        for replica in replicas if len(replicas) > 1 else ():
            own = np.flatnonzero(self.md_replica == replica)
            others = np.flatnonzero(self.md_replica != replica)
            chosen = own[evenly(len(own), len(self.samples))]
            yield Featured(self.md.take(others), self.md_replica[others], self.md.take(chosen))


def conformational(drawn: Drawn, kept: MdArrays | None = None) -> Found:
    """Compute the metrics of `CONFORMATIONAL`, which need no order in time, as `kinetics` do.

    Args:
        drawn: Frames of one target.
        kept: What is known of its MD.

    Returns:
        Values (NaN where not defined) and floor; arrays `md_<key>` and `sample_<key>`: `rg` (`[F]`,
        angstrom), `helix`, `strand` (`[L]` fractions of residues with a C-alpha atom),
        `ramachandran` (`[18, 18]` probabilities of phi and psi from -180 degrees, all residues),
        and `ramachandran_jsd_bits` (`[L]`); sentences on what is not defined and why.
    """
    torsions = torsions_of(drawn.topology, drawn.md_xyz)
    kept = kept or MdArrays()
    md = Features(
        **kept.get("features", lambda: vars(features_of(drawn.topology, drawn.md_xyz, torsions)))
    )
    samples = features_of(drawn.topology, drawn.sample_xyz, torsions)
    featured = Featured(md, drawn.md_replica, samples)
    values, floor = kept.metrics("conformational", CONFORMATIONAL, featured)
    rows = _ca_rows(drawn, torsions.residues)
    arrays: Arrays = {
        "ramachandran_jsd_bits": _per_residue(md, samples, rows),
        **{f"md_{key}": value for key, value in _distributions(md).items()},
        **{f"sample_{key}": value for key, value in _distributions(samples).items()},
    }
    notes = [*_notes(values, md, samples), *_torn_notes(drawn)]
    return Found(values, floor, arrays, notes)


def _thinned(md: Features, samples: Features) -> tuple[Features, Features]:
    n = min(len(md), len(samples))
    return md.take(evenly(len(md), n)), samples.take(evenly(len(samples), n))


def _ramachandran_jsd(md: Features, samples: Features) -> NDArray[np.floating]:
    return jsd_bits(*(histogram(_turns(f.phi_psi), _RAMACHANDRAN_BINS) for f in (md, samples)))


def _chi_jsd(md: NDArray[np.floating], samples: NDArray[np.floating]) -> NDArray[np.floating]:
    return jsd_bits(*(histogram(turns[..., None], _CHI_BINS) for turns in (md, samples)))


def _w1(md: NDArray[np.floating], samples: NDArray[np.floating]) -> float:
    from scipy.stats import wasserstein_distance  # takes a second to import

    return float(wasserstein_distance(md, samples))


def _turns(radians: NDArray[np.floating]) -> NDArray[np.floating]:
    """Convert angles from -pi to pi to fractions of a turn."""
    return (radians + np.pi) / (2.0 * np.pi)


def _fraction(features: Features, code: int) -> NDArray[np.floating]:
    """Return the fraction of conformations, `[L]`; NaN where the backbone is not complete."""
    known = (features.structure != UNKNOWN).all(axis=0)
    return np.where(known, (features.structure == code).mean(axis=0), np.nan)


def _mean(values: NDArray[np.floating]) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


def _ca_rows(drawn: Drawn, residues: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the row of each residue's C-alpha atom among all in the topology, `[R]`."""
    with_ca = [a.residue.index for a in drawn.topology.atoms if a.name == "CA"]
    row = {residue: i for i, residue in enumerate(with_ca)}
    return np.array([row[residue] for residue in residues.tolist()], dtype=np.int64)


def _per_residue(md: Features, samples: Features, rows: NDArray[np.int64]) -> NDArray[np.floating]:
    jsd = np.full(md.ca.shape[1], np.nan)
    jsd[rows] = _ramachandran_jsd(*_thinned(md, samples))
    return jsd


def _distributions(features: Features) -> Arrays:
    together = features.phi_psi.reshape(-1, 1, 2)
    bins = _RAMACHANDRAN_BINS
    return {
        "rg": features.rg,
        "helix": _fraction(features, HELIX),
        "strand": _fraction(features, STRAND),
        "ramachandran": histogram(_turns(together), bins).reshape(bins, bins),
    }


def _notes(values: dict[str, float], md: Features, samples: Features) -> list[str]:
    notes = []
    missing = [metric.label for metric in CONFORMATIONAL if np.isnan(values.get(metric.key, 0.0))]
    if missing:
        notes.append(f"not defined for these atoms or so few conformations: {', '.join(missing)}")
    n = min(len(md), len(samples))
    if n < 100:
        notes.append(
            f"of {n} conformations divergences and coverage are mostly chance: see their floor"
        )
    return notes


def _torn_notes(drawn: Drawn) -> list[str]:
    """Return a note if molecules are cut at the border of the periodic box, as in raw MD."""
    ca = [atom for atom in drawn.topology.atoms if atom.name == "CA"]
    bonds = [
        (one.index, two.index)
        for one, two in pairwise(ca)
        if one.residue.chain.index == two.residue.chain.index
    ]
    if not bonds or not len(drawn.md_xyz):
        return []
    one, two = np.array(bonds).T
    distance = np.linalg.norm(drawn.md_xyz[:, one] - drawn.md_xyz[:, two], axis=2)
    neighbours = distance.min(axis=0) < _NEIGHBOUR_ANGSTROM
    n_torn = int((distance[:, neighbours] > _TORN_ANGSTROM).any(axis=1).sum())
    if not n_torn:
        return []
    return [
        f"in {n_torn} of {len(distance)} MD frames a chain is torn apart, as by a periodic box: "
        "`protenix-eba import` makes molecules whole"
    ]


CONFORMATIONAL: Final[tuple[Metric, ...]] = (
    Metric(
        "ramachandran_jsd_bits",
        "Ramachandran JSD",
        "bit",
        "lower",
        "Jensen-Shannon divergence of the (phi, psi) distribution of a residue, 20 degrees to a "
        f"bin, mean over residues; 0 to 1. {_EQUAL}",
        compute=lambda f: _mean(_ramachandran_jsd(*f.same_number)),
    ),
    Metric(
        "chi1_jsd_bits",
        "Chi1 JSD",
        "bit",
        "lower",
        f"The same of the side chains' first torsion, 10 degrees to a bin. {_EQUAL}",
        compute=lambda f: _mean(_chi_jsd(*(_turns(side.chi1) for side in f.same_number))),
    ),
    Metric(
        "chi2_jsd_bits",
        "Chi2 JSD",
        "bit",
        "lower",
        "The same of their second torsion, on 36 bins of its period, which is 180 degrees for "
        f"Asp, Phe and Tyr. {_EQUAL}",
        compute=lambda f: _mean(_chi_jsd(*(side.chi2 for side in f.same_number))),
    ),
    Metric(
        "rg_difference_angstrom",
        "Rg difference",
        "Å",
        "neither",
        "Mean radius of gyration of the samples less that of the MD: negative is too compact.",
        compute=lambda f: f.samples.rg.mean() - f.md.rg.mean(),
    ),
    Metric(
        "rg_w1_angstrom",
        "Rg W1",
        "Å",
        "lower",
        "1-Wasserstein distance between the distributions of the radius of gyration.",
        compute=lambda f: _w1(f.md.rg, f.samples.rg),
    ),
    Metric(
        "helix_mae",
        "Helix error",
        "",
        "lower",
        "Mean over residues of the difference in the fraction of conformations that are helix.",
        compute=lambda f: f.structure_error(HELIX),
    ),
    Metric(
        "strand_mae",
        "Strand error",
        "",
        "lower",
        "Mean over residues of the difference in the fraction of conformations that are strand.",
        compute=lambda f: f.structure_error(STRAND),
    ),
    Metric(
        "coverage",
        "Coverage",
        "",
        "higher",
        "Fraction of the MD's clusters whose centre has a sample nearer than its fifth nearest "
        "frame of the other replicas (C-alpha RMSD); samples from the MD itself reach 0.97.",
        compute=lambda f: f.coverage.recall,
    ),
    Metric(
        "precision",
        "Precision",
        "",
        "higher",
        "Fraction of samples as near to the MD as 95% of its frames are to the other replicas; "
        "samples from the MD itself reach 0.95.",
        compute=lambda f: f.coverage.precision,
    ),
)
