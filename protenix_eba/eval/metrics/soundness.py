"""Whether conformations could be a protein's at all: shares of sound ones, and of each fault."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from protenix_eba.eval.definitions import Metric
from protenix_eba.eval.protocol.drawn import Drawn
from protenix_eba.protein.validity import Checker

__all__ = ["SOUNDNESS", "soundness", "soundness_floor"]

SOUNDNESS: Final[tuple[Metric, ...]] = (
    Metric(
        "valid_percent",
        "Valid conformations",
        "%",
        "higher",
        "Share without a broken chain, a D-amino acid or a clash.",
        digits=1,
    ),
    Metric(
        "broken_percent",
        "Broken chains",
        "%",
        "lower",
        "Share with a C-N distance above 2.0 or a CA-CA distance above 4.5 angstrom.",
        digits=1,
    ),
    Metric(
        "d_residue_percent", "With D-amino acids", "%", "lower", "Share with any of them.", digits=1
    ),
    Metric(
        "clash_percent",
        "With clashes",
        "%",
        "lower",
        "Share with heavy atoms of residues that are not bonded within 2.0 angstrom.",
        digits=1,
    ),
    Metric(
        "bond_outlier_percent",
        "Bond outliers",
        "%",
        "lower",
        "Backbone bonds 0.2 angstrom or more from the standard length, mean over conformations.",
        digits=1,
    ),
    Metric(
        "angle_outlier_percent",
        "Angle outliers",
        "%",
        "lower",
        "Backbone bond angles 15 degrees or more from the standard value (Engh and Huber, 2001), "
        "mean over conformations; MD of peptides at 300 K has 0.02.",
        digits=2,
    ),
)


def soundness(drawn: Drawn) -> dict[str, float]:
    """The metrics of `SOUNDNESS` for the samples; only chains can be judged by C-alphas alone."""
    return _of(Checker.of(drawn.topology), drawn.sample_xyz)


def soundness_floor(drawn: Drawn) -> list[dict[str, float]]:
    """The same of the MD, a mapping for each replica; empty for a single one."""
    replicas = np.unique(drawn.md_replica)
    if len(replicas) < 2:
        return []
    checker = Checker.of(drawn.topology)
    return [_of(checker, drawn.md_xyz[drawn.md_replica == replica]) for replica in replicas]


def _of(checker: Checker, xyz: NDArray[np.floating]) -> dict[str, float]:
    found = checker.check(xyz)
    values: dict[str, NDArray[np.bool_] | NDArray[np.float64]] = {
        "valid_percent": found.valid,
        "broken_percent": found.chain_breaks > 0,
    }
    if len(checker.peptide_bonds):
        values |= {
            "d_residue_percent": found.d_residues > 0,
            "clash_percent": found.clashes > 0,
            "bond_outlier_percent": found.bond_outliers,
            "angle_outlier_percent": found.angle_outliers,
        }
    return {key: 100.0 * float(np.mean(value)) for key, value in values.items()}
