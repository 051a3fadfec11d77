"""Metrics that AlphaFlow's protocol lacks: torsions, size, secondary structure, coverage."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from protenix_eba.eval.definitions import Metric
from protenix_eba.eval.metrics.distributions import coverage, evenly, histogram, jsd_bits
from protenix_eba.eval.metrics.features import (
    HELIX,
    STRAND,
    UNKNOWN,
    Features,
    features_of,
    torsions_of,
)
from protenix_eba.eval.protocol.drawn import Drawn

__all__ = ["BEYOND", "beyond_floor", "beyond_protocol"]

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

BEYOND: Final[tuple[Metric, ...]] = (
    Metric(
        "ramachandran_jsd_bits",
        "Ramachandran JSD",
        "bit",
        "lower",
        "Jensen-Shannon divergence of the (phi, psi) distribution of a residue, 20 degrees to a "
        f"bin, mean over residues; 0 to 1. {_EQUAL}",
    ),
    Metric(
        "chi1_jsd_bits",
        "Chi1 JSD",
        "bit",
        "lower",
        f"The same of the side chains' first torsion, 10 degrees to a bin. {_EQUAL}",
    ),
    Metric(
        "chi2_jsd_bits",
        "Chi2 JSD",
        "bit",
        "lower",
        "The same of their second torsion, on 36 bins of its period, which is 180 degrees for "
        f"Asp, Phe and Tyr. {_EQUAL}",
    ),
    Metric(
        "rg_difference_angstrom",
        "Rg difference",
        "Å",
        "neither",
        "Mean radius of gyration of the samples less that of the MD: negative is too compact.",
    ),
    Metric(
        "rg_w1_angstrom",
        "Rg W1",
        "Å",
        "lower",
        "1-Wasserstein distance between the distributions of the radius of gyration.",
    ),
    Metric(
        "helix_mae",
        "Helix error",
        "",
        "lower",
        "Mean over residues of the difference in the fraction of conformations that are helix.",
    ),
    Metric(
        "strand_mae",
        "Strand error",
        "",
        "lower",
        "Mean over residues of the difference in the fraction of conformations that are strand.",
    ),
    Metric(
        "coverage",
        "Coverage",
        "",
        "higher",
        "Fraction of the MD's clusters whose centre has a sample nearer than its fifth nearest "
        "frame of the other replicas (C-alpha RMSD); samples from the MD itself reach 0.97.",
    ),
    Metric(
        "precision",
        "Precision",
        "",
        "higher",
        "Fraction of samples as near to the MD as 95% of its frames are to the other replicas; "
        "samples from the MD itself reach 0.95.",
    ),
    Metric(
        "tica_w2",
        "TICA W2",
        "",
        "lower",
        "2-Wasserstein distance on the MD's two slowest motions (TICA of C-alpha distances), in "
        "standard deviations of the MD.",
    ),
    Metric(
        "md_effective_frames",
        "Independent MD frames",
        "",
        "neither",
        "Frames of the MD over the autocorrelation time of its largest motion, all replicas.",
        digits=0,
    ),
)


def beyond_protocol(drawn: Drawn) -> tuple[dict[str, float], Arrays, list[str]]:
    """The metrics of `BEYOND` that need no order in time; `kinetics` has the others.

    Returns:
        Values (NaN where not defined); arrays `md_<key>` and `sample_<key>`: `rg` (`[F]`,
        angstrom), `helix`, `strand` (`[L]` fractions of residues with a C-alpha atom),
        `ramachandran` (`[18, 18]` probabilities of phi and psi from -180 degrees, all residues),
        and `ramachandran_jsd_bits` (`[L]`); sentences on what is not defined and why.
    """
    torsions = torsions_of(drawn.topology, drawn.md_xyz)
    md = features_of(drawn.topology, drawn.md_xyz, torsions)
    samples = features_of(drawn.topology, drawn.sample_xyz, torsions)
    values = _compare(md, drawn.md_replica, samples)
    rows = _rows_of(drawn, torsions.residues)
    arrays: Arrays = {
        "ramachandran_jsd_bits": _per_residue(md, samples, rows),
        **{f"md_{key}": value for key, value in _distributions(md).items()},
        **{f"sample_{key}": value for key, value in _distributions(samples).items()},
    }
    return values, arrays, [*_notes(values, md, samples), *_torn_notes(drawn)]


def beyond_floor(drawn: Drawn) -> list[dict[str, float]]:
    """The same values of each replica against the others; empty for a single replica.

    A replica gives as many frames as there are samples, if it has them.
    """
    replicas = np.unique(drawn.md_replica)
    if len(replicas) < 2:
        return []
    torsions = torsions_of(drawn.topology, drawn.md_xyz)
    features = features_of(drawn.topology, drawn.md_xyz, torsions)
    floor = []
    for replica in replicas:
        own = np.flatnonzero(drawn.md_replica == replica)
        others = np.flatnonzero(drawn.md_replica != replica)
        chosen = own[evenly(len(own), len(drawn.sample_xyz))]
        floor.append(
            _compare(features.take(others), drawn.md_replica[others], features.take(chosen))
        )
    return floor


def _compare(md: Features, md_replica: NDArray[np.int64], samples: Features) -> dict[str, float]:
    from scipy.stats import wasserstein_distance  # takes a second to import

    same_number = _thinned(md, samples)
    found = coverage(md.ca, md_replica, samples.ca)
    return {
        "ramachandran_jsd_bits": _mean(_ramachandran_jsd(*same_number)),
        "chi1_jsd_bits": _mean(
            jsd_bits(*(histogram(_turns(f.chi1)[..., None], _CHI_BINS) for f in same_number))
        ),
        "chi2_jsd_bits": _mean(
            jsd_bits(*(histogram(f.chi2[..., None], _CHI_BINS) for f in same_number))
        ),
        "rg_difference_angstrom": float(samples.rg.mean() - md.rg.mean()),
        "rg_w1_angstrom": float(wasserstein_distance(md.rg, samples.rg)),
        "helix_mae": _mean(np.abs(_fraction(md, HELIX) - _fraction(samples, HELIX))),
        "strand_mae": _mean(np.abs(_fraction(md, STRAND) - _fraction(samples, STRAND))),
        "coverage": found.recall,
        "precision": found.precision,
    }


def _thinned(md: Features, samples: Features) -> tuple[Features, Features]:
    n = min(len(md), len(samples))
    return md.take(evenly(len(md), n)), samples.take(evenly(len(samples), n))


def _ramachandran_jsd(md: Features, samples: Features) -> NDArray[np.floating]:
    return jsd_bits(*(histogram(_turns(f.phi_psi), _RAMACHANDRAN_BINS) for f in (md, samples)))


def _turns(radians: NDArray[np.floating]) -> NDArray[np.floating]:
    """Angles from -pi as fractions of a turn."""
    return (radians + np.pi) / (2.0 * np.pi)


def _fraction(features: Features, code: int) -> NDArray[np.floating]:
    """`[L]` fraction of conformations; NaN where the backbone is not complete."""
    known = (features.structure != UNKNOWN).all(axis=0)
    return np.where(known, (features.structure == code).mean(axis=0), np.nan)


def _mean(values: NDArray[np.floating]) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


def _rows_of(drawn: Drawn, residues: NDArray[np.int64]) -> NDArray[np.int64]:
    """`[R]` which C-alpha atom, of all in the topology, belongs to each of the residues."""
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
    missing = [metric.label for metric in BEYOND if np.isnan(values.get(metric.key, 0.0))]
    if missing:
        notes.append(f"not defined for these atoms or so few conformations: {', '.join(missing)}")
    n = min(len(md), len(samples))
    if n < 100:
        notes.append(
            f"of {n} conformations divergences and coverage are mostly chance: see their floor"
        )
    return notes


def _torn_notes(drawn: Drawn) -> list[str]:
    """Raw MD often has molecules cut at the border of the periodic box."""
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
